//! Kills a run with SIGKILL at each of its docker calls, which are counted, and
//! calls `recover` after each kill.

use std::fs;
use std::time::Duration;

use crate::common::kill_points::{if_complete, kill_points, third_of};
use crate::common::scene::{Scene, at_call};
use crate::common::{Background, docker, in_parallel, output, wait_until};
use serde_json::{Value, json};

/// The program gets SIGKILL at this call, and the docker command is not run.
const BEFORE_THE_CALL: &str = "kill -9 $PARENT; exit 1";
/// The program gets SIGKILL, and the docker command continues. It is in a process
/// group of its own.
const CLIENT_GOES_ON: &str = "setsid \"$REAL\" \"$@\" 9>&- & kill -9 $PARENT; exit 1";
/// The Engine gets the request; then both the program and the docker command are
/// killed.
const CLIENT_IS_KILLED_TOO: &str =
    "\"$REAL\" \"$@\" 9>&- & sleep 0.2; kill -9 $PARENT; kill -9 $!; exit 1";
/// Like `CLIENT_GOES_ON`, on a busy machine: the Engine gets the request only
/// seconds later.
const CLIENT_IS_SLOW: &str = "(sleep 4; exec \"$REAL\" \"$@\") 9>&- & kill -9 $PARENT; exit 1";

/// Counts of what was found right after the kills, before any recovery. They are
/// the controls of the assertions after a recovery.
#[derive(Debug, Default)]
struct Seen {
    points: usize,
    down: usize,
    partials: usize,
    journals: usize,
}

impl Seen {
    fn look(&mut self, scene: &Scene) {
        self.points += 1;
        self.down += usize::from(scene.running() != scene.states);
        self.partials += usize::from(!scene.partials().is_empty());
        self.journals += usize::from(!scene.place.journalled().is_empty());
    }
}

