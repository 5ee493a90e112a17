//! Runs that copy a stack while it is up. The tests in
//! `src/cycle/precopy/tests/` show that no byte of the copy is torn or stale.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::common::scene::{Scene, start_times};
use crate::common::{Background, Ended, output, succeed, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

fn fill(scene: &Scene, name: &str, mib: usize) {
    let blocks = (0..mib * MIB / 4096).map(|i| [(i % 251) as u8 + 1; 4096]);
    let bytes = blocks.collect::<Vec<_>>().concat();
    let path = scene.stack.dir.join(name);
    fs::write(&path, bytes).unwrap();
    succeed("touch", ["-d", "1 hour ago", path.to_str().unwrap()]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn old_files_are_not_read_while_the_stack_is_down() {
    let scene = Scene::new("stop", 0);
    fill(&scene, "old", 40);
    // Wait until the ctime is old, too.
    thread::sleep(Duration::from_millis(2500));
    let run = scene.place.run().expect_status(0).json();
    let capture = &scene.stack.outcome(&run)["capture"];
    assert_eq!(capture["method"], "precopy", "{capture}");
    assert!(capture["passCount"].as_u64().unwrap() >= 1, "{capture}");
    let down_bytes = capture["downBytes"].as_u64().unwrap();
    assert!(down_bytes < MIB as u64, "{capture}");
    let archive = scene.place.archive(&scene.stack.name);
    let tree = scene.place.extract(&archive).join(&scene.stack.name);
    let (old, copy) = (scene.stack.dir.join("old"), tree.join("old"));
    assert!(fs::read(old).unwrap() == fs::read(copy).unwrap());
    scene.assert_recovered("after the run");

    // The control: with `offline` the file is read while the stack is down.
    let stack = json!([{"name": scene.stack.name, "capture": "offline"}]);
    scene.place.config(stack, json!({}));
    let run = scene.place.run().expect_status(0).json();
    let capture = &scene.stack.outcome(&run)["capture"];
    assert_eq!(capture["method"], "offline", "{capture}");
    assert!(capture["downBytes"].as_u64().unwrap() > 40 * MIB as u64);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_it_copies_stops_nothing_and_the_next_run_removes_its_draft() {
    let scene = Scene::new("stop", 0);
    fill(&scene, "old", 300);
    let program = Background::spawn(&mut scene.place.program(&["run"]));
    wait_until("there is a draft", || !scene.partials().is_empty());
    kill(Pid::from_raw(program.pid()), Signal::SIGKILL).unwrap();
    program.wait();
    // The control: the run was killed while it copied.
    assert_eq!(scene.partials().len(), 1);
    assert_eq!(scene.running(), scene.states);
    assert_eq!(scene.place.journalled(), [""; 0]);
    output(&mut scene.place.program(&["run"])).expect_status(0);
    scene.assert_recovered("after the next run");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_interrupted_while_it_copies_stops_nothing() {
    let scene = Scene::new("stop", 0);
    fill(&scene, "old", 300);
    let program = Background::spawn(&mut scene.place.program(&["run"]));
    wait_until("there is a draft", || !scene.partials().is_empty());
    kill(Pid::from_raw(program.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(program.wait(), 2);
    assert_eq!(scene.partials(), [""; 0]);
    assert_eq!(scene.running(), scene.states);
}

/// Runs a backup, and calls `meanwhile` while the run copies.
fn run_meanwhile(scene: &Scene, meanwhile: impl FnOnce()) -> Ended {
    let mib = 100;
    fill(scene, "old", mib);
    let run = Background::spawn(&mut scene.place.program(&["run", "--json"]));
    let dir = scene.place.store().join(&scene.stack.name);
    run.freeze_while_archiving(&dir, (mib * MIB) as u64);
    assert_eq!(scene.place.journalled(), [""; 0], "nothing is stopped yet");
    meanwhile();
    run.thaw();
    run.end()
}

fn compose(scene: &Scene, args: &[&str]) {
    output(&mut scene.stack.compose(args)).expect_status(0);
}

fn manifest(scene: &Scene) -> Value {
    let archive = scene.place.archive(&scene.stack.name);
    let member = format!("{}.manifest.json", scene.stack.name);
    let text = succeed("tar", ["-xOf", archive.to_str().unwrap(), &member]);
    serde_json::from_str(&text).unwrap()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn services_stopped_during_the_copy_are_not_started() {
    for method in ["stop", "down", "pause"] {
        let scene = Scene::new(method, 0);
        let ended = run_meanwhile(&scene, || compose(&scene, &["stop", "app"]));
        let json = ended.expect_status(0).json();
        assert_eq!(scene.running(), ["db:running"], "{method}");
        assert_eq!(scene.stack.outcome(&json)["services"], json!(["db"]));
        let manifest = manifest(&scene);
        assert_eq!(manifest["running"], json!(["db"]), "{method}");
        assert_eq!(manifest["replicas"], json!({"db": 1}), "{method}");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_stopped_during_the_copy_is_archived_and_stays_down() {
    for take_down in ["stop", "down"] {
        let scene = Scene::new("stop", 0);
        let ended = run_meanwhile(&scene, || compose(&scene, &[take_down]));
        let json = ended.expect_status(0).json();
        assert_eq!(scene.running(), [""; 0], "{take_down}");
        let outcome = scene.stack.outcome(&json);
        assert_eq!(outcome["downtimeMs"], Value::Null, "{outcome}");
        assert_eq!(outcome["capture"]["method"], "precopy", "{outcome}");
        assert_eq!(manifest(&scene)["running"], json!([]), "{take_down}");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn services_started_during_the_copy_run_again() {
    for method in ["stop", "down"] {
        let scene = Scene::new(method, 0);
        compose(&scene, &["stop", "app"]);
        let ended = run_meanwhile(&scene, || compose(&scene, &["up", "--detach"]));
        let json = ended.expect_status(0).json();
        assert_eq!(scene.running(), scene.states, "{method}");
        let services = &scene.stack.outcome(&json)["services"];
        assert_eq!(*services, json!(["app", "db"]), "{method}");
    }
}

#[track_caller]
fn assert_nothing_was_stopped(scene: &Scene, ended: Ended, why: &str) {
    let json = ended.expect_status(2).json();
    let outcome = scene.stack.outcome(&json);
    let failures = outcome["failures"].to_string();
    assert!(failures.contains(why), "{failures}");
    assert!(failures.contains("nothing was stopped"), "{failures}");
    assert_eq!(outcome["downtimeMs"], Value::Null);
    assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_that_mounts_the_data_during_the_copy_is_found_before_the_stop() {
    let scene = Scene::new("stop", 0);
    let times = start_times(&scene.stack);
    let other = scene.place.stack("paused");
    let compose = other.dir.join("compose.yaml");
    let mount = format!("    volumes: ['{}:/theirs']\n", scene.stack.dir.display());
    let text = fs::read_to_string(&compose).unwrap();
    fs::write(&compose, text + &mount).unwrap();
    let ended = run_meanwhile(&scene, || other.up());
    assert_nothing_was_stopped(&scene, ended, "the data is in use (container");
    assert_eq!(start_times(&scene.stack), times);
}

/// Returns a command that replaces the directory, as a deployment may do.
fn exchange(scene: &Scene) -> String {
    let dir = scene.stack.dir.display();
    format!("cp -a '{dir}' '{dir}.new' && mv '{dir}' '{dir}.old' && mv '{dir}.new' '{dir}'")
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_directory_replaced_during_the_copy_fails_the_backup_before_the_stop() {
    let scene = Scene::new("stop", 0);
    let times = start_times(&scene.stack);
    let ended = run_meanwhile(&scene, || {
        succeed("sh", ["-c", &exchange(&scene)]);
    });
    assert_nothing_was_stopped(&scene, ended, "was replaced meanwhile");
    assert_eq!(start_times(&scene.stack), times);
    // The control: the next run archives the new directory.
    scene.place.run().expect_status(0);
    scene.place.archive(&scene.stack.name);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_directory_replaced_during_the_stop_fails_the_backup() {
    let scene = Scene::new("stop", 0);
    let once = format!("[ ! -e '{}.old' ]", scene.stack.dir.display());
    let exchange = exchange(&scene);
    let hook = format!("if [ $1 = stop ] && {once}; then {exchange}; fi");
    let (ended, _) = scene.attempt(&["run", "--json"], &hook);
    let json = ended.unwrap().expect_status(2).json();
    let failures = scene.stack.outcome(&json)["failures"].to_string();
    assert!(failures.contains("was replaced meanwhile"), "{failures}");
    assert_eq!(scene.running(), scene.states);
    assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_file_replaced_by_rename_during_the_copy_is_archived_in_its_new_version() {
    let scene = Scene::new("stop", 0);
    let path = scene.place.path("settings");
    fs::write(&path, "old").unwrap();
    let stack = json!({"name": scene.stack.name, "includeBinds": [path]});
    scene.place.config(json!([stack]), json!({}));
    let ended = run_meanwhile(&scene, || {
        let saved = scene.place.path("settings.new");
        fs::write(&saved, "new").unwrap();
        fs::rename(saved, &path).unwrap();
    });
    ended.expect_status(0);
    let extracted = scene.place.extract(&scene.place.archive(&scene.stack.name));
    let binds = extracted.join(format!("{}.binds", scene.stack.name));
    let copy = binds.join(path.strip_prefix("/").unwrap());
    assert_eq!(fs::read(copy).unwrap(), b"new");
}
