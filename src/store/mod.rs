//! The store: the directory of archives, `<store>/<stack>/<archive>.tar`.
//!
//! A name ending in `.tar` is a finished archive. Everything is done relative
//! to directory handles, and no symlink below the store is followed. The
//! caller holds the lock of the run where something is written or removed.

mod beside;
pub mod checks;
mod dir;
mod name;
mod partial;
pub mod prune;
pub mod retention;
pub mod standing;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::archive;
use crate::outcome::StoreUsage;
pub use beside::Beside;
use dir::{archive_names, open_dir, partial_names, read_names, stat, unlink};
pub use name::ArchiveName;
pub use partial::Partial;

/// What an unfinished archive's name ends in, after the archive's name.
const PARTIAL_SUFFIX: &str = ".partial";

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

/// A finished archive in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredArchive {
    pub name: ArchiveName,
    pub path: PathBuf,
    /// Length of the file.
    pub archive_bytes: u64,
    /// Whether it has a tar archive's end. One that was cut short by a full
    /// disk or a crash (of another program: this one would not have given it
    /// its name) has not.
    pub complete: bool,
    /// `verify` found it to be damaged.
    pub damaged: bool,
}

impl StoredArchive {
    /// One that counts for retention, and is restored when none is named.
    pub fn is_good(&self) -> bool {
        self.complete && !self.damaged
    }
}

