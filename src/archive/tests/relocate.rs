//! Stretches of a draft that have to move.

use std::os::unix::fs::FileExt;

use super::*;
use crate::archive::draft::relocate::relocate;
use crate::archive::write::kept::Kept;

const MIB: u64 = 1 << 20;

/// Every block of the file tells its number.
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

/// Returns how many bytes were copied.
fn check(kept: &[Kept]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let end = kept.iter().map(|kept| kept.old + kept.bytes).max().unwrap();
    let file = numbered(dir.path(), end);
    let before = fs::read(dir.path().join("draft")).unwrap();
    let copied_bytes = relocate(&file, kept, &GO_ON).unwrap();
    let after = fs::read(dir.path().join("draft")).unwrap();
    for kept in kept {
        let [old, new, len] = [kept.old, kept.new, kept.bytes].map(|n| n as usize);
        assert!(after[new..new + len] == before[old..old + len], "{kept:?}");
    }
    copied_bytes
}

fn kept(old: u64, new: u64, bytes: u64) -> Kept {
    Kept { old, new, bytes }
}

#[test]
fn what_moves_either_way_arrives_whole() {
    // To the front, to the back, by less than their length and by more, by
    // whole blocks and not.
    check(&[
        kept(512, 0, 100 * 512),
        kept(200 * 512, 101 * 512, 512 * 10_000),
    ]);
    check(&[
        kept(0, 512, 512 * 9_000),
        kept(512 * 9_000, 512 * 9_010, 512 * 5),
    ]);
    check(&[
        kept(0, 0, 512),
        kept(1024, 512, 512 * 700),
        kept(512 * 800, 512 * 900, 512 * 9_000),
        kept(512 * 9_900, 512 * 9_901, 512),
        kept(512 * 12_000, 512 * 9_905, 512 * 100),
    ]);
}

#[test]
fn long_stretches_are_not_copied_where_the_file_system_can_make_room() {
    let long = 8 * MIB;
    let cases = [
        // Room is made, and taken away again.
        vec![
            kept(0, 0, MIB),
            kept(MIB, MIB + 4096 * 3, long),
            kept(MIB + long, MIB + long + 4096 * 3 + 512, 512 * 20),
            kept(2 * MIB + long, MIB + long + 4096 * 6, long),
        ],
        // The other way round, and with ends that are no whole blocks.
        vec![
            kept(4096 * 5 + 512, 4096 + 512, long + 1024),
            kept(MIB + long, long + 4096 * 2 + 512, 512 * 30),
            kept(2 * MIB + long, 3 * MIB + long, long + 512),
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
