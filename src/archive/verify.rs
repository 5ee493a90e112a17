//! Reads archives back and reports what is damaged.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::Advice;
use serde::Serialize;

use crate::archive::manifest::{RecordedTotals, read_manifest};
use crate::archive::soundness::Soundness;
use crate::archive::sums::Sums;
use crate::archive::tar::{Input, Member, Reader};
use crate::archive::write::hashes::RenderedHashes;
use crate::config::Verify;
use crate::sys::progress;

/// How many damaged members are named.
const NAMED_COUNT: usize = 50;

/// The result for one archive.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    pub path: PathBuf,
    pub archive_bytes: u64,
    pub member_count: u64,
    /// Whether every member was compared with its checksum.
    pub compared: bool,
    /// What is wrong with the archive; empty if nothing is.
    pub problems: Vec<String>,
    /// Remarks that are not problems of the archive.
    pub notes: Vec<String>,
    /// Checksums for a new sidecar, if the archive has none and no problem was
    /// found.
    #[serde(skip)]
    pub missing_sums: Option<Sums>,
}

/// Said of an archive of another program that just stops.
pub const LACKS_END: &str =
    "it has no end of its own, as some programs write it: it may have been cut";

/// Reads all of an archive. `sums` is the text of its sidecar.
///
/// # Errors
/// When interrupted, or when the length of the file cannot be read.
pub fn verify(
    path: PathBuf,
    file: &File,
    sums: Option<&[u8]>,
    cancel: &AtomicBool,
) -> Result<Verified> {
    let mut verified = Verified {
        path,
        archive_bytes: file.metadata()?.len(),
        member_count: 0,
        compared: false,
        problems: Vec::new(),
        notes: Vec::new(),
        missing_sums: None,
    };
    let mut computed = Sums::empty(file)?;
    let is_kept = sums.is_none();
    let mut soundness = Soundness::default();
    let structure = check_structure(file, cancel, |member| {
        ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
        soundness.add(member)?;
        verified.member_count += 1;
        if is_kept {
            computed.add(member);
        }
        Ok(())
    });
    let structure = structure.and_then(|lacks_end| {
        soundness.check_links()?;
        Ok(lacks_end)
    });
    ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
    match structure {
        Ok(false) => {}
        Ok(true) => verified.notes.push(LACKS_END.to_owned()),
        Err(error) => verified.problems.push(format!("{error:#}")),
    }
    let parsed = sums.map(|sums| {
        let text = std::str::from_utf8(sums).context("it is damaged")?;
        Sums::parse(text)
    });
    match parsed {
        None => verified
            .notes
            .push("it has no .sums file: only its structure was checked".to_owned()),
        Some(Err(error)) => {
            let note = format!(
                "its .sums file cannot be used ({error:#}): only the structure was checked \
                 (remove the file, and verify creates a new one)"
            );
            verified.notes.push(note);
        }
        Some(Ok(sums)) => compare(&sums, file, &mut verified, cancel)?,
    }
    if !verified.compared {
        // At least the disk must return all data.
        if verified.problems.is_empty() {
            let read = match is_kept {
                true => computed.hash(file, cancel).map(|()| Some(computed)),
                false => Sums::compute(file, cancel).map(|_| None),
            };
            match read {
                Ok(computed) => verified.missing_sums = computed,
                Err(error) => {
                    ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
                    verified.problems.push(format!("{error:#}"));
                }
            }
        }
        if !verified.problems.is_empty() && verified.member_count > 0 {
            verified.notes.push(format!(
                "the first {} members can be unpacked; the last of them may be damaged",
                verified.member_count
            ));
        }
    }
    Ok(verified)
}

/// Compares all members with their checksums.
fn compare(sums: &Sums, file: &File, verified: &mut Verified, cancel: &AtomicBool) -> Result<()> {
    verified.compared = true;
    if sums.archive_bytes != verified.archive_bytes {
        verified.problems.push(format!(
            "it has {} bytes; it had {} when it was written",
            verified.archive_bytes, sums.archive_bytes
        ));
    }
    let mut damaged = sums.find_damage(file, cancel)?;
    if !damaged.is_empty() {
        let good_count = sums.member_count() - damaged.len();
        verified.notes.push(format!(
            "{good_count} of {} members are as they were written",
            sums.member_count()
        ));
    }
    damaged.truncate(NAMED_COUNT);
    verified.problems.extend(damaged);
    Ok(())
}

/// Reads all headers and the end of the archive, and compares its length and the
/// number of its members with the manifest. Calls `each` for each member that was
/// read. Returns whether the archive, of another program, lacks its end.
fn check_structure(
    file: &File,
    cancel: &AtomicBool,
    mut each: impl FnMut(&Member) -> Result<()>,
) -> Result<bool> {
    let mut member_count = 0_u64;
    let mut reader = Reader::new(Input::File(file))?;
    while let Some(member) = reader.next_member()? {
        progress::step();
        member_count += 1;
        each(&member).with_context(|| format!("{} cannot be unpacked", member.name()))?;
    }
    ensure!(
        reader.ends_with_zeros(cancel)?,
        "data follows the end of the archive"
    );
    let Some(json) = read_manifest(file)? else {
        return Ok(reader.lacks_end());
    };
    let recorded: RecordedTotals =
        serde_json::from_slice(&json).context("cannot parse its manifest")?;
    let bytes = file.metadata()?.len();
    if let Some(recorded) = recorded.archive_bytes {
        ensure!(
            recorded == bytes,
            "it has {bytes} bytes; its manifest says {recorded}"
        );
    }
    if let Some(recorded) = recorded.member_count {
        // The manifest does not count itself.
        let members = member_count - 1;
        ensure!(
            recorded == members,
            "it has {members} members; its manifest says {recorded}"
        );
    }
    Ok(false)
}

/// Reads back an archive that was just written, as far as configured; `rendered`
/// are the hashes of what was meant to be written. Returns the checksums for its
/// sidecar; `None` if none were computed.
///
/// # Errors
/// When the archive is damaged, or is not what was rendered.
pub fn read_back(
    verify: Verify,
    file: &File,
    rendered: &RenderedHashes,
    cancel: &AtomicBool,
) -> Result<Option<Sums>> {
    if verify == Verify::None {
        return Ok(None);
    }
    if verify == Verify::Full {
        // Only what is not in the page cache any more comes from the storage.
        file.sync_data()?;
        drop_cache(file);
    }
    let mut sums = Sums::empty(file)?;
    // The end of what was just written is short, and a run that is interrupted now may still
    // have a good archive.
    let never = AtomicBool::new(false);
    check_structure(file, &never, |member| {
        if verify.is_hashed() {
            sums.add(member);
        }
        Ok(())
    })?;
    let hashed = match verify {
        Verify::None | Verify::Structure => return Ok(None),
        Verify::Written => sums.take_rendered(file, rendered, cancel),
        Verify::Full => sums.hash(file, cancel),
    };
    drop_cache(file);
    match hashed {
        // Its structure is good, so a user who interrupts the run need not wait for
        // the rest.
        Err(_) if cancel.load(Ordering::Relaxed) => return Ok(None),
        hashed => hashed?,
    }
    let differing = sums.differing(rendered);
    if let Some(first) = differing.first() {
        let count = differing.len();
        bail!("{first} ({count} of {} members)", sums.member_count());
    }
    Ok(Some(sums))
}

/// Drops the archive from the page cache. Nobody else has read it yet.
fn drop_cache(file: &File) {
    // If the kernel ignores the advice, the archive stays in the cache.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
}
