//! What of a draft stands in the next archive as it is. Pure.

use std::ops::Range;

use crate::archive::tar::ALIGNMENT_BYTES;
use crate::archive::write::layout::Layout;
use crate::scan::{Inventory, NEVER_EQUAL};

/// Shorter stretches are not worth a call of their own: their members are read
/// again.
const WORTHWHILE_BYTES: u64 = 16 * 1024;

pub(crate) fn total_bytes<'a>(ranges: impl IntoIterator<Item = &'a Range<u64>>) -> u64 {
    let ranges = ranges.into_iter();
    ranges.map(|range| range.end - range.start).sum()
}

/// A stretch of a draft that stands in the next archive, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Where it is in the draft.
    pub(crate) old: u64,
    /// Where it is in the archive.
    pub(crate) new: u64,
    pub(crate) bytes: u64,
}

impl Kept {
    pub(crate) fn is_moved(&self) -> bool {
        self.old != self.new
    }

    /// Whether `next` goes on where it ends, on both sides.
    pub(crate) fn is_followed_by(&self, next: &Kept) -> bool {
        self.old + self.bytes == next.old && self.new + self.bytes == next.new
    }

    /// The whole file system blocks in it, at their new place; `None` if the
    /// old place has them cut otherwise.
    pub(crate) fn blocks(&self) -> Option<Range<u64>> {
        let is_congruent = self.old.abs_diff(self.new).is_multiple_of(ALIGNMENT_BYTES);
        let first = self.new.next_multiple_of(ALIGNMENT_BYTES);
        let last = (self.new + self.bytes) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
        (is_congruent && first < last).then_some(first..last)
    }

    /// The part of it that has this new place.
    pub(crate) fn part(&self, new: Range<u64>) -> Kept {
        Kept {
            old: self.old + (new.start - self.new),
            new: new.start,
            bytes: new.end - new.start,
        }
    }
}

/// Compares two archives by the fingerprints and offsets of their entries.
/// What is kept is in the same order in both.
pub(crate) fn kept(
    (old, old_layout): (&[u128], &Layout),
    (new, new_layout): (&[u128], &Layout),
    inventory: &Inventory,
) -> Vec<Kept> {
    let mut kept: Vec<Kept> = Vec::new();
    for (old, new) in pairs(old, new) {
        let (old_end, new_end) = (old_layout.offsets[old + 1], new_layout.offsets[new + 1]);
        let old_bytes = old_end - old_layout.offsets[old];
        let mut bytes = new_end - new_layout.offsets[new];
        // A header of another length makes room for aligned data that moved by
        // another distance than what precedes it: only the data is the same.
        if old_bytes != bytes {
            let data = new_layout.data(inventory, new);
            bytes = data.end - data.start;
        }
        let (old, new) = (old_end - bytes, new_end - bytes);
        push(&mut kept, Kept { old, new, bytes });
    }
    kept.retain(|kept| kept.bytes >= WORTHWHILE_BYTES);
    kept
}

/// What follows the last one in both archives becomes part of it.
pub(crate) fn push(kept: &mut Vec<Kept>, next: Kept) {
    match kept.last_mut() {
        Some(last) if last.is_followed_by(&next) => last.bytes += next.bytes,
        _ => kept.push(next),
    }
}

/// Indexes of equal fingerprints, ascending on both sides.
fn pairs(old: &[u128], new: &[u128]) -> impl Iterator<Item = (usize, usize)> {
    let mut sorted: Option<Vec<u32>> = None;
    let mut next = 0;
    let pair = move |(index, fingerprint): (usize, &u128)| {
        if *fingerprint == NEVER_EQUAL {
            return None;
        }
        if old.get(next) != Some(fingerprint) {
            let sorted = sorted.get_or_insert_with(|| {
                let mut sorted: Vec<u32> = (0..old.len() as u32).collect();
                sorted.sort_unstable_by_key(|index| old[*index as usize]);
                sorted
            });
            let found = sorted.binary_search_by_key(fingerprint, |index| old[*index as usize]);
            let found = sorted[found.ok()?] as usize;
            if found < next {
                return None;
            }
            next = found;
        }
        next += 1;
        Some((next - 1, index))
    };
    new.iter().enumerate().filter_map(pair)
}

/// What of `ranges` is in none of the `holes`. Both are ascending, and so is
/// the result.
pub(crate) fn subtract(
    ranges: &[Range<u64>],
    holes: impl Iterator<Item = Range<u64>>,
) -> Vec<Range<u64>> {
    let mut rest = Vec::new();
    let mut holes = holes.peekable();
    for range in ranges {
        let mut position = range.start;
        while let Some(hole) = holes.next_if(|hole| hole.start < range.end) {
            if position < hole.start {
                rest.push(position..hole.start);
            }
            position = position.max(hole.end);
        }
        if position < range.end {
            rest.push(position..range.end);
        }
    }
    rest
}
