//! A stack that is copied while it is up. That no byte is torn or stale is
//! shown in `src/precopy/tests.rs`; here, that a run does it.

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use common::scene::Scene;
use common::{Background, output, succeed, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const MIB: usize = 1 << 20;

fn fill(scene: &Scene, name: &str, mib: usize) {
    let bytes: Vec<u8> = (0..mib * MIB).map(|i| (i / 4096 % 251) as u8 + 1).collect();
    let path = scene.stack.dir.join(name);
    fs::write(&path, bytes).unwrap();
    succeed("touch", ["-d", "1 hour ago", path.to_str().unwrap()]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_is_old_is_not_read_while_the_stack_is_down() {
    let scene = Scene::new("stop", 0);
    fill(&scene, "old", 40);
    // Until its ctime is old, too.
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

    // The control: read while down when that is asked for.
    let stack = json!([{"name": scene.stack.name, "capture": "offline"}]);
    scene.place.config(stack, json!({}));
    let run = scene.place.run().expect_status(0).json();
    let capture = &scene.stack.outcome(&run)["capture"];
    assert_eq!(capture["method"], "offline", "{capture}");
    assert!(capture["downBytes"].as_u64().unwrap() > 40 * MIB as u64);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_it_copies_has_stopped_nothing_and_its_draft_goes() {
    let scene = Scene::new("stop", 0);
    fill(&scene, "old", 300);
    let program = Background::spawn(&mut scene.place.program(&["run"]));
    wait_until("there is a draft", || !scene.partials().is_empty());
    kill(Pid::from_raw(program.pid()), Signal::SIGKILL).unwrap();
    program.wait();
    // The control: it was in the midst of it.
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
