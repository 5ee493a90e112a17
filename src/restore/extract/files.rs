//! The threads that write regular files, and the batches they are handed.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::content::{copy_from_file, write_stored};
use super::metadata::{self, Privilege, Unrestored};
use super::options::ExtractOptions;
use crate::archive::Member;

/// A batch is handed over when it has this many bytes, or this many files, so
/// that waking a thread is worth it.
const BATCH_BYTES: u64 = 512 << 10;
const BATCH_COUNT: usize = 64;

/// Files for one thread to write.
#[derive(Default)]
pub struct Batch {
    files: Vec<NewFile>,
    bytes: u64,
}

impl Batch {
    pub fn push(&mut self, file: NewFile) {
        self.bytes += file.member.stored_bytes;
        self.files.push(file);
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.files.len() >= BATCH_COUNT
    }
}

/// A regular file to be written.
pub struct NewFile {
    pub parent: Arc<OwnedFd>,
    pub name: Vec<u8>,
    pub member: Member,
    /// `None` if the data is to be copied from the archive's file.
    pub data: Option<Vec<u8>>,
}

/// Writes files. All threads share it.
pub struct FileWriter<'a> {
    archive: Option<&'a File>,
    cancel: &'a AtomicBool,
    pub privilege: Privilege,
    pub unrestored: Unrestored,
    has_failed: AtomicBool,
    first_error: Mutex<Option<anyhow::Error>>,
}

impl<'a> FileWriter<'a> {
    /// `archive` is the file that large data is copied from, if there is one.
    pub fn new(archive: Option<&'a File>, options: &ExtractOptions<'a>) -> FileWriter<'a> {
        FileWriter {
            archive,
            cancel: options.cancel,
            privilege: Privilege::of_this_process(),
            unrestored: Unrestored::new(options.tolerates_refusals),
            has_failed: AtomicBool::new(false),
            first_error: Mutex::new(None),
        }
    }

    /// Whether large data can be copied from the archive's file.
    pub fn has_file(&self) -> bool {
        self.archive.is_some()
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Takes the first error of any thread.
    pub fn take_error(&self) -> Option<anyhow::Error> {
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        first.take()
    }

    fn fail(&self, error: anyhow::Error) {
        self.has_failed.store(true, Ordering::Relaxed);
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
    }

    /// Creates a file, fills it, and sets its metadata.
    pub fn write(&self, new: &NewFile, fill: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&*new.parent, &new.name[..], flags, mode).map_err(duplicate)?;
        let file = File::from(fd);
        fill(&file)?;
        if new.member.extents.is_some() {
            file.set_len(new.member.file_bytes)
                .context("cannot set its size")?;
        }
        metadata::apply(file.as_fd(), &new.member, self.privilege, &self.unrestored)
    }
}

/// Writes batches until no more can come.
pub fn write_batches(writer: &FileWriter<'_>, receiver: &Mutex<Receiver<Batch>>) {
    loop {
        let batch = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(batch) = batch else { return };
        for new in &batch.files {
            if writer.has_failed() {
                break;
            }
            let written = writer.write(new, |file| match (&new.data, writer.archive) {
                (Some(data), _) => write_stored(&new.member, data, file),
                (None, Some(archive)) => copy_from_file(archive, &new.member, file, writer.cancel),
                (None, None) => bail!("its data was not read"),
            });
            if let Err(error) = written {
                writer.fail(error.context(format!("cannot restore {}", new.member.name())));
            }
        }
    }
}

/// Explains `EEXIST`. The destination was empty, so an existing name was created
/// from this archive.
pub fn duplicate(error: Errno) -> anyhow::Error {
    match error {
        Errno::EXIST => anyhow::anyhow!("the archive has it twice"),
        error => error.into(),
    }
}
