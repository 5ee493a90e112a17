//! The systemd units in the documentation.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{PROGRAM, output};

/// Returns the file name and text of each unit.
fn units() -> Vec<(String, String)> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd.md");
    let document = fs::read_to_string(document).unwrap();
    let blocks = document.split("```ini\n").skip(1);
    blocks
        .map(|block| {
            let text = block.split("```").next().unwrap();
            let path = text.lines().next().unwrap().strip_prefix("# ").unwrap();
            let name = path.strip_prefix("/etc/systemd/system/").unwrap();
            let text = text.replace("/usr/local/bin/docker-stack-backup", PROGRAM);
            (name.to_owned(), text)
        })
        .collect()
}

/// Returns the complaints of `systemd-analyze verify`.
fn complaints(units: &[(String, String)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for (name, text) in units {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        verify.arg(path);
    }
    let ended = output(&mut verify);
    let of_units = |line: &&str| line.contains("docker-stack-backup");
    let lines: Vec<&str> = ended.stderr.lines().filter(of_units).collect();
    lines.join("\n")
}

mod needs_systemd {
    use super::*;

    #[test]
    fn the_documented_units_are_valid() {
        let mut units = units();
        assert_eq!(units.len(), 7);
        assert_eq!(complaints(&units), "");
        // The control: a wrong value is found.
        units[0].1 = units[0].1.replace("KillMode=mixed", "KillMode=some");
        let said = complaints(&units);
        assert!(
            said.contains("kill mode") && said.contains("some"),
            "{said}"
        );
        // The units run existing commands of the program.
        for (name, text) in units {
            for line in text.lines().filter(|line| line.starts_with("Exec")) {
                let argv = line.split_once('=').unwrap().1;
                let mut help = Command::new(PROGRAM);
                help.args(argv.split(' ').skip(1)).arg("--help");
                output(&mut help).expect_status(0);
                assert!(argv.starts_with(PROGRAM), "{name}: {line}");
            }
        }
    }
}
