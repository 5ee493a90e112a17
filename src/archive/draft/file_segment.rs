//! Which file holds which byte range of a draft that is not assembled yet. Pure.

use std::ops::Range;

use crate::archive::write::segment::Segment;

/// A segment of an archive, and the file that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSegment {
    /// Number of the file.
    pub(super) file: usize,
    /// From its offset in the file to its offset in the archive.
    pub(super) segment: Segment,
}

impl FileSegment {
    /// A range that is in the file at the same offset as in the archive.
    pub(super) fn in_place(file: usize, range: &Range<u64>) -> FileSegment {
        let segment = Segment {
            old: range.start,
            new: range.start,
            bytes: range.end - range.start,
        };
        FileSegment { file, segment }
    }
}

/// Maps each segment, from the draft to an archive, to the files that hold it.
/// `draft` are all parts of the draft, ascending.
pub(super) fn locate(draft: &[FileSegment], segments: &[Segment]) -> Vec<FileSegment> {
    let located = segments.iter().flat_map(|segment| {
        let end = segment.old + segment.bytes;
        let first = draft.partition_point(|part| part.segment.new_range().end <= segment.old);
        let overlapping = draft[first..].iter();
        let overlapping = overlapping.take_while(move |part| part.segment.new < end);
        overlapping.map(move |part| {
            let range = part.segment.new_range();
            let start = segment.old.max(range.start);
            let mut overlap = part.segment.part(start..end.min(range.end));
            overlap.new = segment.new + (start - segment.old);
            FileSegment {
                file: part.file,
                segment: overlap,
            }
        })
    });
    joined(located)
}

/// Joins neighbours in one file.
pub(super) fn joined(parts: impl IntoIterator<Item = FileSegment>) -> Vec<FileSegment> {
    let mut joined: Vec<FileSegment> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if last.file == part.file && last.segment.is_followed_by(&part.segment) => {
                last.segment.bytes += part.segment.bytes;
            }
            _ => joined.push(part),
        }
    }
    joined
}

/// Bytes of the archive that `file` holds.
pub(super) fn bytes_in(parts: &[FileSegment], file: usize) -> u64 {
    let own = parts.iter().filter(|part| part.file == file);
    own.map(|part| part.segment.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(old: u64, new: u64, bytes: u64) -> Segment {
        Segment { old, new, bytes }
    }

    fn part(file: usize, old: u64, new: u64, bytes: u64) -> FileSegment {
        let segment = segment(old, new, bytes);
        FileSegment { file, segment }
    }

    #[test]
    fn segments_are_found_in_the_files_that_hold_them() {
        let draft = [
            part(0, 100, 100, 50),
            part(1, 150, 150, 30),
            part(0, 500, 180, 20),
        ];
        let cases: [(Segment, &[FileSegment]); 4] = [
            (segment(110, 10, 20), &[part(0, 110, 10, 20)]),
            (
                segment(140, 240, 55),
                &[
                    part(0, 140, 240, 10),
                    part(1, 150, 250, 30),
                    part(0, 500, 280, 15),
                ],
            ),
            (segment(150, 150, 30), &[part(1, 150, 150, 30)]),
            (segment(199, 0, 1), &[part(0, 519, 0, 1)]),
        ];
        for (segment, expected) in cases {
            assert_eq!(locate(&draft, &[segment]), expected, "{segment:?}");
        }
        // Neighbours are joined.
        let halves = [segment(100, 0, 20), segment(120, 20, 20)];
        assert_eq!(locate(&draft, &halves), [part(0, 100, 0, 40)]);
    }
}
