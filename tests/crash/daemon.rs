//! Kills the Docker Engine at every stage of a run and starts it again. Each test
//! has an Engine of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::engine::Engine;
use crate::common::{Background, Ended, Place, Spy, Stack, output, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Starts an Engine that leaves containers alone when it ends. It is how NixOS
/// configures it.
fn live_restore(place: &Place) -> Engine {
    Engine::with_settings(place, r#"{"live-restore": true}"#)
}

/// The Engine is away for at least this long.
const AWAY: Duration = Duration::from_secs(2);

// The fields are in the order in which they must be dropped.
struct Scene {
    engine: Engine,
    stack: Stack,
    place: Place,
    states: Vec<String>,
}

impl Scene {
    /// `restart` is the restart policy of the stack's services.
    fn new(restart: &str) -> Scene {
        Scene::on(Engine::start, restart)
    }

    fn on(start: impl Fn(&Place) -> Engine, restart: &str) -> Scene {
        let place = Place::new();
        let engine = start(&place);
        let stack = place.stack("ordered");
        let compose = stack.dir.join("compose.yaml");
        let text = fs::read_to_string(&compose).unwrap();
        let policy = format!("  app:\n    restart: {restart}\n");
        let text = text.replace("  app:\n", &policy);
        let policy = format!("  db:\n    restart: {restart}\n");
        fs::write(
            &compose,
            text.replace("  db:\n    <<", &format!("{policy}    <<")),
        )
        .unwrap();
        engine.up(&stack);
        // The stack is down for as long as the archive is written.
        place.config(
            json!([{"name": stack.name, "capture": "offline"}]),
            json!({}),
        );
        let states = engine.states(&stack);
        assert!(states.contains(&"app:running".to_owned()), "{states:?}");
        Scene {
            engine,
            stack,
            place,
            states,
        }
    }

    /// Starts `run --json` on the private Engine, under a spy.
    fn run(&self, hook: &str) -> (Background, Spy) {
        let spy = self.place.spy(hook);
        spy.clear();
        let mut command = self.place.program(&["run", "--json"]);
        command.env("DOCKER_HOST", self.engine.host());
        (Background::spawn(spy.watch(&mut command)), spy)
    }

    fn recover(&self) -> Ended {
        let mut command = self.place.program(&["recover", "--json"]);
        output(command.env("DOCKER_HOST", self.engine.host()))
    }

    /// Runs, kills the Engine when it gets `command`, and starts it again after
    /// `AWAY`.
    fn run_with_engine_killed_at(&mut self, command: &str) -> Ended {
        let mark = self.place.path("mark");
        let hook = format!(
            "if [ $1 = {command} ] && [ ! -e '{0}' ]; then kill -9 {1}; touch '{0}'; fi",
            mark.display(),
            self.engine.pid(),
        );
        let (run, _) = self.run(&hook);
        wait_until("the Engine is killed", || mark.exists());
        self.engine.reap();
        std::thread::sleep(AWAY);
        self.engine.restart();
        end(run)
    }

    /// Starts a run with enough data to freeze it while it writes the archive.
    fn freeze_while_archiving(&self) -> Background {
        let mut file = File::create(self.stack.dir.join("big")).unwrap();
        for _ in 0..512 {
            file.write_all(&vec![0x5a; 1 << 20]).unwrap();
        }
        drop(file);
        let (run, _) = self.run("");
        let dir = self.place.store().join(&self.stack.name);
        run.freeze_while_archiving(&dir, 512 << 20);
        run
    }

    #[track_caller]
    fn assert_up(&self) {
        assert_eq!(self.engine.states(&self.stack), self.states);
        let starts = self.stack.read("log/starts");
        let migrations = starts.lines().filter(|line| *line == "migrate").count();
        assert_eq!(migrations, 1, "the one-shot service ran again");
        assert_eq!(self.place.journalled(), [""; 0]);
    }
}

fn go_on(run: &Background) {
    run.thaw();
}

fn end(mut run: Background) -> Ended {
    let mut texts = [String::new(), String::new()];
    run.0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut texts[0])
        .unwrap();
    run.0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut texts[1])
        .unwrap();
    let status = run.0.wait().unwrap().code().unwrap_or(-1);
    let [stdout, stderr] = texts;
    Ended {
        status,
        stdout,
        stderr,
    }
}

