//! Entries of directories in the store, reached through a directory handle. No
//! symlink is followed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

pub(super) struct EntryStat {
    pub is_file: bool,
    pub is_dir: bool,
    pub size_bytes: u64,
}

/// Returns what the entry itself is, not what a symlink points to; `None` if
/// there is no such entry.
pub(super) fn stat(dir: &OwnedFd, name: &OsStr) -> Result<Option<EntryStat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(EntryStat {
            is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the names of all entries except `.` and `..`.
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

/// Removes a file and fsyncs the directory, so that a power cut does not bring
/// the file back.
pub(super) fn unlink(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    rustix::fs::unlinkat(&dir, name.as_ref(), AtFlags::empty())?;
    rustix::fs::fsync(dir)
}
