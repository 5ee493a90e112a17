//! Unpacks an archive, or a part of it, into a directory.

use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};

use super::archive::Archive;
use super::extract::{Destination, ExtractOptions, ExtractSummary, extract};
use super::selection::Selection;
use crate::archive::Kind;
use crate::archive::member_path::normalise;
use crate::archive::verify::LACKS_END;

/// Unpacks the selected members into `dir`, which must be empty. A directory
/// that does not exist is created with mode 0700.
///
/// # Errors
/// When a member cannot be restored, or a selected name is not in the archive.
pub fn to_directory(
    archive: &Archive,
    dir: &Path,
    selection: &Selection,
    allow_devices: bool,
    cancel: &AtomicBool,
) -> Result<ExtractSummary> {
    let destination = Destination {
        prefix: Vec::new(),
        parent: open_empty(dir)?,
        name: Vec::new(),
    };
    let options = ExtractOptions {
        is_wanted: &|path| selection.includes(path),
        allow_devices,
        tolerates_refusals: true,
        cancel,
    };
    let mut reader = archive.reader()?;
    let summary =
        extract(&mut reader, archive.file(), &[destination], &options).with_context(|| {
            let unpacked = "what comes before the error is unpacked";
            format!("{} ({unpacked} in {})", archive.name(), dir.display())
        })?;
    selection.check_all_found()?;
    if !archive.is_at_end(&mut reader, cancel)? {
        tracing::warn!("data follows the end of {}; it is ignored", archive.name());
    }
    if reader.lacks_end() {
        tracing::warn!("{}: {LACKS_END}", archive.name());
    }
    Ok(summary)
}

/// Returns the names of the members that [`to_directory`] would write, one a
/// line.
///
/// # Errors
/// When the archive cannot be read, or a selected name is not in it.
pub fn listing(archive: &Archive, selection: &Selection) -> Result<Vec<String>> {
    let mut reader = archive.reader()?;
    let mut members = Vec::new();
    while let Some(member) = reader.next_member()? {
        let path = normalise(&member.path).with_context(|| member.name())?;
        if selection.includes(&path) {
            let slash = if member.kind == Kind::Directory {
                "/"
            } else {
                ""
            };
            members.push(format!("{}{slash}", member.name()));
        }
    }
    selection.check_all_found()?;
    Ok(members)
}

fn open_empty(dir: &Path) -> Result<OwnedFd> {
    let context = || format!("cannot unpack into {}", dir.display());
    if !dir.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(context)?;
    }
    let is_empty = fs::read_dir(dir).with_context(context)?.next().is_none();
    ensure!(
        is_empty,
        "{} is not empty: nothing is overwritten, name a new or an empty directory",
        dir.display()
    );
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).with_context(context)
}
