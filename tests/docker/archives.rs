//! Frozen archives must stay restorable by this program. Those of format
//! version 1 must also stay restorable by plain tar, as docs/restore.md
//! describes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{PROGRAM, output};

fn archives() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives")
}

/// Everything that a restore must reproduce.
fn facts(dir: &Path) -> String {
    let script = r#"
cd frozen
find . -printf '%y %m %U:%G %T@ %s %n %l %p\n' | sed '/^d/s/^\(d [^ ]* [^ ]* [^ ]*\) [0-9]* [0-9]*/\1/' | sort -k 2
find . -type f -print0 | sort -z | xargs -0 sha256sum
find . -print0 | sort -z | xargs -0 getfattr --no-dereference --dump --match='^user' 2>/dev/null
find . ! -type l -print0 | sort -z | xargs -0 getfacl --numeric --omit-header --skip-base
"#;
    let mut sh = Command::new("sh");
    sh.args(["-ec", script])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .env("TZ", "UTC");
    output(&mut sh).expect_status(0).stdout
}

#[track_caller]
fn assert_facts(name: &str, dir: &Path) {
    let path = archives().join(format!("{name}.facts"));
    let found = facts(dir);
    assert!(
        found.contains("./dir/symlink") && found.contains("./compose.yaml"),
        "{found}"
    );
    let expected = fs::read(path).unwrap();
    assert_eq!(found, String::from_utf8_lossy(&expected), "{name}");
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn frozen_archives_are_restored() {
    for name in ["format-1", "script", "gnu-posix", "gnu-old", "python"] {
        let dir = tempfile::tempdir().unwrap();
        let archive = archives().join(format!("{name}.tar"));
        let to = dir.path().join("out");
        let mut restore = Command::new(PROGRAM);
        restore.arg("restore").arg(&archive).arg("--to").arg(&to);
        output(&mut restore).expect_status(0);
        assert_facts(name, &to);
        // And from a pipe.
        let piped = dir.path().join("piped");
        let script = "exec \"$1\" restore - --to \"$2\" <\"$3\"";
        let mut sh = Command::new("sh");
        sh.args(["-c", script, "sh", PROGRAM])
            .arg(&piped)
            .arg(&archive);
        output(&mut sh).expect_status(0);
        assert_facts(name, &piped);
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn frozen_archives_are_restored_by_plain_tar_as_documented() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/restore.md");
    let document = fs::read_to_string(document).unwrap();
    let command = "tar -xpf \"$archive\" --xattrs --xattrs-include='*' --acls --numeric-owner -C";
    assert!(
        document.contains(command),
        "docs/restore.md lacks {command}"
    );
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{command} . frozen");
    let mut sh = Command::new("sh");
    sh.args(["-ec", &script])
        .current_dir(&dir)
        .env("archive", archives().join("format-1.tar"));
    output(&mut sh).expect_status(0);
    assert_facts("format-1", dir.path());
}
