//! The output and the logs of a run.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use crate::common::{Ended, Place, output};
use serde_json::json;

#[track_caller]
fn assert_contains(text: &str, expected: &str) {
    assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
}

/// Runs `run` with its stderr in a file; under systemd it is a socket.
fn run_into(place: &Place, args: &[&str], in_journal: bool) -> (Ended, String) {
    let path = place.path("stderr");
    let file = File::create(&path).unwrap();
    let metadata = file.metadata().unwrap();
    let inode = metadata.ino() + u64::from(!in_journal);
    let mut command = place.program(&[&["run"], args].concat());
    command.env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()));
    let out = command.stdin(Stdio::null()).stderr(file).output().unwrap();
    let ended = Ended {
        status: out.status.code().unwrap(),
        stdout: String::from_utf8(out.stdout).unwrap(),
        stderr: String::new(),
    };
    (ended, fs::read_to_string(path).unwrap())
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn log_lines_have_numeric_levels_in_the_journal_and_words_elsewhere() {
    let place = Place::new();
    let (good, bad) = (place.stack("web"), place.stack("web"));
    fs::remove_dir_all(&bad.dir).unwrap();
    place.config(json!([good.name, bad.name]), json!({}));
    let run = |args: &[&str], in_journal: bool| {
        let (ended, log) = run_into(&place, args, in_journal);
        ended.expect_status(2);
        log
    };
    let year = jiff::ZonedDateTime::now().strftime("%Y-").to_string();
    let journal = run(&[], true);
    assert_contains(&journal, &format!("<6>{}: archived path=", good.name));
    assert_contains(
        &journal,
        &format!("<3>{}: plan: the stack's directory", bad.name),
    );
    assert!(
        journal.lines().all(|line| line.starts_with('<')),
        "{journal}"
    );
    assert!(!journal.contains(&year), "{journal}");
    let plain = run(&[], false);
    assert_contains(&plain, &format!("\n{}: archived path=", good.name));
    assert_contains(
        &plain,
        &format!("\nerror: {}: plan: the stack's dir", bad.name),
    );
    assert!(!plain.contains('<'), "{plain}");

    let quiet = run(&["--quiet"], false);
    assert!(
        quiet.lines().all(|line| line.starts_with("error: ")),
        "{quiet}"
    );
    assert!(run(&["--verbose"], true).contains("<7>"));
    // The log file always has all lines from level info on, with times.
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert_eq!(log.matches("backup started").count(), 4);
    assert!(log.lines().all(|line| line.starts_with(&year)), "{log}");
    assert!(!log.contains("DEBUG"), "{log}");

    let (quiet, _) = run_into(&place, &["--quiet"], false);
    assert_eq!(quiet.stdout, "");
    let (text, _) = run_into(&place, &[], false);
    assert_contains(
        &text.stdout,
        &format!("FAILURE: {} not backed up", bad.name),
    );
    assert_contains(&text.stdout, "FAILURES\n");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_log_file_may_be_rotated_during_a_run() {
    let place = Place::new();
    let stack = place.stack("paused");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    fs::write(place.path("log"), "older\n").unwrap();
    let log = place.path("log").display().to_string();
    let spy = place.spy(&format!("[ \"$1\" != stop ] || mv '{log}' '{log}.1'"));
    output(spy.watch(&mut place.program(&["run"]))).expect_status(0);
    let [rotated, new] = [format!("{log}.1"), log].map(|path| fs::read_to_string(path).unwrap());
    assert!(rotated.starts_with("older\n"), "{rotated}");
    assert_contains(&rotated, "backup started");
    assert_contains(&new, "backup ended");
    assert!(!new.contains("backup started"), "{new}");
    let mode = fs::metadata(place.path("log"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_log_file_that_cannot_be_written_is_reported_and_the_backup_is_made() {
    let place = Place::new();
    let stack = place.stack("web");
    fs::write(place.path("file"), "").unwrap();
    fs::create_dir(place.path("dir")).unwrap();
    for (path, reason) in [("file/log", "Not a directory"), ("dir", "Is a directory")] {
        let path = place.path(path);
        place.config(json!([stack.name]), json!({"logFile": path}));
        let json = place.run().expect_status(2).json();
        let expected = format!("cannot write to the log file {}: {reason}", path.display());
        assert_contains(json["errors"][0].as_str().unwrap(), &expected);
        assert_eq!(stack.outcome(&json)["status"], "ok");
        let report = output(&mut place.program(&["report"])).stdout;
        assert!(
            report.starts_with("FAILURE: 1 other error; 1 stack backed up"),
            "{report}"
        );
    }
    // The control: a missing directory of the log file is created.
    place.config(
        json!([stack.name]),
        json!({"logFile": place.path("new/log")}),
    );
    place.run().expect_status(0);
    assert!(place.path("new/log").exists());
    assert_eq!(place.stored(&stack.name).len(), 3);
}
