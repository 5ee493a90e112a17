//! What lies beside an archive and goes with it: its name but for `.tar`, and
//! a suffix.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{read_names, stat};
use super::{ArchiveName, Store};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// What each member was when it was written.
    Sums,
    /// When the archive was verified and drilled, and what came of it.
    Checks,
}

impl Beside {
    const ALL: [Beside; 2] = [Beside::Sums, Beside::Checks];

    fn suffix(self) -> &'static str {
        match self {
            Beside::Sums => ".sums",
            Beside::Checks => ".checks.json",
        }
    }

    fn name(self, archive: &ArchiveName) -> OsString {
        let name = archive.to_string();
        let stem = name.strip_suffix(".tar").unwrap_or(&name);
        format!("{stem}{}", self.suffix()).into()
    }

    /// The archive that a file of this name lies beside.
    fn archive(stack: &str, name: &OsStr) -> Option<ArchiveName> {
        let name = Path::new(name).to_str()?;
        // One that was being written.
        let name = name.strip_suffix(".new").unwrap_or(name);
        let stem = Beside::ALL
            .iter()
            .find_map(|beside| name.strip_suffix(beside.suffix()))?;
        ArchiveName::parse(stack, OsStr::new(&format!("{stem}.tar")))
    }
}

impl Store {
    /// Replaces what lies beside an archive, in one step.
    pub fn write_beside(
        &self,
        archive: &ArchiveName,
        beside: Beside,
        content: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let name = beside.name(archive);
        let context = || {
            format!(
                "write {}",
                self.path.join(&archive.stack).join(&name).display()
            )
        };
        let dir = self
            .open_stack_dir(&archive.stack)?
            .context("no such stack")?;
        let mut temporary = name.clone();
        temporary.push(".new");
        let write = || -> Result<()> {
            let flags = OFlags::WRONLY
                | OFlags::CREATE
                | OFlags::TRUNC
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(
                &dir,
                &temporary,
                flags,
                Mode::RUSR | Mode::WUSR,
            )?);
            let mut out = BufWriter::new(&file);
            content(&mut out)?;
            out.flush()?;
            file.sync_all()?;
            rustix::fs::renameat(&dir, &temporary, &dir, &name)?;
            Ok(rustix::fs::fsync(&dir)?)
        };
        write().with_context(context)
    }

    /// `None` if there is nothing.
    pub fn read_beside(&self, archive: &ArchiveName, beside: Beside) -> Result<Option<Vec<u8>>> {
        let Some(dir) = self.open_stack_dir(&archive.stack)? else {
            return Ok(None);
        };
        let name = beside.name(archive);
        let context = || {
            format!(
                "read {}",
                self.path.join(&archive.stack).join(&name).display()
            )
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&dir, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            fd => fd.with_context(context)?,
        };
        let mut bytes = Vec::new();
        File::from(fd)
            .read_to_end(&mut bytes)
            .with_context(context)?;
        Ok(Some(bytes))
    }
}

/// Removes all that lies beside an archive.
pub(super) fn remove_beside(
    dir: &std::os::fd::OwnedFd,
    archive: &ArchiveName,
) -> rustix::io::Result<()> {
    for beside in Beside::ALL {
        match rustix::fs::unlinkat(dir, beside.name(archive), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Names of files that lie beside no archive any more, or were never finished.
pub(super) fn orphan_names(
    dir: &std::os::fd::OwnedFd,
    stack: &str,
) -> rustix::io::Result<Vec<OsString>> {
    let mut orphans = Vec::new();
    for name in read_names(dir)? {
        let Some(archive) = Beside::archive(stack, &name) else {
            continue;
        };
        let is_alone = stat(dir, OsStr::new(&archive.to_string()))?.is_none();
        let is_unfinished = name.as_bytes().ends_with(b".new");
        if (is_alone || is_unfinished) && stat(dir, &name)?.is_some_and(|stat| stat.is_file) {
            orphans.push(name);
        }
    }
    Ok(orphans)
}
