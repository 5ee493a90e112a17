//! What a run does when the process that makes a backup dies, or waits for a mount that
//! does not answer.

mod needs_bindfs;

use std::fs;
use std::path::Path;

use crate::common::{Background, Place, Stack, output, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Two stacks; the first is the one that something happens to.
fn two_stacks(options: Value) -> (Place, Stack, Stack) {
    let place = Place::new();
    let (first, second) = (place.stack("paused"), place.stack("paused"));
    first.up();
    second.up();
    let mut options = options;
    options["name"] = first.name.as_str().into();
    place.config(json!([options, second.name]), json!({}));
    (place, first, second)
}

/// Checks that the first stack is up again and was not backed up, and that the second one
/// was. Returns the messages of the first one's failures.
#[track_caller]
fn assert_gone_on(place: &Place, stacks: [&Stack; 2], outcome: &Value) -> String {
    let [first, second] = &outcome["stacks"].as_array().unwrap()[..] else {
        panic!("{outcome}");
    };
    assert_eq!(first["status"], "failed", "{outcome}");
    assert_eq!(second["status"], "ok", "{outcome}");
    for stack in stacks {
        assert_eq!(stack.states(), ["app:running"], "{outcome}");
    }
    assert_eq!(place.journalled(), [""; 0]);
    place.archive(&stacks[1].name);
    first["failures"].to_string()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_starts_the_stack_of_a_worker_that_was_killed_and_goes_on() {
    let (place, first, second) = two_stacks(json!({}));
    // The worker is the last of the two pids.
    let hook = format!(
        "case \"$*\" in 'start '*) if mkdir '{}'; then kill -9 ${{PARENT##* }}; exit 1; fi;; esac",
        place.path("killed").display()
    );
    let spy = place.spy(&hook);
    let ended = output(spy.watch(&mut place.program(&["run", "--json"])));
    let outcome = ended.expect_status(2).json();
    let failures = assert_gone_on(&place, [&first, &second], &outcome);
    assert!(failures.contains("signal: 9"), "{failures}");
    let downtime = &outcome["stacks"][0]["downtimeMs"];
    assert!(downtime.as_u64().unwrap() > 0, "{outcome}");
    // What the worker left in the store is gone, and the next run is good.
    assert_eq!(place.stored(&first.name), [""; 0]);
    let next = place.run().expect_status(0).json();
    assert_eq!(next["stacks"][0]["status"], "ok", "{next}");
    place.archive(&first.name);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_worker_ends_with_the_run_that_watches_it() {
    let place = Place::new();
    let stack = place.stack("paused");
    stack.up();
    fs::write(stack.dir.join("big"), vec![1; 64 << 20]).unwrap();
    place.config(
        json!([{"name": stack.name, "capture": "offline"}]),
        json!({}),
    );
    let run = Background::spawn(&mut place.program(&["run"]));
    run.freeze_while_archiving(&place.store().join(&stack.name), 64 << 20);
    let worker = run.worker().expect("the run has a worker");
    kill(Pid::from_raw(run.pid()), Signal::SIGKILL).unwrap();
    run.wait();
    wait_until("the worker has ended", || {
        !Path::new(&format!("/proc/{worker}")).exists()
    });
    assert_eq!(stack.states(), ["app:exited"], "the control");
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(stack.states(), ["app:running"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_capture_limit_ends_a_copy_that_makes_progress() {
    let (place, first, second) = two_stacks(json!({"capture": "offline", "captureLimit": 8}));
    fs::write(first.dir.join("big"), vec![1; 64 << 20]).unwrap();
    let mut command = place.program(&["run", "--json"]);
    let run = Background::spawn(&mut command);
    run.freeze_while_archiving(&place.store().join(&first.name), 64 << 20);
    // The run alone goes on, and its worker has its time.
    kill(Pid::from_raw(run.pid()), Signal::SIGCONT).unwrap();
    let outcome = run.end().expect_status(2).json();
    let failures = assert_gone_on(&place, [&first, &second], &outcome);
    assert!(failures.contains("`captureLimit`"), "{failures}");
}
