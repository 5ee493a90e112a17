//! Sidecars: files in the store that describe one archive and are removed with
//! it. A sidecar has the archive's name with `.tar` replaced by a suffix.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::archive_name::ArchiveName;
use super::directory::Store;
use super::entries::{read_names, stat};

/// What follows a sidecar's name while it is being written.
const TEMPORARY_SUFFIX: &str = ".new";

/// The kinds of sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// The checksums of the archive's members when it was written.
    Sums,
    /// When the archive was verified and drilled, and the results.
    Checks,
}

impl Sidecar {
    const ALL: [Sidecar; 2] = [Sidecar::Sums, Sidecar::Checks];

    fn suffix(self) -> &'static str {
        match self {
            Sidecar::Sums => ".sums",
            Sidecar::Checks => ".checks.json",
        }
    }

    fn name(self, archive: &ArchiveName) -> OsString {
        let name = archive.to_string();
        let stem = name.strip_suffix(".tar").unwrap_or(&name);
        format!("{stem}{}", self.suffix()).into()
    }

    /// Returns the archive to which a file of this name belongs, if the file is
    /// a sidecar, finished or not.
    fn archive(stack: &str, file_name: &OsStr) -> Option<ArchiveName> {
        let name = Path::new(file_name).to_str()?;
        let name = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name);
        let stem = Sidecar::ALL
            .iter()
            .find_map(|sidecar| name.strip_suffix(sidecar.suffix()))?;
        ArchiveName::parse(stack, OsStr::new(&format!("{stem}.tar")))
    }
}

impl Store {
    /// Creates or replaces a sidecar in one step.
    ///
    /// # Errors
    /// When `content` fails, or the file cannot be written; an older sidecar is
    /// still there then.
    pub fn write_sidecar(
        &self,
        archive: &ArchiveName,
        sidecar: Sidecar,
        content: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let name = sidecar.name(archive);
        let context = || {
            format!(
                "cannot write {}",
                self.sidecar_path(archive, &name).display()
            )
        };
        let dir = self
            .open_stack_dir(&archive.stack)?
            .context("the stack has no directory")
            .with_context(context)?;
        let mut temporary = name.clone();
        temporary.push(TEMPORARY_SUFFIX);
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

    /// Returns the content of a sidecar, or `None` if the archive has none.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read_sidecar(&self, archive: &ArchiveName, sidecar: Sidecar) -> Result<Option<Vec<u8>>> {
        let Some(dir) = self.open_stack_dir(&archive.stack)? else {
            return Ok(None);
        };
        let name = sidecar.name(archive);
        let context = || {
            format!(
                "cannot read {}",
                self.sidecar_path(archive, &name).display()
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

    fn sidecar_path(&self, archive: &ArchiveName, name: &OsStr) -> PathBuf {
        self.path().join(&archive.stack).join(name)
    }
}

/// Removes all sidecars of an archive.
pub(super) fn remove_sidecars(dir: &OwnedFd, archive: &ArchiveName) -> rustix::io::Result<()> {
    for sidecar in Sidecar::ALL {
        match rustix::fs::unlinkat(dir, sidecar.name(archive), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the names of sidecars whose archive is gone, and of those that were
/// never finished.
pub(super) fn orphan_names(dir: &OwnedFd, stack: &str) -> rustix::io::Result<Vec<OsString>> {
    let mut orphans = Vec::new();
    for name in read_names(dir)? {
        let Some(archive) = Sidecar::archive(stack, &name) else {
            continue;
        };
        let is_orphan = stat(dir, OsStr::new(&archive.to_string()))?.is_none();
        let is_unfinished = name.as_bytes().ends_with(TEMPORARY_SUFFIX.as_bytes());
        if (is_orphan || is_unfinished) && stat(dir, &name)?.is_some_and(|stat| stat.is_file) {
            orphans.push(name);
        }
    }
    Ok(orphans)
}
