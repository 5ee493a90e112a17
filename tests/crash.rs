//! SIGKILL at every docker call of a run, found by counting them, and
//! `recover` after each.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Ended, Place, Spy, Stack, docker, output, succeed};
use serde_json::{Value, json};

/// At this call the program gets SIGKILL, and the command is not run.
const BEFORE_THE_CALL: &str = "kill -9 $PARENT; exit 1";
/// The client of the Engine outlives the program, as one in a process group of
/// its own does.
const CLIENT_GOES_ON: &str = "setsid \"$REAL\" \"$@\" 9>&- & kill -9 $PARENT; exit 1";
/// The Engine has been told, and both the program and the client are gone.
const CLIENT_IS_KILLED_TOO: &str =
    "\"$REAL\" \"$@\" 9>&- & sleep 0.2; kill -9 $PARENT; kill -9 $!; exit 1";

/// Like the second, on a busy machine: the Engine is told seconds later.
const CLIENT_IS_SLOW: &str = "(sleep 4; exec \"$REAL\" \"$@\") 9>&- & kill -9 $PARENT; exit 1";

fn at_call(n: usize, action: &str) -> String {
    format!("if [ $COUNT = {n} ]; then REAL=$(type -P -a docker | sed -n 2p); {action}; fi")
}

/// A running stack, and how it was before the first kill.
struct Scene {
    stack: Stack,
    place: Place,
    states: Vec<String>,
    ids: Vec<String>,
    keeps_ids: bool,
}

/// What was seen right after the kills, before any recovery: the controls of
/// what is asserted after one.
#[derive(Debug, Default)]
struct Seen {
    points: usize,
    down: usize,
    partials: usize,
    journals: usize,
}

impl Scene {
    fn new(method: &str, stop_seconds: u32) -> Scene {
        let place = Place::new();
        let stack = place.stack("ordered");
        fs::write(
            stack.dir.join(".env"),
            format!("STOP_SECONDS={stop_seconds}\n"),
        )
        .unwrap();
        stack.up();
        place.config(
            json!([{"name": stack.name, "stopMethod": method}]),
            json!({}),
        );
        Scene {
            states: running(&stack),
            ids: stack.ids(),
            keeps_ids: method == "stop",
            stack,
            place,
        }
    }

    /// Runs the program under a spy; `None` when it was killed.
    fn attempt(&self, args: &[&str], hook: &str) -> (Option<Ended>, Spy) {
        let spy = self.place.spy(hook);
        spy.clear();
        let ended = output(spy.watch(&mut self.place.program(args)));
        (Some(ended).filter(|ended| ended.status != -1), spy)
    }

    fn partials(&self) -> Vec<String> {
        let mut names = self.place.stored(&self.stack.name);
        names.retain(|name| name.ends_with(".partial"));
        names
    }

