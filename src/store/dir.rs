//! Directories of the store, by handle. No symlink is followed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::{ArchiveName, PARTIAL_SUFFIX};

/// Archives of `stack` in `dir`, in no order.
pub(super) fn archive_names(dir: &OwnedFd, stack: &str) -> Result<Vec<ArchiveName>> {
    let mut names = Vec::new();
    for file_name in read_names(dir)? {
        if let Some(name) = ArchiveName::parse(stack, &file_name)
            && stat(dir, &file_name)?.is_some_and(|stat| stat.is_file)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// File names of the unfinished archives of `stack` in `dir`, in no order.
pub(super) fn partial_names(dir: &OwnedFd, stack: &str) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for file_name in read_names(dir)? {
        let archive = file_name.as_bytes().strip_suffix(PARTIAL_SUFFIX.as_bytes());
        let archive = archive.and_then(|a| ArchiveName::parse(stack, OsStr::from_bytes(a)));
        if archive.is_some() && stat(dir, &file_name)?.is_some_and(|stat| stat.is_file) {
            names.push(file_name);
        }
    }
    Ok(names)
}

pub(super) struct Stat {
    pub is_file: bool,
    pub is_dir: bool,
    pub size_bytes: u64,
}

/// Of the entry itself, not of what a symlink points to; `None` if there is
/// none.
pub(super) fn stat(dir: &OwnedFd, name: &OsStr) -> Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Stat {
            is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of all entries but `.` and `..`.
pub(super) fn read_names(dir: &OwnedFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

pub(super) fn open_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Removes a name and makes that last.
pub(super) fn unlink(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    rustix::fs::unlinkat(&dir, name.as_ref(), AtFlags::empty())?;
    rustix::fs::fsync(dir)
}
