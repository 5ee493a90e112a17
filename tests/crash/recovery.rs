//! `recover`, and the recovery at the begin of a run, with nothing in order but
//! the journal and the Engine.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::scene::Scene;
use crate::common::{Ended, output, succeed};
use serde_json::{Value, json};

/// Puts a file in the place of a directory, which then cannot be listed.
fn spoil(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
    fs::write(dir, "").unwrap();
}

#[track_caller]
fn assert_says(ended: &Ended, parts: &[&str]) {
    for part in parts {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_recovery_needs_nothing_but_the_journal_and_the_engine() {
    let scene = Scene::new("stop", 0);
    let (place, stack) = (&scene.place, &scene.stack);
    scene.leave_down();
    spoil(&place.state().join("drill"));
    spoil(&place.state().join("restore"));
    let aside = place.path("store-aside");
    fs::rename(place.store(), &aside).unwrap();
    spoil(&place.store());
    // A time in a zone that no database has, as older versions wrote it.
    let entry = place.state().join(format!("journal/{}.json", stack.name));
    let mut json: Value = serde_json::from_slice(&fs::read(&entry).unwrap()).unwrap();
    json["since"] = json!("2026-11-24T03:00:00+01:00[Nowhere/Atlantis]");
    fs::write(&entry, json.to_string()).unwrap();
    // A mistake in another stack's options.
    let other = json!({"path": "/nowhere/other", "stopTimeot": 5});
    // A log file that would hang: nobody reads from the pipe.
    let pipe = place.path("pipe").display().to_string();
    succeed("mkfifo", [&pipe]);
    place.config(json!([stack.name, other]), json!({"logFile": pipe}));
    let ended = output(&mut place.program(&["recover"])).expect_status(2);
    let restore = place.state().join("restore").display().to_string();
    assert_says(
        &ended,
        &[
            "`stacks[1].stopTimeot`: unknown field",
            "state/drill: Not a directory",
            &format!("cannot list {restore}"),
        ],
    );
    let refused = "cannot write to the log file";
    assert!(ended.stdout.contains(refused), "{}", ended.stdout);
    assert_eq!(scene.running(), scene.states);
    assert_eq!(place.journalled(), [""; 0]);
    // A run begins with the same recovery, and backs up all the same.
    place.config(json!([stack.name]), json!({}));
    fs::remove_file(place.store()).unwrap();
    fs::rename(aside, place.store()).unwrap();
    scene.leave_down();
    let json = place.run().expect_status(2).json();
    assert_eq!(json["recovered"][0]["error"], Value::Null);
    assert_eq!(json["errors"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(stack.outcome(&json)["status"], "ok");
    // The control: when all is in order, so is the status.
    for dir in ["drill", "restore"] {
        fs::remove_file(place.state().join(dir)).unwrap();
    }
    scene.leave_down();
    output(&mut place.program(&["recover"])).expect_status(0);
    scene.assert_recovered("all in order");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_recovery_works_on_a_state_directory_that_cannot_be_written() {
    let scene = Scene::new("stop", 0);
    let place = &scene.place;
    scene.leave_down();
    let state = place.state().display().to_string();
    let mount = |args: &[&str]| output(Command::new("mount").args(args)).expect_status(0);
    mount(&["--bind", &state, &state]);
    mount(&["-o", "remount,bind,ro", &state]);
    let ended = output(&mut place.program(&["recover"]));
    output(Command::new("umount").arg(&state)).expect_status(0);
    assert_eq!(scene.running(), scene.states, "{}", ended.stderr);
    let ended = ended.expect_status(2);
    // It says that the entry is still there. The stack is not called down.
    assert_says(&ended, &["cannot remove", "Read-only file system"]);
    assert!(!ended.stdout.contains("IS DOWN"), "{}", ended.stdout);
    // The control: on a writable directory, nothing is left to say.
    output(&mut place.program(&["recover"])).expect_status(0);
    scene.assert_recovered("writable again");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_that_was_left_down_is_named_by_the_commands_that_only_look() {
    let scene = Scene::new("stop", 0);
    let place = &scene.place;
    place.run().expect_status(0);
    let commands: [&[&str]; 4] = [&["report"], &["plan"], &["list"], &["check", "--live"]];
    let said = |args: &[&str], status| {
        let ended = output(&mut place.program(args)).expect_status(status);
        let expected = format!("{} IS DOWN (app, db): stopped at ", scene.stack.name);
        let advice = "start it with `docker-stack-backup recover`";
        ended.stdout.contains(&expected) && ended.stdout.contains(advice)
    };
    scene.leave_down();
    for args in commands {
        let status = i32::from(args == ["check", "--live"]);
        assert!(said(args, status), "{args:?}");
    }
    // JSON is not mixed with text.
    let ended = output(&mut place.program(&["list", "--json"])).expect_status(0);
    assert!(ended.items("archives").is_array());
    assert_says(&ended, &["IS DOWN"]);
    // The control.
    output(&mut place.program(&["recover"])).expect_status(0);
    for args in commands {
        assert!(!said(args, 0), "{args:?}");
    }
}
