//! Brings a draft's kept stretches to their places in the archive.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::archive::tar::ALIGNMENT_BYTES;
use crate::archive::write::kept::Kept;
use crate::archive::write::render::read_at;
use crate::archive::write::share::share_blocks;
use crate::archive::write::sink::{Buffer, Sink};

const CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Stretches at least this long are moved by making or taking away room before
/// them, where the file system can: one such call costs as much as copying
/// this.
const INSERT_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// Copies from other files to the places in one.
pub(crate) struct Copier<'a> {
    to: &'a File,
    sink: Sink<'a>,
    buffer: Buffer,
    cancel: &'a AtomicBool,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(to: &'a File, cancel: &'a AtomicBool) -> Copier<'a> {
        Copier {
            to,
            sink: Sink::new(to),
            buffer: Buffer::new(CHUNK_BYTES as usize),
            cancel,
        }
    }

    pub(crate) fn copy(&mut self, from: &File, kept: &Kept) -> Result<()> {
        for start in (0..kept.bytes).step_by(CHUNK_BYTES as usize) {
            let part = (kept.bytes - start).min(CHUNK_BYTES) as usize;
            self.chunk((from, kept.old + start), kept.new + start, part)?;
        }
        Ok(())
    }

    fn chunk(&mut self, (from, offset): (&File, u64), to: u64, bytes: usize) -> Result<()> {
        check(self.cancel)?;
        let buffer = self.buffer.part(bytes);
        if read_at(from, offset, buffer)? != bytes {
            bail!("the draft is shorter than it was");
        }
        self.sink.write_at(buffer, to)?;
        Ok(())
    }
}

/// Shares the whole blocks of a stretch between two files and copies the rest.
/// False if that cannot be done; then nothing was.
pub(crate) fn share(from: &File, to: &mut Copier<'_>, kept: &Kept) -> Result<bool> {
    let Some(blocks) = kept.blocks() else {
        return Ok(false);
    };
    let shared = kept.part(blocks.clone());
    if share_blocks(from, shared.old, to.to, shared.new, shared.bytes).is_err() {
        return Ok(false);
    }
    let end = kept.new + kept.bytes;
    for rest in [kept.new..blocks.start, blocks.end..end] {
        to.copy(from, &kept.part(rest))?;
    }
    Ok(true)
}

/// Moves all stretches to their places within the file. Returns how many bytes
/// were copied for it.
///
/// Long ones are moved together with all that follows by inserting or
/// collapsing a range of blocks (`fallocate(2)`; ext4, XFS), what lies between
/// them by copying.
pub(crate) fn relocate(file: &File, kept: &[Kept], cancel: &AtomicBool) -> Result<u64> {
    let pieces = split(&coalesced(kept));
    let mut rest = &pieces[..];
    let mut can_insert = true;
    let mut copied_bytes = 0;
    let mut copier = Copier::new(file, cancel);
    // How far all that is not yet at its place has been moved by inserting.
    let mut shift: i64 = 0;
    while !rest.is_empty() {
        check(cancel)?;
        let long = rest.iter().position(|piece| can_insert && is_long(piece));
        let (between, after) = rest.split_at(long.unwrap_or(rest.len()));
        let missing = after
            .first()
            .map_or(0, |long| long.new as i64 - (long.old as i64 + shift));
        if let Some(long) = after.first()
            && missing > 0
        {
            // Before it is needed by what is between.
            let place = long.old.wrapping_add_signed(shift);
            if !change_room(file, FallocateFlags::INSERT_RANGE, place, missing)? {
                can_insert = false;
                continue;
            }
        }
        copied_bytes += move_all(&mut copier, between, shift)?;
        rest = after;
        if let Some(long) = after.first() {
            if missing < 0 && !change_room(file, FallocateFlags::COLLAPSE_RANGE, long.new, missing)?
            {
                can_insert = false;
                continue;
            }
            shift += missing;
            rest = &after[1..];
        }
    }
    Ok(copied_bytes)
}

/// Joins what moves by the same distance, with what lies between: nothing there
/// is needed. That may be as long as what precedes it, no longer: it may have
/// to be copied.
fn coalesced(kept: &[Kept]) -> Vec<Kept> {
    let mut all: Vec<Kept> = Vec::with_capacity(kept.len());
    for next in kept {
        match all.last_mut() {
            Some(last)
                if next.new.wrapping_sub(next.old) == last.new.wrapping_sub(last.old)
                    && next.old - (last.old + last.bytes) <= last.bytes =>
            {
                last.bytes = next.old + next.bytes - last.old;
            }
            _ => all.push(*next),
        }
    }
    all
}

/// Takes whole blocks of long stretches apart from what is before and after
/// them, which no file system can move without copying.
fn split(kept: &[Kept]) -> Vec<Kept> {
    let mut pieces = Vec::with_capacity(kept.len());
    for kept in kept {
        let is_long = |blocks: &Range<u64>| blocks.end - blocks.start >= INSERT_FROM_BYTES;
        let Some(blocks) = kept.blocks().filter(is_long) else {
            pieces.push(*kept);
            continue;
        };
        let end = kept.new + kept.bytes;
        let parts = [kept.new..blocks.start, blocks.clone(), blocks.end..end];
        pieces.extend(
            parts
                .map(|part| kept.part(part))
                .iter()
                .filter(|part| part.bytes > 0),
        );
    }
    pieces
}

fn is_long(piece: &Kept) -> bool {
    piece.bytes >= INSERT_FROM_BYTES
        && piece.old.is_multiple_of(ALIGNMENT_BYTES)
        && piece.new.is_multiple_of(ALIGNMENT_BYTES)
}

/// False if the file system cannot.
fn change_room(file: &File, how: FallocateFlags, offset: u64, by: i64) -> Result<bool> {
    match rustix::fs::fallocate(file, how, offset, by.unsigned_abs()) {
        Ok(()) => Ok(true),
        Err(error @ (Errno::NOSPC | Errno::IO | Errno::DQUOT)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Moves pieces, each from `shift` after its old place, by copying. Those that
/// move to the front go first to last, the others last to first: so none is
/// written over before it is read, since their order stays.
fn move_all(copier: &mut Copier<'_>, pieces: &[Kept], shift: i64) -> Result<u64> {
    let file = copier.to;
    let mut copied_bytes = 0;
    let from = |piece: &Kept| piece.old.wrapping_add_signed(shift);
    let to_front = pieces.iter().filter(|piece| from(piece) > piece.new);
    let to_back = pieces.iter().rev().filter(|piece| from(piece) < piece.new);
    for piece in to_front.chain(to_back) {
        let old = from(piece);
        let chunks = piece.bytes.div_ceil(CHUNK_BYTES);
        for number in 0..chunks {
            let number = if old > piece.new {
                number
            } else {
                chunks - 1 - number
            };
            let start = number * CHUNK_BYTES;
            let part = (piece.bytes - start).min(CHUNK_BYTES) as usize;
            copier.chunk((file, old + start), piece.new + start, part)?;
        }
        copied_bytes += piece.bytes;
    }
    Ok(copied_bytes)
}

fn check(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
