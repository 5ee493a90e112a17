//! `verify`: reads archives back, and notes the result in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::find_archive::{StackAt, is_path};
use super::load::load;
use super::look::NEVER;
use super::output::{print, print_json_field};
use crate::archive::Sums;
use crate::archive::verify::{Verified, verify as verify_file};
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::metrics;
use crate::outcome::ExitStatus;
use crate::store::checks::{Check, Checks};
use crate::store::verify_results::{LastVerify, record_verifies};
use crate::store::{Sidecar, Store, StoredArchive};
use crate::sys::format::human_bytes;
use crate::sys::lock::{Lock, Operation};
use crate::sys::paths::open_regular_linked;
use crate::sys::time::OffsetTime;

/// An archive to be verified.
struct ArchiveFile {
    path: PathBuf,
    /// `None` if the file is not in the store.
    stored: Option<StoredArchive>,
}

pub fn verify(global: &Global, what: &[String]) -> Result<ExitStatus> {
    let files_only = !what.is_empty() && what.iter().all(|name| is_path(name));
    // Files can be verified without a configuration.
    let plan = match load(global) {
        Err(_) if files_only => None,
        plan => Some(plan?),
    };
    let (store, _lock) = match &plan {
        Some(plan) => {
            let lock = Lock::take(&plan.state_dir, Operation::Verify)?;
            (Store::open(&plan.backup_dir).ok(), Some(lock))
        }
        None => (None, None),
    };
    let mut results = Vec::new();
    let mut stacks = BTreeSet::new();
    for file in find_files(plan.as_ref(), store.as_ref(), what)? {
        let verified = verify_one(store.as_ref(), &file)?;
        if !global.json {
            print(&text(&verified))?;
        }
        results.push(verified);
        stacks.extend(file.stored.map(|stored| stored.name.stack));
    }
    if let Some((plan, store)) = plan.as_ref().zip(store.as_ref()) {
        record(plan, store, stacks)?;
    }
    if global.json {
        print_json_field("archives", &results)?;
    }
    Ok(
        match results.iter().all(|verified| verified.problems.is_empty()) {
            true => ExitStatus::Ok,
            false => ExitStatus::Incomplete,
        },
    )
}

/// Remembers that archives of these stacks were verified, for those who ask later.
fn record(plan: &Plan, store: &Store, stacks: BTreeSet<String>) -> Result<()> {
    let mut verifies = BTreeMap::new();
    for stack in stacks {
        let archives = store.list(&stack)?;
        let last = LastVerify {
            time: OffsetTime::now(),
            damaged_count: archives.iter().filter(|archive| archive.damaged).count() as u64,
        };
        verifies.insert(stack, last);
    }
    record_verifies(&plan.state_dir, verifies)?;
    metrics::update(plan)
}

fn find_files(
    plan: Option<&Plan>,
    store: Option<&Store>,
    what: &[String],
) -> Result<Vec<ArchiveFile>> {
    let open_store = || store.context("cannot open the backup directory: does it exist?");
    let archives_of = |stack: &str| open_store()?.list(stack);
    let mut files = Vec::new();
    let names = match what {
        [] => open_store()?.stacks()?,
        names => names.to_vec(),
    };
    for name in &names {
        if !is_path(name) {
            let plan = plan.context("stacks need a configuration")?;
            let wanted = StackAt::parse(name)?;
            let archives = wanted.archives(plan, open_store()?)?;
            if archives.is_empty() && !what.is_empty() {
                bail!("there is no archive of a stack {}", wanted.stack);
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

fn verify_one(store: Option<&Store>, archive: &ArchiveFile) -> Result<Verified> {
    let path = archive.path.clone();
    let context = || format!("cannot verify {}", path.display());
    let file = open_regular_linked(&path).with_context(context)?;
    let stored = store.zip(archive.stored.as_ref());
    let sums = match stored {
        Some((store, archive)) => store.read_sidecar(&archive.name, Sidecar::Sums)?,
        None => sums_beside(&path, &file)?,
    };
    let mut verified =
        verify_file(path.clone(), &file, sums.as_deref(), &NEVER).with_context(context)?;
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

/// Reads the sums beside an archive that is not in the store; `None` if there are none. Those
/// that cannot be read are empty, which no sums are.
fn sums_beside(path: &Path, file: &File) -> Result<Option<Vec<u8>>> {
    let read = Sums::read_text(path, file.metadata()?.len());
    let text = read.map(|text| {
        text.unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%path, "cannot read the sums beside the archive: {error}");
            String::new()
        })
    });
    Ok(text.map(String::into_bytes))
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
