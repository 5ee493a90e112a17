//! Trees behind directory handles.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, makedev,
};
use rustix::io::Errno;

use super::boundary::Boundary;
use crate::sys::format::display_path;

/// Longest relative path that is passed to the kernel in one call, in bytes. The
/// kernel's limit (`PATH_MAX`) is 4096 with the final NUL.
const HOP_BYTES: usize = 4000;

/// A tree to archive. It is opened before the stack is stopped, and read only
/// through this handle. So nothing outside the tree is read, even if a path is
/// renamed or replaced by a symlink later.
#[derive(Debug)]
pub struct Source {
    /// Member path of its root without a trailing slash: `immich`,
    /// `immich.volumes/pgdata`, `immich.binds/srv/media`.
    pub prefix: Vec<u8>,
    /// Its path on the host, for messages.
    pub path: PathBuf,
    root: OwnedFd,
    is_directory: bool,
    /// Device and inode.
    identity: (u64, u64),
    is_mount: bool,
}

impl Source {
    /// Opens the tree at `path`. A symlink *at* that path, or on the way to it, is
    /// followed, because the administrator named it; below it no symlink ever is.
    /// `path` may also be a single file, because a bind mount may be one.
    ///
    /// # Errors
    /// When `path` cannot be opened, or `prefix` is not a relative path.
    pub fn open(prefix: impl Into<Vec<u8>>, path: impl Into<PathBuf>) -> Result<Source> {
        let path = path.into();
        let root = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let root = root.with_context(|| cannot_open(&path))?;
        Source::at(prefix.into(), path, root)
    }

    /// Opens the tree at `path`, as [`open`](Self::open) does, but follows no symlink
    /// that a container may have made.
    ///
    /// # Errors
    /// When there is such a symlink, or one of those of [`open`](Self::open).
    pub fn open_within(
        boundary: &Boundary,
        prefix: impl Into<Vec<u8>>,
        path: impl Into<PathBuf>,
    ) -> Result<Source> {
        let path = path.into();
        let root = boundary.resolve(&path)?.handle;
        let root = root
            .ok_or(Errno::NOENT)
            .with_context(|| cannot_open(&path))?;
        Source::at(prefix.into(), path, root)
    }

    fn at(prefix: Vec<u8>, path: PathBuf, root: OwnedFd) -> Result<Source> {
        ensure!(
            is_plain_relative(&prefix) && prefix.len() <= usize::from(u16::MAX),
            "member path {:?} is not a plain relative path",
            display_path(&prefix)
        );
        let stat = stat_handle(&root).with_context(|| cannot_open(&path))?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let dev = makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Ok(Source {
            prefix,
            path,
            root,
            is_directory: kind == FileType::Directory,
            identity: (dev, stat.stx_ino),
            is_mount: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }

    /// Whether both are the same directory or file.
    pub fn is_same(&self, other: &Source) -> bool {
        self.identity == other.identity
    }

    /// Device and inode of the root.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Whether the tree is the root of a mount. Such a tree cannot be renamed, and
    /// its path leads elsewhere once it is unmounted.
    pub fn is_mount(&self) -> bool {
        self.is_mount
    }

    /// Opens `rel`, a path relative to the root (empty: the root itself). It
    /// follows no symlink and never leaves the tree (`openat2(2)`:
    /// `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), but crosses mount points. Paths
    /// may have any length. `O_CLOEXEC` is added to `flags`.
    ///
    /// # Errors
    /// Those of `openat2(2)`: `ELOOP` for a symlink anywhere in `rel`, `EXDEV` for
    /// `..` out of the tree.
    pub fn open_beneath(&self, rel: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if rel.is_empty() && !self.is_directory {
            // The magic link leads to exactly the inode that was opened.
            let flags = flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC;
            let itself = format!("/proc/self/fd/{}", self.root.as_raw_fd());
            return rustix::fs::open(itself, flags, Mode::empty());
        }
        open_beneath(self.root.as_fd(), rel, flags)
    }

    /// Opens a regular file for reading. It does not block on a FIFO, and leaves
    /// the access time alone where the kernel permits that.
    pub(crate) fn open_file(&self, rel: &[u8]) -> rustix::io::Result<File> {
        read_only(|flags| self.open_beneath(rel, flags))
    }

    /// Opens a regular file for reading while others may write to the tree. It is
    /// inspected before it is opened, because opening a device can have effects.
    ///
    /// # Errors
    /// `ENXIO` if it is not a regular file.
    pub(crate) fn open_regular(&self, rel: &[u8]) -> rustix::io::Result<File> {
        reopen(self.open_beneath(rel, OFlags::PATH | OFlags::NOFOLLOW)?)
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns the host path of `rel`, for messages.
    pub(crate) fn display(&self, rel: &[u8]) -> String {
        let mut path = self.path.as_os_str().as_bytes().to_vec();
        if !rel.is_empty() {
            if path != b"/" {
                path.push(b'/');
            }
            path.extend_from_slice(rel);
        }
        display_path(&path)
    }
}

/// Opens `rel`, of any length, below the directory `root` (empty: `root` itself).
/// See [`Source::open_beneath`].
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    rel: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut rest = if rel.is_empty() { b"." } else { rel };
    let mut hop: Option<OwnedFd> = None;
    loop {
        let at = hop.as_ref().map_or(root, |fd| fd.as_fd());
        if rest.len() <= HOP_BYTES {
            return open_at(at, rest, flags);
        }
        let cut = rest[..HOP_BYTES]
            .iter()
            .rposition(|byte| *byte == b'/')
            .ok_or(Errno::NAMETOOLONG)?;
        let next = open_at(at, &rest[..cut], OFlags::PATH | OFlags::DIRECTORY)?;
        hop = Some(next);
        rest = &rest[cut + 1..];
    }
}

/// Opens `rel` below the directory `at`; see [`Source::open_beneath`].
pub(crate) fn open_at(
    at: BorrowedFd<'_>,
    rel: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(at, rel, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename elsewhere in the system interfered: openat2(2).
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens the regular file `name` in the directory `at`, as
/// [`Source::open_file`] does.
pub(crate) fn open_file_at(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<File> {
    read_only(|flags| open_at(at, name, flags))
}

/// Opens the regular file `name` in the directory `at`, as
/// [`Source::open_regular`] does.
pub(crate) fn open_regular_at(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<File> {
    reopen(open_at(at, name, OFlags::PATH | OFlags::NOFOLLOW)?)
}

/// Opens the file behind a handle made with `O_PATH` for reading.
fn reopen(found: OwnedFd) -> rustix::io::Result<File> {
    let stat = stat_handle(&found)?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
        return Err(Errno::NXIO);
    }
    // The magic link leads to exactly that inode.
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    read_only(|flags| {
        let flags = flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC;
        rustix::fs::open(&itself, flags, Mode::empty())
    })
}

fn read_only(open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match open(flags | OFlags::NOATIME) {
        // Only the owner and CAP_FOWNER may ask for O_NOATIME.
        Err(Errno::PERM) => open(flags),
        result => result,
    };
    Ok(File::from(fd?))
}

/// Calls `statx(2)` on an open handle.
pub(crate) fn stat_handle(fd: impl AsFd) -> rustix::io::Result<Statx> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// Whether the error means that a file which was there a moment ago is gone, or is
/// now something that must not be followed.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::STALE
    )
}

fn cannot_open(path: &Path) -> String {
    format!("cannot open {}", display_path(path.as_os_str().as_bytes()))
}

fn is_plain_relative(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .all(|part| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0))
}