    fn last_run(&self) -> Value {
        let json = fs::read(self.place.state().join("last-run.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn look(&self, seen: &mut Seen) {
        seen.points += 1;
        seen.down += usize::from(running(&self.stack) != self.states);
        seen.partials += usize::from(!self.partials().is_empty());
        seen.journals += usize::from(!self.place.journalled().is_empty());
    }

    /// All that must hold after `recover`.
    #[track_caller]
    fn assert_recovered(&self, point: &str) {
        assert_eq!(running(&self.stack), self.states, "{point}");
        if self.keeps_ids {
            assert_eq!(self.stack.ids(), self.ids, "{point}");
        }
        let starts = self.stack.read("log/starts");
        let migrations = starts.lines().filter(|line| *line == "migrate").count();
        assert_eq!(migrations, 1, "{point}: the one-shot service ran again");
        assert_eq!(self.place.journalled(), [""; 0], "{point}");
        assert_eq!(self.partials(), [""; 0], "{point}");
        for name in self.place.stored(&self.stack.name) {
            assert!(name.ends_with(".tar"), "{point}: {name}");
            let archive = self.place.store().join(&self.stack.name).join(&name);
            let members = succeed("tar", ["-tf", archive.to_str().unwrap()]);
            let last = format!("{}/log/starts", self.stack.name);
            assert!(members.contains(&last), "{point}: {name}: {members}");
        }
    }

    /// A stop that is still under way in the Engine would show.
    #[track_caller]
    fn assert_stays_up(&self, duration: Duration, point: &str) {
        let began = Instant::now();
        let times = start_times(&self.stack);
        while began.elapsed() < duration {
            assert_eq!(running(&self.stack), self.states, "{point}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(start_times(&self.stack), times, "{point}: started again");
    }
}

/// `service:running`, without services that have ended.
fn running(stack: &Stack) -> Vec<String> {
    let mut states = stack.states();
    states.retain(|state| !state.ends_with(":exited"));
    states
}

fn start_times(stack: &Stack) -> Vec<String> {
    let ids = stack.ids();
    let ids = ids.iter().filter_map(|line| line.split(' ').nth(1));
    let args = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}"];
    let times = docker(args.into_iter().chain(ids));
    times.lines().map(str::to_owned).collect()
}

/// Kills a run at its first call, at its second, and so on until one is not
/// reached by a complete run; recovers after each.
fn kill_at_every_call(method: &str, action: &str) {
    let scene = Scene::new(method, 0);
    let mut seen = Seen::default();
    for n in 1.. {
        let (ended, spy) = scene.attempt(&["run"], &at_call(n, action));
        if let Some(ended) = ended {
            ended.expect_status(0);
            break;
        }
        let calls = spy.calls();
        let point = format!("{method}, killed at call {n}: {:?}", calls[n - 1]);
        assert_eq!(scene.last_run()["finished"], Value::Null, "{point}");
        scene.look(&mut seen);
        output(&mut scene.place.program(&["recover"])).expect_status(0);
        scene.assert_recovered(&point);
        assert_eq!(scene.last_run()["interrupted"], "killed", "{point}");
        scene.assert_stays_up(Duration::from_millis(300), &point);
        let json = scene.place.run().expect_status(0).json();
        assert_eq!(json["recovered"], json!([]), "{point}");
        scene.assert_recovered(&point);
    }
    eprintln!("{method}: {seen:?}");
    // The controls: there was something to recover from.
    assert!(seen.points > 10, "{seen:?}");
    assert!(seen.down >= 3, "{seen:?}");
    assert!(seen.partials >= 2, "{seen:?}");
    assert!(seen.journals >= seen.down, "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_before_any_docker_call_is_recovered() {
    kill_at_every_call("stop", BEFORE_THE_CALL);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_during_any_docker_call_is_recovered_while_its_client_goes_on() {
    kill_at_every_call("stop", CLIENT_GOES_ON);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_that_uses_down_and_is_killed_before_any_docker_call_is_recovered() {
    kill_at_every_call("down", BEFORE_THE_CALL);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_that_uses_down_and_is_killed_during_any_docker_call_is_recovered() {
    kill_at_every_call("down", CLIENT_GOES_ON);
}

/// The numbers of a complete run's calls that begin with `command`.
fn calls_of(scene: &Scene, command: &str) -> Vec<usize> {
    let (ended, spy) = scene.attempt(&["run"], "");
    ended.unwrap().expect_status(0);
    let calls = spy.calls();
    let found = calls.iter().enumerate();
    let found = found.filter(|(_, call)| call.contains(command));
    found.map(|(i, _)| i + 1).collect()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stop_that_goes_on_in_the_engine_does_not_take_down_what_was_recovered() {
    for (method, command) in [("stop", "stop "), ("down", " down")] {
        let scene = Scene::new(method, 2);
        let stops = calls_of(&scene, command);
        assert!(!stops.is_empty());
        for n in stops {
            for action in [CLIENT_GOES_ON, CLIENT_IS_KILLED_TOO] {
                let point = format!("{method}, call {n}, {action}");
                let (ended, _) = scene.attempt(&["run"], &at_call(n, action));
                assert!(ended.is_none(), "{point}");
                // The control: the stop is under way, nobody has waited for it.
                let still_there = |state: &String| state.ends_with(":running");
                assert!(scene.stack.states().iter().any(still_there), "{point}");
                output(&mut scene.place.program(&["recover"])).expect_status(0);
                scene.assert_recovered(&point);
                scene.assert_stays_up(Duration::from_secs(3), &point);
            }
        }
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_client_that_outlives_its_run_does_not_take_down_what_was_recovered() {
    for (method, command) in [("stop", "stop "), ("down", " down")] {
        let scene = Scene::new(method, 0);
        for n in calls_of(&scene, command) {
            let point = format!("{method}, call {n}");
            let (ended, _) = scene.attempt(&["run"], &at_call(n, CLIENT_IS_SLOW));
            assert!(ended.is_none(), "{point}");
            output(&mut scene.place.program(&["recover"])).expect_status(0);
            scene.assert_recovered(&point);
            scene.assert_stays_up(Duration::from_secs(5), &point);
        }
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn without_recover_a_killed_run_leaves_the_stack_down() {
    let scene = Scene::new("stop", 0);
    let stops = calls_of(&scene, "stop ");
    let after_the_last = stops.last().unwrap() + 1;
    let (ended, _) = scene.attempt(&["run"], &at_call(after_the_last, BEFORE_THE_CALL));
    assert!(ended.is_none());
    scene_is_down_for(&scene, Duration::from_secs(2));
    // The next run is as good as `recover`.
    let json = scene.place.run().expect_status(0).json();
    assert_eq!(json["recovered"][0]["stack"], scene.stack.name.as_str());
    assert_eq!(json["recovered"][0]["services"], json!(["app", "db"]));
    scene.assert_recovered("after the next run");
}

#[track_caller]
fn scene_is_down_for(scene: &Scene, duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        assert_eq!(running(&scene.stack), [""; 0]);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_recovery_killed_at_any_docker_call_is_recovered() {
    for method in ["stop", "down"] {
        let scene = Scene::new(method, 0);
        let command = if method == "stop" { "stop " } else { " down" };
        // With the last stop issued, and not known to be done.
        let stop = *calls_of(&scene, command).last().unwrap();
        for n in 1.. {
            let point = format!("{method}, recovery killed at call {n}");
            let (ended, _) = scene.attempt(&["run"], &at_call(stop, CLIENT_GOES_ON));
            assert!(ended.is_none(), "{point}");
            let (ended, _) = scene.attempt(&["recover"], &at_call(n, CLIENT_GOES_ON));
            let is_complete = ended.is_some();
            if !is_complete {
                assert!(!scene.place.journalled().is_empty(), "{point}");
                output(&mut scene.place.program(&["recover"])).expect_status(0);
            }
            scene.assert_recovered(&point);
            scene.assert_stays_up(Duration::from_millis(300), &point);
            if is_complete {
                assert!(n > 4, "{point}");
                break;
            }
        }
    }
}
