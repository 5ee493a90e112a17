//! Reads archives back and says what is damaged.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::archive::manifest::RecordedTotals;
use crate::archive::{self, Input, Reader, Sums};
use crate::config::Verify;

/// How many damaged members are named.
const NAMED_COUNT: usize = 50;

/// What was found of one archive.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    pub path: PathBuf,
    pub archive_bytes: u64,
    pub member_count: u64,
    /// Whether every member was compared with what it was when it was written.
    pub compared: bool,
    /// Empty when all is well.
    pub problems: Vec<String>,
    /// Nothing against the archive itself.
    pub notes: Vec<String>,
    /// To lie beside it: it had none, and is good as far as can be told.
    #[serde(skip)]
    pub missing_sums: Option<Sums>,
}

/// Reads all of an archive. `sums` is what lies beside it.
///
/// # Errors
/// When interrupted, or the file cannot be looked at.
pub fn verify(
    path: PathBuf,
    file: &File,
    sums: Option<&[u8]>,
    cancel: &AtomicBool,
) -> Result<Verified> {
    let archive_bytes = file.metadata()?.len();
    let mut verified = Verified {
        path,
        archive_bytes,
        member_count: 0,
        compared: false,
        problems: Vec::new(),
        notes: Vec::new(),
        missing_sums: None,
    };
    match structure(file, &mut verified.member_count) {
        Ok(()) => {}
        Err(error) => verified.problems.push(format!("{error:#}")),
    }
    let parsed = sums.map(|sums| {
        let text = std::str::from_utf8(sums).context("it is damaged")?;
        Sums::parse(text)
    });
    match parsed {
        None => verified
            .notes
            .push("no sums lie beside it: only its structure could be checked".to_owned()),
        Some(Err(error)) => {
            let note = format!(
                "the sums beside it cannot be used ({error:#}): only its structure could be checked \
                 (remove them, and verify makes new ones)"
            );
            verified.notes.push(note);
        }
        Some(Ok(sums)) => {
            verified.compared = true;
            if sums.archive_bytes != archive_bytes {
                verified.problems.push(format!(
                    "it has {archive_bytes} bytes, and had {}",
                    sums.archive_bytes
                ));
            }
            let mut damaged = sums.damaged(file, cancel)?;
            if !damaged.is_empty() {
                let good = sums.member_count() - damaged.len();
                verified.notes.push(format!(
                    "{good} of {} members are as they were written",
                    sums.member_count()
                ));
            }
            damaged.truncate(NAMED_COUNT);
            verified.problems.extend(damaged);
        }
    }
    if !verified.compared {
        // At least the disk must give it back.
        if verified.problems.is_empty() {
            match Sums::of(file, cancel) {
                Ok(made) => verified.missing_sums = sums.is_none().then_some(made),
                Err(error) => {
                    ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
                    verified.problems.push(format!("{error:#}"));
                }
            }
        }
        if !verified.problems.is_empty() && verified.member_count > 0 {
            verified.notes.push(format!(
                "the first {} members can be had, the last of them perhaps damaged",
                verified.member_count
            ));
        }
    }
    Ok(verified)
}

/// Every header, the end, and what the manifest says of both. `count` is how
/// many members were read.
fn structure(file: &File, count: &mut u64) -> Result<()> {
    let mut reader = Reader::new(Input::File(file))?;
    while reader.next_member()?.is_some() {
        *count += 1;
    }
    ensure!(reader.ends_with_zeros()?, "data follows its end");
    let Some(json) = archive::read_manifest(file)? else {
        return Ok(());
    };
    let recorded: RecordedTotals =
        serde_json::from_slice(&json).context("understand its manifest")?;
    let bytes = file.metadata()?.len();
    if let Some(recorded) = recorded.archive_bytes {
        ensure!(
            recorded == bytes,
            "it has {bytes} bytes, its manifest says {recorded}"
        );
    }
    if let Some(recorded) = recorded.member_count {
        let members = *count - 1;
        ensure!(
            recorded == members,
            "it has {members} members, its manifest says {recorded}"
        );
    }
    Ok(())
}

/// Before an archive gets its name: reads back what was written, as far as
/// configured. Returns the sums to lie beside it; `None` when none were made.
///
/// # Errors
/// When what was written is no good archive.
pub fn read_back(verify: Verify, file: &File, cancel: &AtomicBool) -> Result<Option<Sums>> {
    match verify {
        Verify::None => Ok(None),
        Verify::Structure => structure(file, &mut 0).map(|()| None),
        Verify::Full => {
            structure(file, &mut 0)?;
            match Sums::of(file, cancel) {
                // The archive is whole; whoever asks for an end gets it.
                Err(_) if cancel.load(Ordering::Relaxed) => Ok(None),
                sums => sums.map(Some),
            }
        }
    }
}
