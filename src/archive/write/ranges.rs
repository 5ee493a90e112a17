//! Lists of byte ranges.

use std::ops::Range;

pub(crate) fn total_bytes<'a>(ranges: impl IntoIterator<Item = &'a Range<u64>>) -> u64 {
    let ranges = ranges.into_iter();
    ranges.map(|range| range.end - range.start).sum()
}

/// The parts of `ranges` that lie in none of the `holes`. Both must be ascending,
/// and the result is.
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
