//! An archive to be restored, from a file or from standard input.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use crate::archive::{self, Input, Reader, Sums};
use crate::sys::paths::open_regular_linked;
use crate::sys::stdin::InterruptibleStdin;

/// An archive that is open for reading.
pub enum Archive {
    File {
        file: File,
        path: PathBuf,
    },
    /// Can be read only once.
    Stdin {
        /// The bytes that were read to find the manifest.
        head: Vec<u8>,
        manifest: Option<Vec<u8>>,
    },
}

impl Archive {
    /// Opens an archive file.
    ///
    /// # Errors
    /// When it cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> Result<Archive> {
        let file = open_regular_linked(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Archive::File {
            file,
            path: path.to_owned(),
        })
    }

    /// Takes the archive on standard input, and reads its beginning.
    ///
    /// # Errors
    /// When that cannot be read, or is not the beginning of an archive.
    pub fn stdin() -> Result<Archive> {
        let (manifest, head) = archive::read_manifest_of_stream(InterruptibleStdin)
            .context("cannot read the archive on standard input")?;
        Ok(Archive::Stdin { head, manifest })
    }

    /// Path of the archive, or a phrase for standard input, for messages.
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

    /// Reads the sums that lie beside the archive; `None` if there are none.
    pub fn sums(&self) -> Option<Result<Sums>> {
        let Archive::File { file, path } = self else {
            return None;
        };
        let archive_bytes = match file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return Some(Err(error.into())),
        };
        Sums::read_sidecar(path, archive_bytes)
    }

    /// Returns the JSON of the manifest, or `None` for an archive of another
    /// program.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn manifest(&self) -> Result<Option<Vec<u8>>> {
        match self {
            Archive::File { file, .. } => archive::read_manifest(file),
            Archive::Stdin { manifest, .. } => Ok(manifest.clone()),
        }
    }

    /// Returns a reader of the members, from the first one on.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn reader(&self) -> Result<Reader<'_>> {
        Reader::new(match self {
            Archive::File { file, .. } => Input::File(file),
            Archive::Stdin { head, .. } => Input::Stream(Box::new(
                Cursor::new(head.clone()).chain(InterruptibleStdin),
            )),
        })
    }

    /// Reads the rest of the archive, and returns whether no data follows its
    /// end. Everything is read, because a program that writes into a pipe fails
    /// when nobody reads any more.
    pub(super) fn is_at_end(&self, reader: &mut Reader<'_>, cancel: &AtomicBool) -> Result<bool> {
        reader.ends_with_zeros(cancel).with_context(|| self.name())
    }
}
