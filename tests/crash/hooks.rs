//! Kills runs with hooks at each of their requests to Docker. After `recover`, no service
//! is in its maintenance mode, and all are up.

use std::fs;
use std::time::Duration;

use crate::common::hooks::{flag_hook, host_hook, with_hooks};
use crate::common::kill_points::{if_complete, kill_points};
use crate::common::scene::{Scene, at_call};
use crate::common::{Background, output, wait_until};
use serde_json::json;

/// The run and its worker get SIGKILL at this call, and the call is not made.
const BEFORE_THE_CALL: &str = "kill -9 $PARENT; exit 1";
/// The call is made, and then they are killed.
const AFTER_THE_CALL: &str = "{ (sleep 0.3; kill -9 $PARENT) 9>&- & }";

/// Hooks with an undo in a container and on the host, before the stop and after the start.
fn configure(scene: &Scene) {
    let mark = scene.place.path("mark").display().to_string();
    let on_host = host_hook(
        "beforeStop",
        &format!("touch {mark}"),
        Some(&format!("rm -f {mark}")),
    );
    let places = ["beforeCopy", "beforeStop"].map(flag_hook);
    let [copy, stop] = places;
    with_hooks(scene, vec![copy, stop, on_host, flag_hook("afterStart")]);
}

#[derive(Debug, Default)]
struct Seen {
    points: usize,
    flags: usize,
    up_with_flag: usize,
    down: usize,
}

impl Seen {
    /// Looks at what a kill has left, recovers, and looks again.
    fn recover(&mut self, scene: &Scene, point: &str) {
        let flag = scene.stack.dir.join("data/flag");
        let mark = scene.place.path("mark");
        let is_up = scene.running() == scene.states;
        self.points += 1;
        self.flags += usize::from(flag.exists());
        self.up_with_flag += usize::from(flag.exists() && is_up);
        self.down += usize::from(!is_up);
        output(&mut scene.place.program(&["recover"])).expect_status(0);
        assert!(!flag.exists(), "{point}: in maintenance mode");
        assert!(!mark.exists(), "{point}: the mark of the host is there");
        scene.assert_recovered(point);
    }
}

fn kill_at_every_call(action: &str) {
    let scene = Scene::new("stop", 0);
    configure(&scene);
    let mut seen = Seen::default();
    for n in kill_points() {
        let (ended, spy) = scene.attempt(&["run"], &at_call(n, action));
        if let Some(ended) = ended {
            ended.expect_status(0);
            if spy.calls().len() < n {
                break;
            }
            // It ended before it was killed.
            continue;
        }
        let calls = spy.calls();
        let point = format!("killed at call {n}: {:?}", calls[n - 1]);
        seen.recover(&scene, &point);
    }
    eprintln!("{seen:?}");
    // The controls: there was something to take back.
    assert!(seen.points >= if_complete(25), "{seen:?}");
    assert!(seen.flags >= if_complete(10), "{seen:?}");
    assert!(seen.up_with_flag >= if_complete(5), "{seen:?}");
    assert!(seen.down >= if_complete(3), "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_before_any_call_of_its_hooks_leaves_no_maintenance_mode() {
    kill_at_every_call(BEFORE_THE_CALL);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_after_any_call_of_its_hooks_leaves_no_maintenance_mode() {
    kill_at_every_call(AFTER_THE_CALL);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn without_recover_a_killed_run_leaves_the_maintenance_mode() {
    let scene = Scene::new("stop", 0);
    configure(&scene);
    scene.leave_down();
    let flag = scene.stack.dir.join("data/flag");
    assert!(flag.exists());
    // The next run takes it back, as `recover` would.
    let json = scene.place.run().expect_status(0).json();
    assert_eq!(json["recovered"][0]["services"], json!(["app", "db"]));
    let undone = json["recovered"][0]["undone"].as_array().unwrap();
    assert_eq!(undone.len(), 3, "{undone:?}");
    assert!(!flag.exists());
    scene.assert_recovered("after the next run");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_recovery_killed_at_any_call_leaves_no_maintenance_mode() {
    let scene = Scene::new("stop", 0);
    configure(&scene);
    let mut seen = Seen::default();
    for n in kill_points() {
        scene.leave_down();
        let (ended, _) = scene.attempt(&["recover"], &at_call(n, BEFORE_THE_CALL));
        let is_complete = ended.is_some();
        if let Some(ended) = ended {
            ended.expect_status(0);
        }
        seen.recover(&scene, &format!("recovery killed at call {n}"));
        if is_complete {
            break;
        }
    }
    eprintln!("{seen:?}");
    assert!(seen.points >= if_complete(7), "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_hook_that_goes_on_after_its_run_was_killed_is_over_before_it_is_undone() {
    let scene = Scene::new("stop", 0);
    let flag = scene.stack.dir.join("data/flag");
    let begun = scene.stack.dir.join("data/begun");
    let slow = json!({
        "when": "beforeCopy", "service": "app",
        "command": ["sh", "-c", "touch /data/begun; sleep 3; touch /data/flag"],
        "undo": ["rm", "-f", "/data/flag"],
    });
    with_hooks(&scene, vec![slow]);
    let run = Background::spawn(&mut scene.place.program(&["run"]));
    wait_until("the hook runs", || begun.exists());
    let worker = run.worker();
    drop(run);
    wait_until("the worker has ended", || {
        worker.is_none_or(|pid| !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false))
    });
    // The control: without `recover`, it goes on.
    wait_until("the hook has ended", || flag.exists());
    output(&mut scene.place.program(&["recover"])).expect_status(0);
    assert!(!flag.exists());

    fs::remove_file(&begun).unwrap();
    let run = Background::spawn(&mut scene.place.program(&["run"]));
    wait_until("the hook runs", || begun.exists());
    drop(run);
    output(&mut scene.place.program(&["recover"])).expect_status(0);
    std::thread::sleep(Duration::from_secs(4));
    assert!(!flag.exists(), "the hook went on after it was undone");
    scene.assert_recovered("a hook that goes on");
}
