//! The store's own directory and the directories of its stacks, by handle.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, StatVfs};
use rustix::io::Errno;

use super::archive_name::ArchiveName;
use super::entries::{open_dir, read_names, stat};
use super::partial::Partial;

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

impl Store {
    /// Opens an existing store.
    ///
    /// # Errors
    /// When there is no such directory, or it cannot be opened.
    pub fn open(backup_dir: &Path) -> Result<Store> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(backup_dir, flags, Mode::empty()).with_context(|| {
            format!("cannot open the backup directory {}", backup_dir.display())
        })?;
        Ok(Store {
            path: backup_dir.to_owned(),
            dir,
        })
    }

    /// Opens a store; creates its directory and missing parents (mode 0700).
    ///
    /// # Errors
    /// When the directory cannot be created or opened.
    pub fn create(backup_dir: &Path) -> Result<Store> {
        if !backup_dir.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(backup_dir)
                .and_then(|()| sync_parent(backup_dir))
                .with_context(|| {
                    format!(
                        "cannot create the backup directory {}",
                        backup_dir.display()
                    )
                })?;
        }
        Store::open(backup_dir)
    }

    /// Returns the path by which the store was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that archives of `stack` could be written: its directory is
    /// missing, or can be opened.
    ///
    /// # Errors
    /// When something else has the directory's name, such as a symlink.
    pub fn check_stack_dir(&self, stack: &str) -> Result<()> {
        self.open_stack_dir(stack).map(drop)
    }

    /// Begins an archive of `stack` under a temporary name. `now` is local
    /// time; if an archive of that second exists, the name gets a suffix.
    ///
    /// # Errors
    /// When the stack's directory or the file cannot be created.
    pub fn create_partial(&self, stack: &str, now: jiff::civil::DateTime) -> Result<Partial> {
        let path = self.stack_path(stack)?;
        let dir = self
            .create_stack_dir(stack)
            .with_context(|| format!("cannot create the directory {}", path.display()))?;
        Partial::create(dir, path, ArchiveName::new(stack, now))
    }

    /// Returns the names of the directories in the store, sorted. A directory
    /// need not belong to a stack; the list of its archives is empty then.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn stacks(&self) -> Result<Vec<String>> {
        let context = || read_dir_context(&self.path);
        let mut stacks = Vec::new();
        for name in read_names(&self.dir).with_context(context)? {
            let stat = stat(&self.dir, &name).with_context(context)?;
            if stat.is_some_and(|stat| stat.is_dir) {
                stacks.extend(name.into_string().ok());
            }
        }
        stacks.sort();
        Ok(stacks)
    }

    /// Returns how many bytes can still be written to the store's file system.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn available_bytes(&self) -> Result<u64> {
        let statvfs = self.statvfs()?;
        Ok(statvfs.f_bavail.saturating_mul(statvfs.f_frsize))
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(super) fn statvfs(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(&self.dir)
            .with_context(|| format!("cannot read the free space of {}", self.path.display()))
    }

    pub(super) fn stack_path(&self, stack: &str) -> Result<PathBuf> {
        if matches!(stack, "" | "." | "..") || stack.contains(['/', '\0']) {
            bail!("{stack:?} cannot name a directory in the store");
        }
        Ok(self.path.join(stack))
    }

    /// Returns `None` if the stack has no directory yet.
    pub(super) fn open_stack_dir(&self, stack: &str) -> Result<Option<OwnedFd>> {
        let path = self.stack_path(stack)?;
        match open_dir(&self.dir, stack) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| read_dir_context(&path)),
        }
    }

    fn create_stack_dir(&self, stack: &str) -> rustix::io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.dir, stack, Mode::RWXU) {
            Ok(()) => rustix::fs::fsync(&self.dir)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        open_dir(&self.dir, stack)
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Returns the context of an error while a directory of the store is read.
pub(super) fn read_dir_context(path: &Path) -> String {
    format!("cannot read the directory {}", path.display())
}
