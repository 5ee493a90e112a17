//! Segments of a draft that have to move within a file.

use std::os::unix::fs::FileExt;

use super::*;
use crate::archive::draft::moves::move_segments;
use crate::archive::write::segment::Segment;

const MIB: u64 = 1 << 20;

/// Makes a file in which every block holds its number.
fn numbered(dir: &Path, bytes: u64) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("draft"))
        .unwrap();
    for unit in 0..bytes / 512 {
        let content = [&unit.to_le_bytes()[..], &[unit as u8; 504]].concat();
        file.write_all_at(&content, unit * 512).unwrap();
    }
    file
}

/// Moves the segments and compares what they hold. Returns how many bytes were
/// copied.
fn check(segments: &[Segment]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let end = segments
        .iter()
        .map(|segment| segment.old + segment.bytes)
        .max()
        .unwrap();
    let file = numbered(dir.path(), end);
    let before = fs::read(dir.path().join("draft")).unwrap();
    let copied_bytes = move_segments(&file, segments, &GO_ON).unwrap();
    let after = fs::read(dir.path().join("draft")).unwrap();
    for segment in segments {
        let [old, new, len] = [segment.old, segment.new, segment.bytes].map(|n| n as usize);
        assert!(
            after[new..new + len] == before[old..old + len],
            "{segment:?}"
        );
    }
    copied_bytes
}

fn segment(old: u64, new: u64, bytes: u64) -> Segment {
    Segment { old, new, bytes }
}

#[test]
fn segments_that_move_either_way_arrive_whole() {
    // To the front and to the back, by less than their length and by more, by
    // whole blocks and by fractions of one.
    check(&[
        segment(512, 0, 100 * 512),
        segment(200 * 512, 101 * 512, 512 * 10_000),
    ]);
    check(&[
        segment(0, 512, 512 * 9_000),
        segment(512 * 9_000, 512 * 9_010, 512 * 5),
    ]);
    check(&[
        segment(0, 0, 512),
        segment(1024, 512, 512 * 700),
        segment(512 * 800, 512 * 900, 512 * 9_000),
        segment(512 * 9_900, 512 * 9_901, 512),
        segment(512 * 12_000, 512 * 9_905, 512 * 100),
    ]);
}

#[test]
fn long_segments_are_not_copied_where_the_file_system_can_insert_a_range() {
    let long = 8 * MIB;
    let cases = [
        // Ranges are inserted, then collapsed.
        vec![
            segment(0, 0, MIB),
            segment(MIB, MIB + 4096 * 3, long),
            segment(MIB + long, MIB + long + 4096 * 3 + 512, 512 * 20),
            segment(2 * MIB + long, MIB + long + 4096 * 6, long),
        ],
        // Ranges are collapsed, then inserted; the ends are not whole blocks.
        vec![
            segment(4096 * 5 + 512, 4096 + 512, long + 1024),
            segment(MIB + long, long + 4096 * 2 + 512, 512 * 30),
            segment(2 * MIB + long, 3 * MIB + long, long + 512),
        ],
    ];
    for case in cases {
        let copied_bytes = check(&case);
        assert!(
            copied_bytes < MIB,
            "{copied_bytes} bytes were copied: {case:?}"
        );
    }
}