/// Kills a run at its first call, the next at its second call, and so on until a
/// run completes. Recovers after each.
fn kill_at_every_call(method: &str, uses_socket: bool, action: &str) {
    let mut scene = Scene::new(method, 0);
    scene.uses_socket = uses_socket;
    let mut seen = Seen::default();
    for n in kill_points() {
        let (ended, spy) = scene.attempt(&["run"], &at_call(n, action));
        if let Some(ended) = ended {
            ended.expect_status(0);
            break;
        }
        let calls = spy.calls();
        let point = format!("{method}, killed at call {n}: {:?}", calls[n - 1]);
        assert_eq!(scene.last_run()["finished"], Value::Null, "{point}");
        seen.look(&scene);
        output(&mut scene.place.program(&["recover"])).expect_status(0);
        scene.assert_recovered(&point);
        assert_eq!(scene.last_run()["interrupted"], "killed", "{point}");
        scene.assert_stays_up(Duration::from_millis(300), &point);
        // Mostly the next attempt is the next run. Here a complete run comes next.
        if n % 4 == 0 {
            let json = scene.place.run().expect_status(0).json();
            assert_eq!(json["recovered"], json!([]), "{point}");
            scene.assert_recovered(&point);
        }
    }
    eprintln!("{method}: {seen:?}");
    // The controls: there was something to recover from.
    assert!(seen.points >= if_complete(11).max(1), "{seen:?}");
    assert!(seen.down >= if_complete(5), "{seen:?}");
    assert!(seen.partials >= if_complete(2), "{seen:?}");
    assert!(seen.journals >= seen.down, "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_before_any_docker_call_is_recovered() {
    kill_at_every_call("stop", true, BEFORE_THE_CALL);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_during_any_docker_command_is_recovered_without_a_socket() {
    kill_at_every_call("stop", false, CLIENT_GOES_ON);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_that_pauses_and_is_killed_before_any_call_leaves_nothing_paused() {
    kill_at_every_call("pause", true, BEFORE_THE_CALL);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_that_pauses_and_is_killed_during_any_call_leaves_nothing_paused() {
    kill_at_every_call("pause", true, CLIENT_GOES_ON);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_during_any_docker_call_is_recovered_while_its_client_continues() {
    kill_at_every_call("stop", true, CLIENT_GOES_ON);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_that_uses_down_and_is_killed_before_any_docker_call_is_recovered() {
    kill_at_every_call("down", true, BEFORE_THE_CALL);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_that_uses_down_and_is_killed_during_any_docker_call_is_recovered() {
    kill_at_every_call("down", true, CLIENT_GOES_ON);
}

/// A third of the calls, or the first of the others.
fn one_at_least(calls: Vec<usize>) -> Vec<usize> {
    assert!(!calls.is_empty());
    let (mut chosen, others) = third_of(calls);
    if chosen.is_empty() {
        chosen.extend(others.first());
    }
    chosen
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stop_that_continues_in_the_engine_does_not_stop_a_recovered_stack() {
    let cases = [
        ("stop", CLIENT_GOES_ON),
        ("stop", CLIENT_IS_KILLED_TOO),
        // `down` comes when all have ended.
        ("down", CLIENT_GOES_ON),
        ("down", CLIENT_IS_KILLED_TOO),
    ];
    in_parallel(cases, |(method, action)| {
        let scene = Scene::new(method, 3);
        for n in one_at_least(scene.calls_of("stop ")) {
            let point = format!("{method}, call {n}, {action}");
            let (ended, _) = scene.attempt(&["run"], &at_call(n, action));
            assert!(ended.is_none(), "{point}");
            // The control: the stop is still under way.
            let still_there = |state: &String| state.ends_with(":running");
            assert!(scene.stack.states().iter().any(still_there), "{point}");
            output(&mut scene.place.program(&["recover"])).expect_status(0);
            scene.assert_recovered(&point);
            scene.assert_stays_up(Duration::from_secs(4), &point);
        }
    });
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn recover_waits_for_a_stop_that_continues_in_the_engine_after_a_kill() {
    for recovers_at_once in [false, true] {
        let scene = Scene::new("stop", 3);
        let spy = scene.place.spy("");
        let mut command = scene.place.program(&["run"]);
        let mut run = Background::spawn(spy.watch(&mut command));
        wait_until("the stop is issued", || {
            spy.calls().iter().any(|call| call.starts_with("stop "))
        });
        std::thread::sleep(Duration::from_millis(300));
        run.0.kill().unwrap();
        run.0.wait().unwrap();
        let app = |state: &str| scene.stack.states().contains(&format!("app:{state}"));
        assert!(app("running"), "the stop is under way");
        if !recovers_at_once {
            wait_until("the Engine has stopped it", || app("exited"));
            let format = "{{.State.ExitCode}}";
            let code = docker(["inspect", "--format", format, &scene.stack.container("app")]);
            assert_eq!(code, "0", "the container must have had its grace period");
        }
        output(&mut scene.place.program(&["recover"])).expect_status(0);
        scene.assert_recovered("the socket's client is gone");
        scene.assert_stays_up(Duration::from_secs(4), "the socket's client is gone");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_docker_client_that_outlives_its_run_does_not_stop_a_recovered_stack() {
    let cases = [("stop", "stop "), ("down", " down")];
    in_parallel(cases, |(method, command)| {
        let mut scene = Scene::new(method, 0);
        // With the socket, the run itself is the client, so none could outlive it.
        scene.uses_socket = false;
        for n in one_at_least(scene.calls_of(command)) {
            let point = format!("{method}, call {n}");
            let (ended, _) = scene.attempt(&["run"], &at_call(n, CLIENT_IS_SLOW));
            assert!(ended.is_none(), "{point}");
            output(&mut scene.place.program(&["recover"])).expect_status(0);
            scene.assert_recovered(&point);
            scene.assert_stays_up(Duration::from_secs(5), &point);
        }
    });
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn without_recover_a_killed_run_leaves_the_stack_down() {
    let scene = Scene::new("stop", 0);
    let stops = scene.calls_of("stop ");
    let after_the_last = stops.last().unwrap() + 1;
    let (ended, _) = scene.attempt(&["run"], &at_call(after_the_last, BEFORE_THE_CALL));
    assert!(ended.is_none());
    scene.assert_stays_down(Duration::from_secs(2));
    // The next run recovers the stack, as `recover` would.
    let json = scene.place.run().expect_status(0).json();
    assert_eq!(json["recovered"][0]["stack"], scene.stack.name.as_str());
    assert_eq!(json["recovered"][0]["services"], json!(["app", "db"]));
    scene.assert_recovered("after the next run");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_recovery_killed_at_any_docker_call_is_recovered() {
    in_parallel(["stop", "down"], |method| {
        let scene = Scene::new(method, 0);
        let command = if method == "stop" { "stop " } else { " down" };
        // The last stop is issued, and the journal does not say that it is done.
        let stop = *scene.calls_of(command).last().unwrap();
        for n in kill_points() {
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
    });
}

mod needs_cgroup_kill {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Instant;

    /// A cgroup whose processes are killed all at once, as systemd does when a
    /// process of a unit runs out of memory.
    struct Cgroup(PathBuf);

    impl Cgroup {
        fn new(name: &str) -> Cgroup {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let mut fields = mounts
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>());
            let root = fields
                .find(|fields| fields[2] == "cgroup2")
                .expect("cgroup v2 is mounted")[1]
                .to_owned();
            let cgroup = Cgroup(PathBuf::from(root).join(name));
            fs::create_dir(&cgroup.0).unwrap();
            let has_kill = cgroup.0.join("cgroup.kill").exists();
            assert!(has_kill, "cgroup.kill is missing (Linux before 5.14)");
            cgroup
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
            let began = Instant::now();
            // The directory is busy until the last process is reaped.
            while fs::remove_dir(&self.0).is_err() && began.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn a_run_killed_with_all_of_its_docker_commands_is_recovered() {
        let cases = [("stop", ["stop ", "start "]), ("down", [" down", " up "])];
        in_parallel(cases, |(method, commands)| {
            let scene = Scene::new(method, 1);
            let cgroup = Cgroup::new(&scene.stack.name);
            let action = format!(
                "\"$REAL\" \"$@\" 9>&- & sleep 0.2; echo 1 >'{}'; exit 1",
                cgroup.0.join("cgroup.kill").display()
            );
            for command in commands {
                for n in one_at_least(scene.calls_of(command)) {
                    let point = format!("{method}, {command}, call {n}");
                    let spy = scene.place.spy(&at_call(n, &action));
                    spy.clear();
                    let program = scene.place.program(&["run"]);
                    let mut enter = Command::new("sh");
                    enter.args(["-c", "echo $$ >\"$0\"; exec \"$@\""]);
                    enter.arg(cgroup.0.join("cgroup.procs"));
                    enter.arg(program.get_program()).args(program.get_args());
                    output(spy.watch(&mut enter)).expect_status(-1);
                    // The control: no process of the run is left.
                    wait_until("all processes of the cgroup have ended", || {
                        let left = fs::read_to_string(cgroup.0.join("cgroup.procs"));
                        left.unwrap().is_empty()
                    });
                    output(&mut scene.place.program(&["recover"])).expect_status(0);
                    scene.assert_recovered(&point);
                    scene.assert_stays_up(Duration::from_millis(1500), &point);
                }
            }
        });
    }
}
