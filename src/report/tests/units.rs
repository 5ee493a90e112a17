//! Sizes, durations, JSON.

use super::*;
use crate::sys::format::{human_bytes, human_duration};

#[test]
fn sizes_are_human() {
    let table = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1_048_524, "1023.9 KiB"),
        (12 * GIB + GIB / 3, "12.3 GiB"),
        (u64::MAX, "16.0 EiB"),
    ];
    for (bytes, text) in table {
        assert_eq!(human_bytes(bytes), text);
    }
}

#[test]
fn durations_are_human() {
    let table = [
        (0, "0.0 s"),
        (49, "0.0 s"),
        (4_249, "4.2 s"),
        (59_949, "59.9 s"),
        (59_950, "1 min 0 s"),
        (185_000, "3 min 5 s"),
        (3_599_499, "59 min 59 s"),
        (3_599_500, "1 h 0 min"),
        (86_369_999, "23 h 59 min"),
        (86_370_000, "1 d 0 h"),
        (100 * 3_600_000, "4 d 4 h"),
    ];
    for (duration_ms, text) in table {
        assert_eq!(human_duration(duration_ms), text);
    }
}

#[test]
fn json_is_read_back() {
    let run = run(three());
    let json = serde_json::to_string(&run).unwrap();
    let back: RunOutcome = serde_json::from_str(&json).unwrap();
    assert_eq!(text(&back), text(&run));
    assert!(json.contains("\"archiveBytes\""));
}
