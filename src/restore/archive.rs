//! An archive to be restored, from a file, as it is or encrypted, or from standard input.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::archive::{self, Input, Reader, Sums};
use crate::sys::encryption::{self, Identities};
use crate::sys::paths::open_regular_linked;
use crate::sys::stdin::InterruptibleStdin;

/// Bytes by which an encrypted archive is told from others.
const SIGNATURE_BYTES: u64 = 64;

/// An archive that is open for reading.
pub enum Archive {
    File {
        file: File,
        path: PathBuf,
    },
    /// Can be read only once.
    Stream {
        /// Names the archive in messages.
        name: String,
        /// The bytes that were read to find the manifest.
        head: Vec<u8>,
        manifest: Option<Vec<u8>>,
        rest: Mutex<Box<dyn Read + Send>>,
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

    /// Opens an archive file that is encrypted for one of `identities`.
    ///
    /// # Errors
    /// When it cannot be opened or decrypted, or is not encrypted. Whoever expects that it
    /// is shall not get what somebody has put in its place.
    pub fn open_encrypted(path: &Path, identities: &Identities) -> Result<Archive> {
        let Archive::File { file, .. } = Archive::open(path)? else {
            unreachable!("a path is opened as a file");
        };
        Archive::decrypted(path.display().to_string(), file, identities)
    }

    /// Takes the archive on standard input, and reads its beginning. With `identities` it
    /// must be encrypted.
    ///
    /// # Errors
    /// When that cannot be read, or is not the beginning of such an archive.
    pub fn stdin(identities: Option<&Identities>) -> Result<Archive> {
        let name = "the archive on standard input".to_owned();
        match identities {
            Some(identities) => Archive::decrypted(name, InterruptibleStdin, identities),
            None => Archive::stream(name, Box::new(InterruptibleStdin)),
        }
    }

    fn decrypted(
        name: String,
        mut input: impl Read + Send + 'static,
        identities: &Identities,
    ) -> Result<Archive> {
        let context = || format!("cannot read {name}");
        let mut signature = Vec::new();
        let mut beginning = input.by_ref().take(SIGNATURE_BYTES);
        beginning
            .read_to_end(&mut signature)
            .with_context(context)?;
        ensure!(
            encryption::is_encrypted(&signature),
            "{name} is not encrypted, but --identity is given: if that is right, leave it out"
        );
        let input = Cursor::new(signature).chain(input);
        let decrypted = identities.decrypt(input).with_context(context)?;
        Archive::stream(name, decrypted)
    }

    fn stream(name: String, mut rest: Box<dyn Read + Send>) -> Result<Archive> {
        let (manifest, head) = archive::read_manifest_of_stream(&mut rest)
            .with_context(|| format!("cannot read {name}"))?;
        ensure!(
            !head.is_empty(),
            "{name} is empty: look why the program that should write it has failed"
        );
        Ok(Archive::Stream {
            name,
            head,
            manifest,
            rest: Mutex::new(rest),
        })
    }

    /// Path of the archive, or a phrase for standard input, for messages.
    pub fn name(&self) -> String {
        match self {
            Archive::File { path, .. } => path.display().to_string(),
            Archive::Stream { name, .. } => name.clone(),
        }
    }

    pub fn file(&self) -> Option<&File> {
        match self {
            Archive::File { file, .. } => Some(file),
            Archive::Stream { .. } => None,
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Archive::File { path, .. } => Some(path),
            Archive::Stream { .. } => None,
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
            Archive::Stream { manifest, .. } => Ok(manifest.clone()),
        }
    }

    /// Returns a reader of the members, from the first one on.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn reader(&self) -> Result<Reader<'_>> {
        Reader::new(match self {
            Archive::File { file, .. } => Input::File(file),
            Archive::Stream { head, rest, .. } => {
                Input::Stream(Box::new(Cursor::new(head.clone()).chain(Rest(rest))))
            }
        })
    }

    /// Compares the archive with the sums beside it, and returns a message for each
    /// member that is damaged. Without sums that can be used there is none.
    ///
    /// # Errors
    /// When interrupted, or the archive cannot be read.
    pub fn find_damage(&self, cancel: &AtomicBool) -> Result<Vec<String>> {
        let (Some(sums), Some(file)) = (self.sums(), self.file()) else {
            return Ok(Vec::new());
        };
        match sums {
            Ok(sums) => sums.find_damage(file, cancel),
            Err(error) => {
                tracing::warn!("cannot use the sums file beside the archive: {error:#}");
                Ok(Vec::new())
            }
        }
    }

    /// Reads the rest of the archive, and returns whether no data follows its
    /// end. Everything is read, because a program that writes into a pipe fails
    /// when nobody reads any more.
    pub(super) fn is_at_end(&self, reader: &mut Reader<'_>, cancel: &AtomicBool) -> Result<bool> {
        reader.ends_with_zeros(cancel).with_context(|| self.name())
    }
}

/// What of a stream was not read yet.
struct Rest<'a>(&'a Mutex<Box<dyn Read + Send>>);

impl Read for Rest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rest.read(buffer)
    }
}