impl Store {
    /// Opens an existing store.
    pub fn open(backup_dir: &Path) -> Result<Store> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(backup_dir, flags, Mode::empty())
            .with_context(|| format!("open backup directory {}", backup_dir.display()))?;
        Ok(Store {
            path: backup_dir.to_owned(),
            dir,
        })
    }

    /// Opens a store; creates its directory and missing parents (mode 0700).
    pub fn create(backup_dir: &Path) -> Result<Store> {
        if !backup_dir.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(backup_dir)
                .and_then(|()| sync_parent(backup_dir))
                .with_context(|| format!("create backup directory {}", backup_dir.display()))?;
        }
        Store::open(backup_dir)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// When the directory of a stack is there, and is none that archives may be
    /// put into, such as a symlink.
    pub fn check_stack_dir(&self, stack: &str) -> Result<()> {
        self.open_stack_dir(stack).map(drop)
    }

    /// Begins an archive of `stack` under a temporary name. `now` is local
    /// time; a name that is taken gets a suffix.
    pub fn create_partial(&self, stack: &str, now: jiff::civil::DateTime) -> Result<Partial> {
        let path = self.stack_path(stack)?;
        let dir = self
            .create_stack_dir(stack)
            .with_context(|| format!("create directory {}", path.display()))?;
        Partial::create(dir, path, ArchiveName::new(stack, now))
    }

    /// Removes what killed runs left unfinished, of one stack or of all, and
    /// what lay beside archives that are gone, and
    /// returns the paths removed. The lock must be held: a partial of a run
    /// that is under way looks just the same.
    pub fn remove_partials(&self, stack: Option<&str>) -> Result<Vec<PathBuf>> {
        let stacks = match stack {
            Some(stack) => vec![stack.to_owned()],
            None => self.stacks()?,
        };
        let mut removed = Vec::new();
        for stack in stacks {
            let Some(dir) = self.open_stack_dir(&stack)? else {
                continue;
            };
            let path = self.stack_path(&stack)?;
            let context = || read_dir_context(&path);
            let mut names = partial_names(&dir, &stack).with_context(context)?;
            names.extend(beside::orphan_names(&dir, &stack).with_context(context)?);
            for name in names {
                let path = path.join(&name);
                unlink(&dir, &name).with_context(|| format!("remove {}", path.display()))?;
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// The archives of one stack, oldest first; none if it has no directory.
    /// Only regular files whose names round-trip are archives.
    ///
    /// An archive that cannot be read is an error, not an incomplete archive:
    /// it must not be pruned for a failing disk.
    pub fn list(&self, stack: &str) -> Result<Vec<StoredArchive>> {
        let Some(dir) = self.open_stack_dir(stack)? else {
            return Ok(Vec::new());
        };
        let path = self.stack_path(stack)?;
        let mut archives = Vec::new();
        for name in archive_names(&dir, stack).with_context(|| read_dir_context(&path))? {
            let path = path.join(name.to_string());
            let archive = open_archive(&dir, name, &path)
                .with_context(|| format!("read archive {}", path.display()))?;
            let Some(archive) = archive else { continue };
            // What cannot be read says nothing against the archive.
            let checks = checks::Checks::of(self, &archive.name).unwrap_or_default();
            archives.push(StoredArchive {
                damaged: checks.is_damaged(),
                ..archive
            });
        }
        archives.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(archives)
    }

    /// Names of the directories in the store, sorted. Not every one need be a
    /// stack's; one without archives has an empty list.
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

    /// Removes one archive for good. Returns the length it had.
    pub fn remove(&self, archive: &StoredArchive) -> Result<u64> {
        let file_name = archive.name.to_string();
        let context = || format!("remove archive {}", archive.path.display());
        self.remove_named(&archive.name, OsStr::new(&file_name))
            .with_context(context)
    }

    fn remove_named(&self, name: &ArchiveName, file_name: &OsStr) -> Result<u64> {
        ensure!(
            ArchiveName::parse(&name.stack, file_name).as_ref() == Some(name),
            "not the name of an archive"
        );
        let dir = self.open_stack_dir(&name.stack)?.context("no such stack")?;
        let stat = stat(&dir, file_name)?.context("no such archive")?;
        ensure!(stat.is_file, "not a regular file");
        unlink(&dir, file_name)?;
        beside::remove_beside(&dir, name)?;
        Ok(stat.size_bytes)
    }

    /// All archives in the store, and the file system it is on.
    pub fn usage(&self) -> Result<StoreUsage> {
        let mut usage = StoreUsage {
            archive_count: 0,
            archive_bytes: 0,
            file_system_total_bytes: 0,
            file_system_available_bytes: 0,
        };
        for stack in self.stacks()? {
            let Some(dir) = self.open_stack_dir(&stack)? else {
                continue;
            };
            let context = || read_dir_context(&self.path.join(&stack));
            for name in archive_names(&dir, &stack).with_context(context)? {
                let name = OsString::from(name.to_string());
                if let Some(stat) = stat(&dir, &name).with_context(context)? {
                    usage.archive_count += 1;
                    usage.archive_bytes += stat.size_bytes;
                }
            }
        }
        let statvfs = self.statvfs()?;
        usage.file_system_total_bytes = statvfs.f_blocks.saturating_mul(statvfs.f_frsize);
        usage.file_system_available_bytes = statvfs.f_bavail.saturating_mul(statvfs.f_frsize);
        Ok(usage)
    }

    /// Bytes that can still be written to the store's file system.
    pub fn available_bytes(&self) -> Result<u64> {
        let statvfs = self.statvfs()?;
        Ok(statvfs.f_bavail.saturating_mul(statvfs.f_frsize))
    }

    fn statvfs(&self) -> Result<rustix::fs::StatVfs> {
        rustix::fs::fstatvfs(&self.dir)
            .with_context(|| format!("read free space of {}", self.path.display()))
    }

    fn stack_path(&self, stack: &str) -> Result<PathBuf> {
        if matches!(stack, "" | "." | "..") || stack.contains(['/', '\0']) {
            bail!("not usable as the name of a directory: {stack:?}");
        }
        Ok(self.path.join(stack))
    }

    fn open_stack_dir(&self, stack: &str) -> Result<Option<OwnedFd>> {
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

/// Whether the file ends as a tar archive does: a whole number of 512-byte
/// blocks, the last two of them zero (POSIX pax, "ustar Interchange Format").
/// `None` if it has vanished or is no regular file.
fn open_archive(dir: &OwnedFd, name: ArchiveName, path: &Path) -> Result<Option<StoredArchive>> {
    // NONBLOCK: a FIFO put in its place must not hang the run.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name.to_string(), flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    Ok(Some(StoredArchive {
        name,
        path: path.to_owned(),
        archive_bytes: metadata.len(),
        complete: archive::is_complete(&file)?,
        damaged: false,
    }))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn read_dir_context(path: &Path) -> String {
    format!("read directory {}", path.display())
}
