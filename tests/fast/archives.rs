//! The sums file of the frozen archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{PROGRAM, output};

fn archives() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives")
}

#[test]
fn the_frozen_sums_match_the_frozen_archive() {
    for sums in ["format-1.sums", "format-1.sums-2"] {
        compare_with(sums);
    }
}

fn compare_with(sums: &str) {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [("format-1.tar", "format-1.tar"), (sums, "format-1.sums")] {
        fs::copy(archives().join(from), dir.path().join(to)).unwrap();
    }
    let verify = |status| {
        let mut verify = Command::new(PROGRAM);
        verify
            .arg("--json")
            .arg("verify")
            .arg(dir.path().join("format-1.tar"));
        verify
            .args(["--state-dir"])
            .arg(dir.path().join("state"))
            .arg("--backup-dir")
            .arg(dir.path());
        output(&mut verify).expect_status(status).items("archives")
    };
    assert_eq!(verify(0)[0]["compared"], true);
    // The control: with one byte changed, the sums do not match.
    let mut bytes = fs::read(dir.path().join("format-1.tar")).unwrap();
    let at = bytes.windows(6).rposition(|six| six == b"zzzzzz").unwrap();
    bytes[at] = b'y';
    fs::write(dir.path().join("format-1.tar"), bytes).unwrap();
    assert!(
        verify(2)[0]["problems"][0]
            .as_str()
            .unwrap()
            .contains("frozen/dir/large")
    );
}
