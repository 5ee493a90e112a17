//! An archive that is being written.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::archive_name::ArchiveName;
use super::entries::{read_names, stat, unlink};

/// What follows an archive's name while the archive is being written.
const PARTIAL_SUFFIX: &str = ".partial";

/// An unfinished archive: `<archive name>.partial`, mode 0600. It is removed
/// when it is dropped without [`finish`](Partial::finish).
#[derive(Debug)]
pub struct Partial {
    /// The stack's directory in the store.
    dir: OwnedFd,
    dir_path: PathBuf,
    name: ArchiveName,
    /// The file's present name. It may differ from `name`, which gets another
    /// suffix if an archive of that name appears.
    partial_name: OsString,
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Partial {
    /// Creates the file. Its name is the first of `name`, `name` with suffix 2,
    /// 3... that no other archive has, finished or not.
    pub(super) fn create(dir: OwnedFd, dir_path: PathBuf, name: ArchiveName) -> Result<Partial> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut name = name;
        loop {
            let partial_name = partial_name(&name);
            let path = dir_path.join(&partial_name);
            let context = || format!("cannot create {}", path.display());
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

    /// Returns the file, open for writing and reading.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the present path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates an unnamed file in the same directory (`O_TMPFILE`, open(2)),
    /// which the kernel removes when it is closed.
    ///
    /// # Errors
    /// When the file system has no unnamed files.
    pub fn scratch(&self) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&self.dir, ".", flags, mode).with_context(|| {
            format!(
                "cannot create an unnamed file in {}",
                self.dir_path.display()
            )
        })?;
        Ok(File::from(fd))
    }

    /// Puts an unnamed file made by [`scratch`](Partial::scratch) in the place
    /// of this one.
    ///
    /// # Errors
    /// When the file cannot be replaced; there may be no file of this name then.
    pub fn replace(&mut self, scratch: File) -> Result<()> {
        let context = || format!("cannot replace {}", self.path.display());
        unlink(&self.dir, &self.partial_name).with_context(context)?;
        let itself = format!("/proc/self/fd/{}", scratch.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, itself, &self.dir, &self.partial_name, flags)
            .with_context(context)?;
        self.file = scratch;
        Ok(())
    }

    /// Returns the path that the archive will have, unless another archive gets
    /// that name first.
    pub fn final_path(&self) -> PathBuf {
        self.dir_path.join(self.name.to_string())
    }

    /// Turns the partial into an archive (I5): fsyncs the file, renames it
    /// without replacing another, and fsyncs the directory. Returns the
    /// archive's path.
    ///
    /// # Errors
    /// When a step fails. If it is the last, the archive is there, but a power
    /// cut may remove it.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.file
            .sync_all()
            .with_context(|| format!("cannot sync {}", self.path.display()))?;
        let path = self.rename()?;
        self.finished = true;
        rustix::fs::fsync(&self.dir)
            .with_context(|| format!("cannot sync the directory {}", self.dir_path.display()))?;
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
                        .with_context(|| format!("cannot rename {from} to {}", path.display()));
                }
            }
        }
    }

    fn rename_to(&self, name: &str) -> rustix::io::Result<()> {
        let (dir, from) = (&self.dir, &self.partial_name);
        match rustix::fs::renameat_with(dir, from, dir, name, RenameFlags::NOREPLACE) {
            // NFS and some FUSE file systems do not know NOREPLACE. They know
            // hard links, and making one replaces nothing either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_to(name),
            result => result,
        }
    }

    pub(super) fn link_to(&self, name: &str) -> rustix::io::Result<()> {
        let (dir, from) = (&self.dir, &self.partial_name);
        match rustix::fs::linkat(dir, from, dir, name, AtFlags::empty()) {
            Ok(()) => rustix::fs::unlinkat(dir, from, AtFlags::empty()),
            // Some have neither, such as VirtualBox's shared folders.
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => self.rename_to_absent(name),
            Err(error) => Err(error),
        }
    }

    /// Looks whether the name is free before it renames. Nobody can take the
    /// name in between, because the lock is held.
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
            tracing::warn!(%path, %error, "cannot remove the unfinished archive");
        }
    }
}

fn partial_name(name: &ArchiveName) -> OsString {
    format!("{name}{PARTIAL_SUFFIX}").into()
}

/// Returns the file names of the unfinished archives of `stack` in `dir`, in no
/// order.
pub(super) fn partial_names(dir: &OwnedFd, stack: &str) -> rustix::io::Result<Vec<OsString>> {
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

fn exists(dir: &OwnedFd, name: &ArchiveName) -> rustix::io::Result<bool> {
    Ok(stat(dir, OsStr::new(&name.to_string()))?.is_some())
}