fn failures(scene: &Scene, json: &Value) -> String {
    scene.stack.outcome(json)["failures"].to_string()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_engine_that_dies_before_the_start_is_waited_for() {
    let mut scene = Scene::new("\"no\"");
    let ended = scene.run_with_engine_killed_at("start").expect_status(0);
    let down_ms = scene.stack.outcome(&ended.json())["downtimeMs"]
        .as_u64()
        .unwrap();
    assert!(
        u128::from(down_ms) >= AWAY.as_millis(),
        "the downtime must include the time without an Engine: {down_ms} ms"
    );
    scene.assert_up();
    scene.place.archive(&scene.stack.name);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_engine_that_dies_during_the_stop_is_waited_for_and_all_is_up_again() {
    let engines: [fn(&Place) -> Engine; 2] = [Engine::start, live_restore];
    for engine in engines {
        let mut scene = Scene::on(engine, "\"no\"");
        let ended = scene.run_with_engine_killed_at("stop").expect_status(2);
        let failures = failures(&scene, &ended.json());
        assert!(
            failures.contains("cannot connect to the Engine"),
            "{failures}"
        );
        scene.assert_up();
        assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_engine_that_restarts_while_health_is_awaited_makes_no_service_a_finished_job() {
    let mut scene = Scene::new("\"no\"");
    // `app` ends with status 0 when the Engine stops it. `db` is not healthy while
    // there is a file.
    let check = "    healthcheck: {test: [CMD, test, '!', -e, /data/hold], interval: 500ms, retries: 200}\n";
    let compose = scene.stack.dir.join("compose.yaml");
    let text = fs::read_to_string(&compose).unwrap();
    fs::write(
        &compose,
        text.replace("\n  db:\n", &format!("\n  db:\n{check}")),
    )
    .unwrap();
    scene.engine.up(&scene.stack);
    let hold = scene.stack.dir.join("data/hold");
    fs::write(&hold, "").unwrap();
    let (run, _) = scene.run("");
    let log = scene.place.path("log");
    let log = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the start", || log().contains(": starting"));
    wait_until("both run", || {
        scene.engine.states(&scene.stack) == scene.states
    });
    kill(Pid::from_raw(scene.engine.pid()), Signal::SIGTERM).unwrap();
    scene.engine.reap();
    scene.engine.restart();
    fs::remove_file(hold).unwrap();
    let json = end(run).expect_status(0).json();
    assert_eq!(scene.stack.outcome(&json)["status"], "ok");
    assert_eq!(scene.engine.states(&scene.stack), scene.states);
    assert_eq!(scene.place.journalled(), [""; 0]);
    // The control: it had ended.
    let started_again = "app-1 ended with exit status 0 after its start";
    let warnings = scene.stack.outcome(&json)["warnings"].to_string();
    assert!(warnings.contains(started_again), "{warnings}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_succeeds_although_the_engine_dies_while_it_archives() {
    let mut scene = Scene::new("\"no\"");
    let run = scene.freeze_while_archiving();
    scene.engine.kill();
    go_on(&run);
    std::thread::sleep(AWAY);
    scene.engine.restart();
    end(run).expect_status(0);
    scene.assert_up();
    // The archive is good, since no container ran while it was written.
    scene.place.archive(&scene.stack.name);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_fails_if_a_new_engine_starts_the_containers_while_it_archives() {
    let mut scene = Scene::on(live_restore, "always");
    let run = scene.freeze_while_archiving();
    scene.engine.kill();
    scene.engine.restart();
    // `restart: always` starts them although they had been stopped.
    wait_until("the new Engine starts them", || {
        scene.engine.states(&scene.stack) == scene.states
    });
    go_on(&run);
    let json = end(run).expect_status(2).json();
    let failures = failures(&scene, &json);
    assert!(failures.contains("the data is in use"), "{failures}");
    scene.assert_up();
    assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn recover_starts_unless_stopped_containers_after_run_and_engine_were_killed() {
    let mut scene = Scene::new("unless-stopped");
    let run = scene.freeze_while_archiving();
    scene.engine.kill();
    kill(Pid::from_raw(run.pid()), Signal::SIGKILL).unwrap();
    end(run).expect_status(-1);
    scene.engine.restart();
    // The control: the Engine itself does not start the stack again.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let states = scene.engine.states(&scene.stack);
        assert!(
            states.iter().all(|state| state.ends_with(":exited")),
            "{states:?}"
        );
    }
    let json = scene.recover().expect_status(0).json();
    assert_eq!(json["interrupted"], "killed");
    scene.assert_up();
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn recover_waits_for_an_engine_that_is_not_there_yet() {
    let mut scene = Scene::new("\"no\"");
    let (run, _) = scene.run("if [ $1 = start ]; then kill -9 $PARENT; exit 1; fi");
    end(run).expect_status(-1);
    scene.engine.kill();
    let mut command = scene.place.program(&["recover", "--json"]);
    let recovery = Background::spawn(command.env("DOCKER_HOST", scene.engine.host()));
    std::thread::sleep(AWAY);
    scene.engine.restart();
    let json = end(recovery).expect_status(0).json();
    assert_eq!(json["recovered"][0]["error"], Value::Null);
    scene.assert_up();
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_killed_test_engine_leaves_nothing_behind() {
    let place = Place::new();
    let mut engine = Engine::start(&place);
    let stack = place.stack("paused");
    engine.up(&stack);
    // The control: the traces of a running Engine are found.
    let has = |traces: &[String], kind: &str| traces.iter().any(|trace| trace.starts_with(kind));
    let traces = engine.traces();
    for kind in ["process", "mount", "cgroup"] {
        assert!(has(&traces, kind), "{traces:?}");
    }
    engine.kill();
    assert!(
        has(&engine.traces(), "process"),
        "the containers must survive the Engine"
    );
    // Dropping the Engine fails the test when something is left.
    drop(engine);
    let left = output(Command::new("sh").args([
        "-c",
        &format!(
            "grep -c '{}' /proc/self/mounts",
            place.path("engine").display()
        ),
    ]));
    assert_eq!(left.stdout.trim(), "0");
}
