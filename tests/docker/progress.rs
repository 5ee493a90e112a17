//! The progress line at the bottom of a terminal, read from a pseudo-terminal.

use std::fs::File;
use std::process::Command;

use crate::common::{PROGRAM, Place, output};
use serde_json::json;

const CLEAR: &str = "\r\u{1b}[K";

/// What the program writes to a terminal.
fn on_terminal(place: &Place, args: &str) -> String {
    let config = place.path("config.json");
    let command = format!("'{PROGRAM}' --config '{}' {args}", config.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    output(script.env("TERM", "xterm")).expect_status(0).stdout
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_terminal_shows_each_phase_and_that_the_stack_is_down() {
    let place = Place::new();
    let (first, second) = (place.stack("paused"), place.stack("paused"));
    first.up();
    second.up();
    let big = File::create(first.dir.join("big")).unwrap();
    big.set_len(1 << 20).unwrap();
    drop(big);
    place.config(json!([first.name, second.name]), json!({}));
    let shown = on_terminal(&place, "run");
    let lines: Vec<&str> = shown.split(CLEAR).collect();
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    for (number, stack) in [(1, &first), (2, &second)] {
        let stack = format!("[{number}/2] {}", stack.name);
        for phase in ["plan", "measure", "finish"] {
            assert!(has(&format!("{stack}: {phase}")), "{phase}: {lines:#?}");
        }
        for phase in ["stop", "quiet", "archive 0 B of ", "start"] {
            let is_shown = lines.iter().any(|line| {
                let down = line.strip_prefix(&format!("{stack}: DOWN "));
                let shown = down.and_then(|down| down.split_once(" s: "));
                // The end of a long line is cut off.
                shown.is_some_and(|(_, shown)| {
                    shown.starts_with(phase) || phase.starts_with(shown) && line.len() == 79
                })
            });
            assert!(is_shown, "{phase}: {lines:#?}");
        }
    }
    // Log lines are printed whole, above the progress line. The progress line
    // is gone at the end.
    assert!(lines.iter().any(|line| line.contains("up again")));
    let report = lines.last().unwrap();
    assert!(!report.contains("[2/2]"), "{report}");
    for quiet in ["run --quiet", "run --json"] {
        let shown = on_terminal(&place, quiet);
        assert!(!shown.contains(CLEAR), "{quiet}: {shown}");
    }
    let piped = output(&mut place.program(&["run"])).expect_status(0);
    assert!(!piped.stderr.contains('\u{1b}'), "{}", piped.stderr);
    assert!(
        piped.stderr.contains("up again"),
        "the control: log lines are piped"
    );
}
