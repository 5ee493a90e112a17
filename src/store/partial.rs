//! An archive being written.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::dir::{stat, unlink};
use super::{ArchiveName, PARTIAL_SUFFIX};

/// An unfinished archive: `<archive name>.partial`, mode 0600. Dropped without
/// [`finish`](Partial::finish), it is removed.
#[derive(Debug)]
pub struct Partial {
    /// The stack's directory in the store.
    dir: OwnedFd,
    dir_path: PathBuf,
    name: ArchiveName,
    /// Its own name; `name` may move on to another suffix before the end.
    partial_name: OsString,
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Partial {
    /// Creates the file under the first of `name`, `name` with suffix 2, 3...
    /// that neither a finished nor an unfinished archive has.
    pub(super) fn create(dir: OwnedFd, dir_path: PathBuf, name: ArchiveName) -> Result<Partial> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut name = name;
        loop {
            let partial_name = partial_name(&name);
            let path = dir_path.join(&partial_name);
            let context = || format!("create {}", path.display());
            let mode = Mode::RUSR | Mode::WUSR;
            if !exists(&dir, &name).with_context(context)? {
                match rustix::fs::openat(&dir, &partial_name, flags, mode) {
                    Ok(fd) => {
                        return Ok(Partial {
                            dir,
                            dir_path,
                            name,
                            partial_name,
                            path,
                            file: File::from(fd),
                            finished: false,
                        });
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error).with_context(context),
                }
            }
            name = name.next();
        }
    }

    /// Open for writing and for reading back.
    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A second file beside it, without a name: whatever happens, it goes when
    /// it is closed.
    ///
    /// Fails where the file system has no such files (`O_TMPFILE` of
    /// `open(2)`).
    pub fn scratch(&self) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&self.dir, ".", flags, mode).with_context(|| {
            format!(
                "create a file without a name in {}",
                self.dir_path.display()
            )
        })?;
        Ok(File::from(fd))
    }

    /// Puts such a file in the place of this one.
    pub fn replace(&mut self, scratch: File) -> Result<()> {
        let context = || format!("put a new file in the place of {}", self.path.display());
        unlink(&self.dir, &self.partial_name).with_context(context)?;
        let itself = format!("/proc/self/fd/{}", scratch.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, itself, &self.dir, &self.partial_name, flags)
            .with_context(context)?;
        self.file = scratch;
        Ok(())
    }

    /// The name it is going to have, unless that is taken meanwhile.
    pub fn final_path(&self) -> PathBuf {
        self.dir_path.join(self.name.to_string())
    }

    /// Makes it an archive: the file is synced, renamed without replacing
    /// anything, and the directory synced. Returns the archive's path.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.file
            .sync_all()
            .with_context(|| format!("sync {}", self.path.display()))?;
        let path = self.rename()?;
        self.finished = true;
        rustix::fs::fsync(&self.dir)
            .with_context(|| format!("sync directory {}", self.dir_path.display()))?;
        Ok(path)
    }

    fn rename(&mut self) -> Result<PathBuf> {
        loop {
            let path = self.final_path();
            match self.rename_to(&self.name.to_string()) {
                Ok(()) => return Ok(path),
                Err(Errno::EXIST) => self.name = self.name.clone().next(),
                Err(error) => {
                    let from = self.path.display();
                    return Err(error)
                        .with_context(|| format!("rename {from} to {}", path.display()));
                }
            }
        }
    }

    fn rename_to(&self, name: &str) -> rustix::io::Result<()> {
        let (dir, from) = (&self.dir, &self.partial_name);
        match rustix::fs::renameat_with(dir, from, dir, name, RenameFlags::NOREPLACE) {
            // NFS and some FUSE file systems have no such rename, but they
            // have links, and those replace nothing either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_to(name),
            result => result,
        }
    }

    pub(super) fn link_to(&self, name: &str) -> rustix::io::Result<()> {
        let (dir, from) = (&self.dir, &self.partial_name);
        match rustix::fs::linkat(dir, from, dir, name, AtFlags::empty()) {
            Ok(()) => rustix::fs::unlinkat(dir, from, AtFlags::empty()),
            // Others have neither, such as shared folders of a VirtualBox.
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => self.rename_to_absent(name),
            Err(error) => Err(error),
        }
    }

    /// Under the run's lock nobody else gives names here.
    pub(super) fn rename_to_absent(&self, name: &str) -> rustix::io::Result<()> {
        let (dir, from) = (&self.dir, &self.partial_name);
        match stat(dir, OsStr::new(name))? {
            Some(_) => Err(Errno::EXIST),
            None => rustix::fs::renameat(dir, from, dir, name),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(error) = unlink(&self.dir, &self.partial_name) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remove unfinished archive");
        }
    }
}

fn partial_name(name: &ArchiveName) -> OsString {
    format!("{name}{PARTIAL_SUFFIX}").into()
}

fn exists(dir: &OwnedFd, name: &ArchiveName) -> rustix::io::Result<bool> {
    Ok(stat(dir, OsStr::new(&name.to_string()))?.is_some())
}
