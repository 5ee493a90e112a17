//! The archives in the store: listing, removing and counting them, and clearing
//! away what killed runs left.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::archive_name::ArchiveName;
use super::checks::Checks;
use super::directory::{Store, read_dir_context};
use super::entries::{read_names, stat, unlink};
use super::partial::partial_names;
use super::sidecar::{orphan_names, remove_sidecars};
use crate::archive;
use crate::outcome::StoreUsage;
use crate::sys::time::OffsetTime;

/// A finished archive in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredArchive {
    pub name: ArchiveName,
    pub path: PathBuf,
    /// When the backup began: the time in the name, at the offset that the
    /// manifest has. The name alone does not tell the two hours apart that have
    /// the same name when clocks go back.
    pub time: OffsetTime,
    /// The stack in the manifest. `None` if another program made the archive.
    pub made_of: Option<String>,
    /// Length of the file.
    pub archive_bytes: u64,
    /// Whether the file ends as a tar archive does. An archive that another
    /// program wrote may have been cut short by a full disk or a crash; this
    /// program would not have given it its name.
    pub complete: bool,
    /// Whether `verify` found damage.
    pub damaged: bool,
}

impl StoredArchive {
    /// Returns whether the archive counts for retention, and may be restored
    /// when no time is given, unless it is dated in the future.
    pub fn is_good(&self) -> bool {
        self.complete && !self.damaged && self.other_stack().is_none()
    }

    /// Returns the stack that the archive is of by its manifest, if it is not
    /// the stack whose directory it is in.
    pub fn other_stack(&self) -> Option<&str> {
        let made_of = self.made_of.as_deref();
        made_of.filter(|stack| *stack != self.name.stack)
    }

    /// Returns why the archive cannot be the newest good one of its stack, as a
    /// phrase that follows its name; `None` if it can.
    pub fn objection(&self, now: &OffsetTime) -> Option<String> {
        match self.other_stack() {
            Some(other) => Some(format!("is of the stack {other}")),
            None if !self.complete => Some("is incomplete".to_owned()),
            None if self.damaged => Some("is damaged".to_owned()),
            None if self.time > *now => Some(format!("is dated in the future, {}", self.time)),
            None => None,
        }
    }
}

impl Store {
    /// Returns the archives of one stack by time, oldest first; none if the stack has
    /// no directory. Only regular files whose names round-trip are archives.
    ///
    /// # Errors
    /// When an archive cannot be read. It is not listed as incomplete instead,
    /// because a failing disk must not get archives pruned.
    pub fn list(&self, stack: &str) -> Result<Vec<StoredArchive>> {
        let Some(dir) = self.open_stack_dir(stack)? else {
            return Ok(Vec::new());
        };
        let path = self.stack_path(stack)?;
        let mut archives = Vec::new();
        for name in archive_names(&dir, stack).with_context(|| read_dir_context(&path))? {
            let path = path.join(name.to_string());
            let archive = open_archive(&dir, name, &path)
                .with_context(|| format!("cannot read the archive {}", path.display()))?;
            let Some(archive) = archive else { continue };
            // Checks that cannot be read are no evidence against the archive.
            let checks = Checks::of(self, &archive.name).unwrap_or_default();
            archives.push(StoredArchive {
                damaged: checks.is_damaged(),
                ..archive
            });
        }
        archives.sort_by(|a, b| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
        Ok(archives)
    }

    /// Removes one archive and its sidecars for good. Returns the length that
    /// the archive had.
    ///
    /// # Errors
    /// When there is no such archive, or it is not a regular file with the name
    /// of an archive, or it cannot be removed.
    pub fn remove(&self, archive: &StoredArchive) -> Result<u64> {
        let file_name = archive.name.to_string();
        self.remove_named(&archive.name, OsStr::new(&file_name))
            .with_context(|| format!("cannot remove the archive {}", archive.path.display()))
    }

    fn remove_named(&self, name: &ArchiveName, file_name: &OsStr) -> Result<u64> {
        ensure!(
            ArchiveName::parse(&name.stack, file_name).as_ref() == Some(name),
            "its name is not that of an archive"
        );
        let dir = self
            .open_stack_dir(&name.stack)?
            .context("the stack has no directory")?;
        let stat = stat(&dir, file_name)?.context("there is no such archive")?;
        ensure!(stat.is_file, "it is not a regular file");
        unlink(&dir, file_name)?;
        remove_sidecars(&dir, name)?;
        Ok(stat.size_bytes)
    }

    /// Removes the unfinished archives of killed runs and the sidecars of
    /// archives that are gone, of one stack or of all. Returns the paths
    /// removed. The lock must be held, because the partial of a run that is
    /// under way looks just the same.
    ///
    /// # Errors
    /// When a directory cannot be read, or a file cannot be removed.
    pub fn remove_leftovers(&self, stack: Option<&str>) -> Result<Vec<PathBuf>> {
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
            names.extend(orphan_names(&dir, &stack).with_context(context)?);
            for name in names {
                let path = path.join(&name);
                unlink(&dir, &name).with_context(|| format!("cannot remove {}", path.display()))?;
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// Returns how many archives are in the store, their size, and how full its
    /// file system is.
    ///
    /// # Errors
    /// When a directory cannot be read, or the file system does not answer.
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
            let context = || read_dir_context(&self.path().join(&stack));
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
}

/// Returns the archives of `stack` in `dir`, in no order.
fn archive_names(dir: &OwnedFd, stack: &str) -> rustix::io::Result<Vec<ArchiveName>> {
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

/// Returns `None` if the file has vanished or is not a regular file.
fn open_archive(dir: &OwnedFd, name: ArchiveName, path: &Path) -> Result<Option<StoredArchive>> {
    // NONBLOCK: a FIFO in the file's place must not hang the run.
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
    let identity = archive::identify(&file)?;
    Ok(Some(StoredArchive {
        path: path.to_owned(),
        time: begun(&name, identity.captured.as_ref()),
        name,
        made_of: identity.stack,
        archive_bytes: metadata.len(),
        complete: identity.complete,
        damaged: false,
    }))
}

/// Returns when the backup of this name began. `captured` is the time in its
/// manifest, which is later. Without a manifest, the machine's own zone counts.
fn begun(name: &ArchiveName, captured: Option<&OffsetTime>) -> OffsetTime {
    /// No clock change is greater than this.
    const CHANGE_MAX: SignedDuration = SignedDuration::from_hours(3);
    let begun = match captured {
        Some(captured) => OffsetTime::from_civil(name.time, captured.offset()),
        None => OffsetTime::from_local_civil(name.time),
    };
    // Only the year 9999 has times that are too late.
    let begun = begun.unwrap_or_else(|| OffsetTime::local(Timestamp::MAX));
    match captured {
        // The clock was set back while the backup was made.
        Some(captured) if begun > *captured && begun.duration_since(captured) <= CHANGE_MAX => {
            captured.clone()
        }
        _ => begun,
    }
}
