//! `run` and `recover` with a journal that is damaged, that names containers
//! which were changed by hand, or that another run is using.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::scene::{Scene, start_times};
use crate::common::{Background, Ended, Place, Stack, output, succeed, wait_until};
use serde_json::{Value, json};

fn entry_path(place: &Place, stack: &Stack) -> PathBuf {
    place.state().join(format!("journal/{}.json", stack.name))
}

#[track_caller]
fn recover(place: &Place, args: &[&str]) -> Ended {
    output(&mut place.program(&[&["recover"], args].concat()))
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_journal_that_cannot_be_parsed_is_reported_and_harms_no_other_stack() {
    let scene = Scene::new("stop", 0);
    let place = &scene.place;
    let other = place.stack("paused");
    other.up();
    place.config(json!([scene.stack.name, other.name]), json!({}));
    scene.leave_down();
    let path = entry_path(place, &scene.stack);
    let good = fs::read(&path).unwrap();
    let mut newer: Value = serde_json::from_slice(&good).unwrap();
    newer["formatVersion"] = json!(newer["formatVersion"].as_u64().unwrap() + 1);
    let damages = [
        b"".to_vec(),
        b"\0\0\0\0\0\0".to_vec(),
        b"not json".to_vec(),
        good[..good.len() / 2].to_vec(),
        newer.to_string().into_bytes(),
    ];
    let advice = format!("recover --forget {}", scene.stack.name);
    for damage in damages {
        fs::write(&path, &damage).unwrap();
        let ended = recover(place, &[]).expect_status(3);
        assert!(ended.stderr.contains(&advice), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("docker compose start"),
            "{}",
            ended.stderr
        );
        let times = start_times(&other);
        let json = place.run().expect_status(3).json();
        let outcome = scene.stack.outcome(&json);
        assert_eq!(outcome["status"], "down");
        assert!(
            outcome["failures"].to_string().contains(&advice),
            "{outcome}"
        );
        assert_eq!(other.outcome(&json)["status"], "ok");
        assert_ne!(
            start_times(&other),
            times,
            "the other stack must be backed up"
        );
        assert_eq!(
            fs::read(&path).unwrap(),
            damage,
            "the damaged entry must stay unchanged"
        );
        assert_eq!(scene.running(), [""; 0]);
    }
    // Starts the stack by hand, as the message advises.
    output(&mut scene.stack.compose(&["start", "db", "app"])).expect_status(0);
    recover(place, &["--forget", &scene.stack.name]).expect_status(0);
    assert_eq!(place.journalled(), [""; 0]);
    place.run().expect_status(0);
    recover(place, &["--forget", &scene.stack.name]).expect_status(1);
    // The control: an undamaged entry is parsed.
    scene.leave_down();
    recover(place, &[]).expect_status(0);
    assert_eq!(scene.running(), scene.states);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn recover_is_silent_and_changes_nothing_when_there_is_nothing_to_do() {
    let scene = Scene::new("stop", 0);
    let place = &scene.place;
    let silent = |args: &[&str]| {
        let ended = recover(place, args).expect_status(0);
        assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
    };
    silent(&["--quiet"]);
    assert_eq!(recover(place, &[]).expect_status(0).stdout, "");
    place.run().expect_status(0);
    let last = fs::read(place.state().join("last-run.json")).unwrap();
    silent(&["--quiet"]);
    assert_eq!(fs::read(place.state().join("last-run.json")).unwrap(), last);
    scene.leave_down();
    // The control: with something to recover, it is not silent.
    assert_ne!(recover(place, &["--quiet"]).expect_status(0).stderr, "");
    let times = start_times(&scene.stack);
    silent(&["--quiet"]);
    assert_eq!(start_times(&scene.stack), times);
    scene.assert_recovered("twice");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_second_run_is_refused_while_a_run_is_under_way_and_a_recovery_leaves_it_alone() {
    let scene = Scene::new("stop", 3);
    let place = &scene.place;
    let spy = place.spy("");
    let mut first = Background::spawn(spy.watch(&mut place.program(&["run", "--quiet"])));
    wait_until("the first has stopped something", || {
        spy.calls().iter().any(|call| call.starts_with("stop "))
    });
    let holder = format!("a run is under way (process {}", first.pid());
    // `recover` succeeds, since the run itself began with a recovery.
    for (args, status) in [(["run"], 1), (["prune"], 1), (["recover"], 0)] {
        let ended = output(&mut place.program(&args)).expect_status(status);
        assert!(ended.stderr.contains(&holder), "{}", ended.stderr);
    }
    assert!(
        first.0.try_wait().unwrap().is_none(),
        "the first run must not have ended yet"
    );
    assert_eq!(first.wait(), 0);
    scene.assert_recovered("two runs");
    place.archive(&scene.stack.name);
    // The control: the same calls are not refused any more.
    for args in [&["run"][..], &["recover"], &["prune"]] {
        output(&mut place.program(args)).expect_status(0);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn containers_removed_by_hand_are_created_again() {
    for method in ["stop", "down"] {
        let scene = Scene::new(method, 0);
        scene.leave_down();
        output(&mut scene.stack.compose(&["down"])).expect_status(0);
        assert_eq!(scene.stack.states(), [""; 0]);
        recover(&scene.place, &[]).expect_status(0);
        // Compose also creates the one-shot service, without which it could not take the
        // stack down. It is not run.
        assert_eq!(scene.running(), scene.states);
        assert_eq!(scene.place.journalled(), [""; 0]);
        scene.assert_migrated_once(method);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn containers_recreated_by_hand_are_left_alone() {
    let scene = Scene::new("stop", 0);
    scene.leave_down();
    let anew = [
        "up",
        "--detach",
        "--no-deps",
        "--force-recreate",
        "app",
        "db",
    ];
    output(&mut scene.stack.compose(&anew)).expect_status(0);
    let times = start_times(&scene.stack);
    recover(&scene.place, &[]).expect_status(0);
    assert_eq!(scene.running(), scene.states);
    assert_eq!(start_times(&scene.stack), times);
    assert_eq!(scene.place.journalled(), [""; 0]);
    // Recreated but not started: the new containers are started.
    scene.leave_down();
    let anew = [
        "up",
        "--no-start",
        "--no-deps",
        "--force-recreate",
        "app",
        "db",
    ];
    output(&mut scene.stack.compose(&anew)).expect_status(0);
    let ids = scene.stack.ids();
    recover(&scene.place, &[]).expect_status(0);
    assert_eq!(scene.running(), scene.states);
    assert_eq!(scene.stack.ids(), ids);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn containers_started_by_hand_are_left_alone() {
    let scene = Scene::new("stop", 0);
    scene.leave_down();
    output(&mut scene.stack.compose(&["start", "db"])).expect_status(0);
    let db = |times: Vec<String>| times.into_iter().find(|line| line.contains("-db-"));
    let started = db(start_times(&scene.stack));
    recover(&scene.place, &[]).expect_status(0);
    scene.assert_recovered("half of it by hand");
    assert_eq!(db(start_times(&scene.stack)), started);
    scene.assert_stays_up(Duration::from_secs(1), "half of it by hand");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn nothing_is_stopped_when_the_state_directory_cannot_be_written() {
    let scene = Scene::new("stop", 0);
    let place = &scene.place;
    place.run().expect_status(0);
    let state = place.state().display().to_string();
    let _mounted = ReadOnly::bind(&state);
    let times = start_times(&scene.stack);
    let (ended, spy) = scene.attempt(&["run"], "");
    let ended = ended.unwrap().expect_status(1);
    assert!(
        ended.stderr.contains("Read-only file system"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains(&state), "{}", ended.stderr);
    assert!(!spy.calls().iter().any(|call| call.starts_with("stop")));
    assert_eq!(start_times(&scene.stack), times);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn nothing_is_stopped_when_the_journal_cannot_be_written() {
    let scene = Scene::new("stop", 0);
    let place = &scene.place;
    place.run().expect_status(0);
    let times = start_times(&scene.stack);
    {
        // The lock and the outcome can be written, the journal cannot.
        let journal = place.state().join("journal").display().to_string();
        let _mounted = ReadOnly::bind(&journal);
        let (ended, spy) = scene.attempt(&["run", "--json"], "");
        let json = ended.unwrap().expect_status(2).json();
        let failures = scene.stack.outcome(&json)["failures"].to_string();
        assert!(failures.contains("write the journal"), "{failures}");
        assert!(failures.contains("Read-only file system"), "{failures}");
        assert!(!spy.calls().iter().any(|call| call.starts_with("stop")));
        assert_eq!(start_times(&scene.stack), times);
    }
    // The control: with a writable journal, the stack is stopped and started.
    place.run().expect_status(0);
    assert_ne!(start_times(&scene.stack), times);
}

/// A directory that is read-only even for root, until dropped.
struct ReadOnly(String);

impl ReadOnly {
    fn bind(dir: &str) -> ReadOnly {
        succeed("mount", ["--bind", dir, dir]);
        let mounted = ReadOnly(dir.to_owned());
        succeed("mount", ["-o", "remount,bind,ro", dir]);
        mounted
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = output(std::process::Command::new("umount").arg(&self.0));
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_journal_names_the_running_containers_when_the_first_stop_is_issued() {
    let scene = Scene::new("stop", 0);
    let copy = scene.place.path("copy");
    let hook = format!(
        "if [ $1 = stop ]; then cp -an '{}' '{}'; fi",
        scene.place.state().join("journal").display(),
        copy.display()
    );
    let (ended, _) = scene.attempt(&["run"], &hook);
    ended.unwrap().expect_status(0);
    let entry = copy.join(format!("{}.json", scene.stack.name));
    let entry: Value = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
    assert_eq!(entry["step"], "stopping");
    let containers = entry["containers"].as_array().unwrap().iter();
    let services: Vec<&Value> = containers.map(|c| &c["service"]).collect();
    assert_eq!(json!(services), json!(["app", "db"]));
}
