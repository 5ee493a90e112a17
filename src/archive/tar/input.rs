//! The bytes of an archive, read in order through a buffer.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// Where an archive is read from.
pub enum Input<'a> {
    /// A regular file. Its position is not moved, and skipped data is not read.
    File(&'a File),
    /// Anything else, such as a pipe. Skipped data is read and dropped.
    Stream(Box<dyn Read + Send + 'a>),
}

pub(super) struct BufferedInput<'a> {
    input: Input<'a>,
    buffer: Vec<u8>,
    /// The part of the buffer that has not been handed out yet.
    unread: Range<usize>,
    /// Offset of the next byte to hand out.
    position: u64,
    /// `None` for a stream.
    length: Option<u64>,
}

impl<'a> BufferedInput<'a> {
    /// # Errors
    /// When the length of a file cannot be read.
    pub(super) fn new(input: Input<'a>, buffer_bytes: usize) -> Result<BufferedInput<'a>> {
        let length = match &input {
            Input::File(file) => Some(file.metadata()?.len()),
            Input::Stream(_) => None,
        };
        Ok(BufferedInput {
            input,
            buffer: vec![0; buffer_bytes],
            unread: 0..0,
            position: 0,
            length,
        })
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether `offset` lies beyond the end of a file. The end of a stream is
    /// not known in advance.
    pub(super) fn is_beyond_end(&self, offset: u64) -> bool {
        self.length.is_some_and(|length| offset > length)
    }

    /// Whether no byte is left.
    pub(super) fn is_at_end(&mut self) -> Result<bool> {
        Ok(self.fill()? == 0)
    }

    /// Skips to `position`, which must not lie before the present one.
    pub(super) fn skip_to(&mut self, position: u64) -> Result<()> {
        let mut left = position - self.position;
        let buffered = left.min(self.unread.len() as u64);
        self.consume(buffered as usize);
        left -= buffered;
        if left > 0 && matches!(self.input, Input::File(_)) {
            self.position += left;
            return Ok(());
        }
        while left > 0 {
            let got = self
                .fill()?
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            ensure!(got > 0, "the archive ends unexpectedly");
            self.consume(got);
            left -= got as u64;
        }
        Ok(())
    }

    /// Fills all of `target`.
    pub(super) fn read_exact(&mut self, target: &mut [u8]) -> Result<()> {
        let mut got = 0;
        while got < target.len() {
            let more = self.read(&mut target[got..])?;
            ensure!(more > 0, "the archive ends unexpectedly");
            got += more;
        }
        Ok(())
    }

    /// Reads at least one byte into `target`; returns 0 at the end of the input.
    pub(super) fn read(&mut self, target: &mut [u8]) -> Result<usize> {
        if self.unread.is_empty() && target.len() >= self.buffer.len() {
            let got = self.read_unbuffered(target)?;
            self.position += got as u64;
            return Ok(got);
        }
        let got = self.fill()?.min(target.len());
        target[..got].copy_from_slice(&self.buffer[self.unread.start..][..got]);
        self.consume(got);
        Ok(got)
    }

    fn consume(&mut self, bytes: usize) {
        self.unread.start += bytes;
        self.position += bytes as u64;
    }

    /// Fills the buffer if it is empty. Returns how many bytes it holds: 0 at
    /// the end of the input.
    fn fill(&mut self) -> Result<usize> {
        if self.unread.is_empty() {
            let mut buffer = std::mem::take(&mut self.buffer);
            let got = self.read_unbuffered(&mut buffer);
            self.buffer = buffer;
            self.unread = 0..got?;
        }
        Ok(self.unread.len())
    }

    fn read_unbuffered(&mut self, target: &mut [u8]) -> Result<usize> {
        loop {
            let got = match &mut self.input {
                Input::File(file) => file.read_at(target, self.position),
                Input::Stream(stream) => stream.read(target),
            };
            match got {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => return got.context("cannot read the archive"),
            }
        }
    }
}
