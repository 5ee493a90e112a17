//! `verify`: reads archives back, and notes the result in the store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::find_archive::is_path;
use super::load::load;
use super::output::{print, print_json};
use crate::archive::verify::{Verified, verify as verify_file};
use crate::cli::Global;
use crate::outcome::ExitStatus;
use crate::store::checks::{Check, Checks};
use crate::store::{Sidecar, Store, StoredArchive};
use crate::sys::format::human_bytes;
use crate::sys::lock::{Lock, Operation};
use crate::sys::signals::Signals;

/// An archive to be verified.
struct ArchiveFile {
    path: PathBuf,
    /// `None` if the file is not in the store.
    stored: Option<StoredArchive>,
}

pub fn verify(global: &Global, what: &[String]) -> Result<ExitStatus> {
    let files_only = !what.is_empty() && what.iter().all(|name| is_path(name));
    let (store, _lock) = match load(global) {
        Ok(plan) => {
            let lock = Lock::take(&plan.state_dir, Operation::Verify)?;
            (Store::open(&plan.backup_dir).ok(), Some(lock))
        }
        // Files can be verified without a configuration.
        Err(_) if files_only => (None, None),
        Err(error) => return Err(error),
    };
    let signals = Signals::install()?;
    let mut results = Vec::new();
    for file in find_files(store.as_ref(), what)? {
        signals.check()?;
        let verified = verify_one(store.as_ref(), &file, &signals)?;
        if !global.json {
            print(&text(&verified))?;
        }
        results.push(verified);
    }
    if global.json {
        print_json(&results)?;
    }
    Ok(
        match results.iter().all(|verified| verified.problems.is_empty()) {
            true => ExitStatus::Ok,
            false => ExitStatus::Incomplete,
        },
    )
}

fn find_files(store: Option<&Store>, what: &[String]) -> Result<Vec<ArchiveFile>> {
    let open_store = || store.context("cannot open the backup directory: does it exist?");
    let archives_of = |stack: &str| open_store()?.list(stack);
    let mut files = Vec::new();
    let names = match what {
        [] => open_store()?.stacks()?,
        names => names.to_vec(),
    };
    for name in &names {
        if !is_path(name) {
            let archives = archives_of(name)?;
            if archives.is_empty() && !what.is_empty() {
                bail!("there is no archive of a stack {name}");
            }
            files.extend(archives.into_iter().map(|archive| ArchiveFile {
                path: archive.path.clone(),
                stored: Some(archive),
            }));
            continue;
        }
        let path = fs::canonicalize(name).with_context(|| format!("cannot find {name}"))?;
        let dir = path.parent().and_then(Path::file_name).unwrap_or_default();
        // The file is in the store if an archive of the stack that its directory
        // names is the same file.
        let archives = dir
            .to_str()
            .and_then(|stack| archives_of(stack).ok())
            .unwrap_or_default();
        let stored = archives
            .into_iter()
            .find(|archive| fs::canonicalize(&archive.path).is_ok_and(|p| p == path));
        files.push(ArchiveFile { path, stored });
    }
    Ok(files)
}

fn verify_one(store: Option<&Store>, archive: &ArchiveFile, signals: &Signals) -> Result<Verified> {
    let path = archive.path.clone();
    let context = || format!("cannot verify {}", path.display());
    let file = File::open(&path).with_context(context)?;
    let stored = store.zip(archive.stored.as_ref());
    let sums = match stored {
        Some((store, archive)) => store.read_sidecar(&archive.name, Sidecar::Sums)?,
        None => fs::read(path.with_extension("sums")).ok(),
    };
    let mut verified =
        verify_file(path.clone(), &file, sums.as_deref(), signals.flag()).with_context(context)?;
    if let Some((store, archive)) = stored {
        if let Some(sums) = &verified.missing_sums {
            store.write_sidecar(&archive.name, Sidecar::Sums, |out| sums.write(out))?;
            verified.notes.push(
                "the sums were created now: from now on, verify finds damaged data and names its \
                 file"
                    .to_owned(),
            );
        }
        let mut checks = Checks::of(store, &archive.name).unwrap_or_default();
        checks.verified = Some(Check::now(&verified.problems));
        checks.write(store, &archive.name)?;
    }
    Ok(verified)
}

fn text(verified: &Verified) -> String {
    let word = if verified.problems.is_empty() {
        "ok     "
    } else {
        "DAMAGED"
    };
    let mut text = format!(
        "{word} {} ({}, {} members)\n",
        verified.path.display(),
        human_bytes(verified.archive_bytes),
        verified.member_count
    );
    for line in verified.problems.iter().chain(&verified.notes) {
        text.push_str(&format!("        {line}\n"));
    }
    text
}
