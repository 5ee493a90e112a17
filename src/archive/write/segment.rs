//! Parts that two archives have in common.

use std::ops::Range;

use crate::archive::tar::ALIGNMENT_BYTES;

/// A range of bytes that an older archive and a newer one have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset in the older archive.
    pub(crate) old: u64,
    /// Offset in the newer archive.
    pub(crate) new: u64,
    pub(crate) bytes: u64,
}

impl Segment {
    /// Its place in the newer archive.
    pub(crate) fn new_range(&self) -> Range<u64> {
        self.new..self.new + self.bytes
    }

    pub(crate) fn is_moved(&self) -> bool {
        self.old != self.new
    }

    /// Whether `next` begins where this ends, in both archives.
    pub(crate) fn is_followed_by(&self, next: &Segment) -> bool {
        self.old + self.bytes == next.old && self.new + self.bytes == next.new
    }

    /// The whole file system blocks in it, by their offsets in the newer archive.
    /// `None` if its two places differ by a fraction of a block.
    pub(crate) fn blocks(&self) -> Option<Range<u64>> {
        let is_congruent = self.old.abs_diff(self.new).is_multiple_of(ALIGNMENT_BYTES);
        let first = self.new.next_multiple_of(ALIGNMENT_BYTES);
        let last = (self.new + self.bytes) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
        (is_congruent && first < last).then_some(first..last)
    }

    /// The part at these offsets in the newer archive.
    pub(crate) fn part(&self, new: Range<u64>) -> Segment {
        Segment {
            old: self.old + (new.start - self.new),
            new: new.start,
            bytes: new.end - new.start,
        }
    }
}

/// Appends `next`, or extends the last segment if `next` follows it.
pub(crate) fn append(segments: &mut Vec<Segment>, next: Segment) {
    match segments.last_mut() {
        Some(last) if last.is_followed_by(&next) => last.bytes += next.bytes,
        _ => segments.push(next),
    }
}
