//! Copies or shares segments from one file to another.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use crate::archive::write::render::read_at;
use crate::archive::write::segment::Segment;
use crate::archive::write::share::share_blocks;
use crate::archive::write::sink::{AlignedBuffer, Sink};
use crate::sys::progress;

pub(super) const CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Copies segments to their places in one file.
pub(super) struct Copier<'a> {
    pub(super) target: &'a File,
    sink: Sink<'a>,
    buffer: AlignedBuffer,
    cancel: &'a AtomicBool,
}

impl<'a> Copier<'a> {
    pub(super) fn new(target: &'a File, cancel: &'a AtomicBool) -> Copier<'a> {
        Copier {
            target,
            sink: Sink::new(target),
            buffer: AlignedBuffer::new(CHUNK_BYTES as usize),
            cancel,
        }
    }

    pub(super) fn copy(&mut self, from: &File, segment: &Segment) -> Result<()> {
        for start in (0..segment.bytes).step_by(CHUNK_BYTES as usize) {
            let bytes = (segment.bytes - start).min(CHUNK_BYTES) as usize;
            self.copy_chunk((from, segment.old + start), segment.new + start, bytes)?;
        }
        Ok(())
    }

    /// Copies at most [`CHUNK_BYTES`].
    pub(super) fn copy_chunk(
        &mut self,
        (from, offset): (&File, u64),
        to: u64,
        bytes: usize,
    ) -> Result<()> {
        check_interrupt(self.cancel)?;
        let buffer = self.buffer.part(bytes);
        if read_at(from, offset, buffer)? != bytes {
            bail!("the draft is shorter than it was when it was written");
        }
        self.sink.write_at(buffer, to)?;
        Ok(())
    }

    /// Shares the whole blocks of a segment with `from` and copies the rest.
    /// Returns false if the blocks cannot be shared; then nothing is done.
    pub(super) fn share(&mut self, from: &File, segment: &Segment) -> Result<bool> {
        let Some(blocks) = segment.blocks() else {
            return Ok(false);
        };
        let shared = segment.part(blocks.clone());
        if share_blocks(from, shared.old, self.target, shared.new, shared.bytes).is_err() {
            return Ok(false);
        }
        let range = segment.new_range();
        for rest in [range.start..blocks.start, blocks.end..range.end] {
            self.copy(from, &segment.part(rest))?;
        }
        Ok(true)
    }
}

/// # Errors
/// `interrupted` if `cancel` is set.
pub(super) fn check_interrupt(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    progress::step();
    Ok(())
}
