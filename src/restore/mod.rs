//! Puts back what archives hold.

pub mod diff;
mod extract;
pub mod foreign;
pub mod host;
mod metadata;
mod mounts;
pub mod pick;
pub mod stack;
pub mod swap;

use std::fs::{self, DirBuilder, File};
use std::io::{Cursor, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};

use crate::archive::{self, Input, Kind, Reader};
pub use extract::{Destination, Options, Summary, extract, normalise, within};
use pick::Only;

/// An archive to be read.
pub enum Archive {
    File {
        file: File,
        path: PathBuf,
    },
    /// Can be read once.
    Stdin {
        /// What was read of it already.
        head: Vec<u8>,
        manifest: Option<Vec<u8>>,
    },
}

impl Archive {
    pub fn open(path: &Path) -> Result<Archive> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let is_file = file.metadata()?.is_file();
        ensure!(is_file, "{} is no regular file", path.display());
        Ok(Archive::File {
            file,
            path: path.to_owned(),
        })
    }

    /// On standard input, of which the beginning is read.
    pub fn stdin() -> Result<Archive> {
        let (manifest, head) = archive::read_manifest_of_stream(std::io::stdin())
            .context("the archive on standard input")?;
        Ok(Archive::Stdin { head, manifest })
    }

    pub fn name(&self) -> String {
        match self {
            Archive::File { path, .. } => path.display().to_string(),
            Archive::Stdin { .. } => "the archive on standard input".to_owned(),
        }
    }

    pub fn file(&self) -> Option<&File> {
        match self {
            Archive::File { file, .. } => Some(file),
            Archive::Stdin { .. } => None,
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Archive::File { path, .. } => Some(path),
            Archive::Stdin { .. } => None,
        }
    }

    /// Its JSON; `None` in archives of other programs.
    pub fn manifest(&self) -> Result<Option<Vec<u8>>> {
        match self {
            Archive::File { file, .. } => archive::read_manifest(file),
            Archive::Stdin { manifest, .. } => Ok(manifest.clone()),
        }
    }

    pub fn reader(&self) -> Result<Reader<'_>> {
        Reader::new(match self {
            Archive::File { file, .. } => Input::File(file),
            Archive::Stdin { head, .. } => {
                Input::Stream(Box::new(Cursor::new(head.clone()).chain(std::io::stdin())))
            }
        })
    }
}

/// Unpacks what `only` picks into `dir`, which is made (mode 0700), or empty.
pub fn to_directory(
    archive: &Archive,
    dir: &Path,
    only: &Only,
    allow_devices: bool,
    cancel: &AtomicBool,
) -> Result<Summary> {
    let destination = Destination {
        prefix: Vec::new(),
        parent: open_empty(dir)?,
        name: Vec::new(),
    };
    let options = Options {
        is_wanted: &|path| only.picks(path),
        allow_devices,
        takes_refusals: true,
        cancel,
    };
    let mut reader = archive.reader()?;
    let summary = extract(&mut reader, archive.file(), &[destination], &options)
        .with_context(|| archive.name())?;
    only.check_all_found()?;
    if !is_at_the_end(&mut reader, archive)? {
        tracing::warn!(
            "data follows the end of {}; it was not looked at",
            archive.name()
        );
    }
    Ok(summary)
}

/// Whether nothing follows. It is read all the same: who writes to a pipe is
/// not to be told that nobody reads any more.
fn is_at_the_end(reader: &mut Reader<'_>, archive: &Archive) -> Result<bool> {
    reader.ends_with_zeros().with_context(|| archive.name())
}

/// What [`to_directory`] would write: the members' names, one a line.
pub fn listing(archive: &Archive, only: &Only) -> Result<String> {
    let mut reader = archive.reader()?;
    let mut text = String::new();
    while let Some(member) = reader.next_member()? {
        let path = normalise(&member.path).with_context(|| member.name())?;
        if only.picks(&path) {
            let slash = if member.kind == Kind::Directory {
                "/"
            } else {
                ""
            };
            text.push_str(&format!("{}{slash}\n", member.name()));
        }
    }
    only.check_all_found()?;
    Ok(text)
}

fn open_empty(dir: &Path) -> Result<std::os::fd::OwnedFd> {
    let context = || format!("unpack into {}", dir.display());
    if !dir.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(context)?;
    }
    let is_empty = fs::read_dir(dir).with_context(context)?.next().is_none();
    ensure!(
        is_empty,
        "{} is not empty: nothing is overwritten, name a new or an empty directory",
        dir.display()
    );
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).with_context(context)
}
