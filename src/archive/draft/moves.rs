//! Moves segments to their places within a file.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::archive::draft::copy::{CHUNK_BYTES, Copier, check_interrupt};
use crate::archive::tar::ALIGNMENT_BYTES;
use crate::archive::write::segment::Segment;

/// Segments of at least this length are moved by inserting or collapsing a range
/// before them, where the file system can. One such call costs as much as
/// copying this.
const INSERT_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// Moves all segments to their places within the file. Returns how many bytes
/// were copied.
///
/// A long segment is moved together with everything behind it by inserting or
/// collapsing a range of blocks (`fallocate(2)`; ext4, XFS). The segments between
/// long ones are copied.
pub(crate) fn move_segments(file: &File, segments: &[Segment], cancel: &AtomicBool) -> Result<u64> {
    let segments = split(&coalesced(segments));
    let mut rest = &segments[..];
    let mut can_insert = true;
    let mut copied_bytes = 0;
    let mut copier = Copier::new(file, cancel);
    // How far insertions and collapses have moved everything that is not at its
    // place yet.
    let mut shift: i64 = 0;
    while !rest.is_empty() {
        check_interrupt(cancel)?;
        let long = rest
            .iter()
            .position(|segment| can_insert && is_long(segment));
        let (between, after) = rest.split_at(long.unwrap_or(rest.len()));
        let missing = after
            .first()
            .map_or(0, |long| long.new as i64 - (long.old as i64 + shift));
        if let Some(long) = after.first()
            && missing > 0
        {
            // Room must be there before the segments between are copied to it.
            let place = long.old.wrapping_add_signed(shift);
            if !change_room(file, FallocateFlags::INSERT_RANGE, place, missing)? {
                can_insert = false;
                continue;
            }
        }
        copied_bytes += copy_segments(&mut copier, between, shift)?;
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

/// Joins segments that move by the same distance. What lies between them is not
/// needed, but may have to be copied with them, so it must not be longer than the
/// segment before it.
fn coalesced(segments: &[Segment]) -> Vec<Segment> {
    let mut all: Vec<Segment> = Vec::with_capacity(segments.len());
    for next in segments {
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

/// Separates the whole blocks of long segments from the bytes before and after
/// them, which no file system can move without copying.
fn split(segments: &[Segment]) -> Vec<Segment> {
    let mut all = Vec::with_capacity(segments.len());
    for segment in segments {
        let is_long = |blocks: &Range<u64>| blocks.end - blocks.start >= INSERT_FROM_BYTES;
        let Some(blocks) = segment.blocks().filter(is_long) else {
            all.push(*segment);
            continue;
        };
        let range = segment.new_range();
        let parts = [
            range.start..blocks.start,
            blocks.clone(),
            blocks.end..range.end,
        ];
        let parts = parts.map(|part| segment.part(part));
        all.extend(parts.iter().filter(|part| part.bytes > 0));
    }
    all
}

fn is_long(segment: &Segment) -> bool {
    segment.bytes >= INSERT_FROM_BYTES
        && segment.old.is_multiple_of(ALIGNMENT_BYTES)
        && segment.new.is_multiple_of(ALIGNMENT_BYTES)
}

/// Inserts or collapses a range. Returns false if the file system cannot.
fn change_room(file: &File, how: FallocateFlags, offset: u64, by: i64) -> Result<bool> {
    match rustix::fs::fallocate(file, how, offset, by.unsigned_abs()) {
        Ok(()) => Ok(true),
        Err(error @ (Errno::NOSPC | Errno::IO | Errno::DQUOT)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Copies segments, each from `shift` behind its old place. Those that move
/// towards the front are copied first to last, and the others last to first.
/// Since their order stays, none is overwritten before it is read.
fn copy_segments(copier: &mut Copier<'_>, segments: &[Segment], shift: i64) -> Result<u64> {
    let file = copier.target;
    let mut copied_bytes = 0;
    let from = |segment: &Segment| segment.old.wrapping_add_signed(shift);
    let to_front = segments
        .iter()
        .filter(|segment| from(segment) > segment.new);
    let to_back = segments.iter().rev();
    let to_back = to_back.filter(|segment| from(segment) < segment.new);
    for segment in to_front.chain(to_back) {
        let old = from(segment);
        let chunk_count = segment.bytes.div_ceil(CHUNK_BYTES);
        for number in 0..chunk_count {
            let number = if old > segment.new {
                number
            } else {
                chunk_count - 1 - number
            };
            let start = number * CHUNK_BYTES;
            let bytes = (segment.bytes - start).min(CHUNK_BYTES) as usize;
            copier.copy_chunk((file, old + start), segment.new + start, bytes)?;
        }
        copied_bytes += segment.bytes;
    }
    Ok(copied_bytes)
}
