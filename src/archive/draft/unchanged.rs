//! Finds the members of a draft that are in the next archive unchanged. Pure.

use crate::archive::write::layout::Layout;
use crate::archive::write::segment::{Segment, append};
use crate::scan::{Inventory, NEVER_EQUAL};

/// Shorter segments are not worth a call of their own: their members are read
/// again.
const SEGMENT_BYTES_MIN: u64 = 16 * 1024;

/// Compares two archives by the fingerprints of their entries. The segments are
/// in the same order in both. `inventory` is that of the newer archive.
pub(super) fn unchanged_segments(
    (old, old_layout): (&[u128], &Layout),
    (new, new_layout): (&[u128], &Layout),
    inventory: &Inventory,
) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (old, new) in pairs(old, new) {
        let (old_end, new_end) = (old_layout.offsets[old + 1], new_layout.offsets[new + 1]);
        let old_bytes = old_end - old_layout.offsets[old];
        let mut bytes = new_end - new_layout.offsets[new];
        // The heads differ in length if aligned data moves by another distance
        // than the data before it. Then only the data is unchanged.
        if old_bytes != bytes {
            let data = new_layout.data(inventory, new);
            bytes = data.end - data.start;
        }
        let (old, new) = (old_end - bytes, new_end - bytes);
        append(&mut segments, Segment { old, new, bytes });
    }
    segments.retain(|segment| segment.bytes >= SEGMENT_BYTES_MIN);
    segments
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
