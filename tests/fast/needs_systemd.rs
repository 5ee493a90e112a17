//! The systemd units that the Debian package and `docs/systemd.md` install.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{PROGRAM, output};

/// Returns the file name and text of each unit. Systemd looks for the program where
/// programs are installed, and the test has its own.
fn units() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    let files = fs::read_dir(directory).unwrap();
    let mut units: Vec<(String, String)> = files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(path).unwrap();
            (
                name,
                text.replace("=docker-stack-backup ", &format!("={PROGRAM} ")),
            )
        })
        .collect();
    units.sort();
    units
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

#[test]
fn the_units_are_valid() {
    let mut units = units();
    assert_eq!(units.len(), 7);
    assert_eq!(complaints(&units), "");
    // The control: a wrong value is found.
    let drill = &mut units[0];
    assert_eq!(drill.0, "docker-stack-backup-drill.service");
    drill.1 = drill.1.replace("KillMode=mixed", "KillMode=some");
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
