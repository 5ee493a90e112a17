//! Finds the archive that an argument of the command line means: a stack's
//! archive in the store, a file, or standard input.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::load::load_or_default;
use crate::archive::Manifest;
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::restore::Archive;
use crate::restore::pick::check_manifest;
use crate::store::{Store, StoredArchive};

/// Opens the archive that `what` means: `-`, a path, `STACK` or `STACK@TIME`.
///
/// # Errors
/// When there is no such archive, or it cannot be opened.
pub fn open_archive(global: &Global, what: &str) -> Result<Archive> {
    if what == "-" {
        return Archive::stdin();
    }
    if is_path(what) {
        return Archive::open(Path::new(what));
    }
    let plan = load_or_default(global)?;
    Archive::open(&find_in_store(&plan, what)?.path)
}

/// Returns whether an argument names a file: it has a slash, or ends as the
/// name of an archive does. All others, except `-`, name a stack.
pub fn is_path(what: &str) -> bool {
    what.contains('/') || what.ends_with(".tar")
}

/// Returns whether an argument has the form `STACK` or `STACK@TIME`.
pub fn is_stack(what: &str) -> bool {
    what != "-" && !is_path(what)
}

/// Finds the archive that `STACK` or `STACK@TIME` means: the newest good one,
/// or the newest of those whose time begins with these digits, good or not.
///
/// # Errors
/// When the time has other characters, or there is no such archive.
pub fn find_in_store(plan: &Plan, what: &str) -> Result<StoredArchive> {
    let (stack, time) = what.split_once('@').unwrap_or((what, ""));
    let digits: String = time.chars().filter(char::is_ascii_digit).collect();
    let is_separator = |c: char| "-_:T ".contains(c);
    ensure!(
        time.chars().all(|c| c.is_ascii_digit() || is_separator(c))
            && digits.is_empty() == time.is_empty(),
        "{time:?} is not a time: give its first digits, as in {stack}@20261124_03 or \
         {stack}@2026-11-24 (`list {stack}` shows all archives)"
    );
    let store = Store::open(&plan.backup_dir)?;
    let mut archives = store.list(stack)?;
    if archives.is_empty() {
        bail!(
            "there is no archive of a stack {stack} in {}",
            plan.backup_dir.display()
        );
    }
    archives.retain(|archive| {
        let name = archive.name.time.strftime("%Y%m%d%H%M%S").to_string();
        name.starts_with(&digits) && (archive.is_good() || !digits.is_empty())
    });
    archives.pop().with_context(|| match time {
        "" => format!("all archives of {stack} are incomplete or damaged (see `list {stack}`)"),
        _ => {
            format!("there is no archive of {stack} of {time} (`list {stack}` shows all archives)")
        }
    })
}

/// Reads the manifest of an archive; `None` if another program wrote the
/// archive.
///
/// # Errors
/// When the manifest cannot be read, or is not valid.
pub fn read_manifest(archive: &Archive) -> Result<Option<Manifest>> {
    let context = || format!("cannot read the manifest of {}", archive.name());
    let json = archive.manifest().with_context(context)?;
    let Some(json) = json else { return Ok(None) };
    let manifest: Manifest = serde_json::from_slice(&json).with_context(context)?;
    check_manifest(&manifest).with_context(context)?;
    Ok(Some(manifest))
}
