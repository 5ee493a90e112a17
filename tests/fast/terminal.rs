//! What people see on a real terminal, as narrow as a telephone's and as wide as a desk's.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};
use serde_json::{Value, json};

use crate::common::Place;

const WIDTHS: [u16; 3] = [40, 80, 120];
const STACKS: [&str; 2] = ["immich", "a-stack-with-quite-a-long-name"];

/// Returns the lines that a command shows on a terminal of `columns`, without colours.
fn shown(place: &Place, columns: u16, args: &[&str]) -> Vec<String> {
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None).unwrap();
    let no_engine = format!("unix://{}", place.path("no.sock").display());
    let mut program = place.program(args);
    program
        .env("DOCKER_HOST", no_engine)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .stdout(terminal.slave.try_clone().unwrap())
        .stderr(terminal.slave);
    let mut child = program.spawn().unwrap();
    // It has the terminal open, too.
    drop(program);
    let mut bytes = Vec::new();
    // The end of what a terminal shows is an error (EIO).
    let _ = File::from(terminal.master).read_to_end(&mut bytes);
    child.wait().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let mut plain = String::new();
    for (i, piece) in text.split("\u{1b}[").enumerate() {
        let piece = match i {
            0 => piece,
            _ => piece.split_once('m').unwrap().1,
        };
        plain += piece;
    }
    plain
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// A machine with a good backup and a failed one.
fn place() -> Place {
    let place = Place::new();
    place.config(json!(STACKS), json!({}));
    place.add_frozen_archive("20200101");
    let outcome = |stack: &str, status: &str, failures: Value| {
        json!({
            "stack": stack, "project": stack, "status": status, "failures": failures,
            "warnings": ["app is unhealthy"], "services": ["app"], "archive": null,
            "downtimeMs": 1200, "coverage": [], "phases": [{"phase": "plan", "durationMs": 12}],
        })
    };
    let failure =
        "in use: /srv/photos/library/2026/november is open for writing by process 4711 (rsync)";
    let state = place.state();
    fs::create_dir_all(&state).unwrap();
    let write = |name: &str, value: Value| {
        fs::write(state.join(name), value.to_string()).unwrap();
    };
    write(
        "last-run.json",
        json!({
            "formatVersion": 1, "programVersion": "0.1.0", "host": "nas",
            "backupDir": place.store(), "started": "2026-11-29T03:15:00+00:00",
            "finished": "2026-11-29T03:16:00+00:00", "interrupted": null, "recovered": [],
            "stacks": [
                outcome(STACKS[0], "ok", json!([])),
                outcome(STACKS[1], "failed", json!([{"phase": "quiet", "message": failure}])),
            ],
            "pruned": [], "store": null, "errors": [], "log": [],
        }),
    );
    let past = |stack: &str, status: &str| {
        json!({
            "stack": stack, "status": status, "downtimeMs": 61_000, "archiveBytes": 123_456_789,
            "downBytes": 1000, "failure": (status != "ok").then_some(failure),
        })
    };
    write(
        "history.json",
        json!({
            "formatVersion": 1,
            "runs": [{
                "started": "2026-11-29T03:15:00+00:00",
                "stacks": [past(STACKS[0], "ok"), past(STACKS[1], "failed")],
            }],
            "lastGood": {(STACKS[0]): {"time": "2026-11-29T03:15:00+00:00", "archiveBytes": 123_456_789}},
        }),
    );
    place
}

#[test]
fn every_command_fits_the_terminal() {
    let place = place();
    let commands: [&[&str]; 4] = [&["status"], &["status", STACKS[1]], &["list"], &["report"]];
    for args in commands {
        let widest = WIDTHS.map(|width| {
            let lines = shown(&place, width, args);
            assert!(lines.len() > 1, "{args:?}: {lines:#?}");
            for line in &lines {
                let words = line.split(' ').map(|word| word.chars().count());
                // A path, a command that is to be copied, and a name stay whole.
                let is_whole = words.max().unwrap_or(0) > usize::from(width) / 2;
                let is_quoted = line.contains('`');
                let length = line.chars().count();
                assert!(
                    length <= width.into() || is_whole || is_quoted,
                    "{args:?} at {width}: {line}"
                );
            }
            lines.iter().map(|line| line.chars().count()).max().unwrap()
        });
        // The control: where there is room, lines are longer.
        assert!(widest[0] < widest[2], "{args:?}: {widest:?}");
    }
}

#[test]
fn a_command_that_is_to_be_copied_stays_in_one_line() {
    let place = place();
    let command = format!("`docker-stack-backup run {}`", STACKS[1]);
    for width in WIDTHS {
        let lines = shown(&place, width, &["status"]);
        assert!(
            lines.iter().any(|line| line.contains(&command)),
            "{lines:#?}"
        );
    }
}
