//! Paths as the kernel resolves them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Resolves every symlink in `path`. Returns the path unchanged if it cannot be
/// resolved, for example because it does not exist on this host.
pub fn without_symlinks(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Opens a regular file for reading. Does not wait for a FIFO or touch a device that was
/// put in its place.
///
/// # Errors
/// When it is anything else than a regular file, a symlink for example, or cannot be
/// opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open(path, OFlags::NOFOLLOW)
}

/// Does the same for a path that an administrator gives, which may be a symlink.
///
/// # Errors
/// As of [`open_regular`], but a symlink to a regular file is none.
pub fn open_regular_linked(path: &Path) -> io::Result<File> {
    open(path, OFlags::empty())
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_a_regular_file_is_opened_and_a_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| dir.path().join(name));
        fs::write(&file, "x").unwrap();
        symlink(&file, &link).unwrap();
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert!(open_regular(&file).is_ok());
        assert!(open_regular_linked(&link).is_ok());
        for other in [&link, &fifo, dir.path(), Path::new("/dev/null")] {
            assert!(open_regular(other).is_err(), "{}", other.display());
            assert_eq!(open_regular_linked(other).is_ok(), *other == link);
        }
    }
}
