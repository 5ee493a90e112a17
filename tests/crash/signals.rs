//! Signals at every stage of a run, once and twice, and limits that send one.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::common::scene::{Scene, start_times};
use crate::common::{Background, Place, Stack, output, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn send(run: &Background, signal: Signal) {
    kill(Pid::from_raw(run.pid()), signal).unwrap();
}

fn failures(outcome: &Value) -> String {
    outcome["failures"].to_string()
}

const BIG_BYTES: u64 = 512 << 20;

/// Makes the stack so big that writing its archive takes some time, and keeps it
/// down for that time.
fn make_big(place: &Place, stack: &Stack) {
    place.config(
        json!([{"name": stack.name, "capture": "offline"}]),
        json!({}),
    );
    let mut file = File::create(stack.dir.join("big")).unwrap();
    let block = vec![0x5a; 1 << 20];
    for _ in 0..BIG_BYTES >> 20 {
        file.write_all(&block).unwrap();
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_it_archives_leaves_a_partial_and_recover_removes_it() {
    let scene = Scene::new("stop", 0);
    make_big(&scene.place, &scene.stack);
    let run = Background::spawn(&mut scene.place.program(&["run"]));
    let dir = scene.place.store().join(&scene.stack.name);
    run.freeze_while_archiving(&dir, BIG_BYTES);
    send(&run, Signal::SIGKILL);
    run.end().expect_status(-1);
    // The controls: the partial exists, it is not listed as an archive, and the
    // stack is down.
    assert_eq!(scene.partials().len(), 1);
    let list = || {
        output(&mut scene.place.program(&["list", "--json"]))
            .expect_status(0)
            .stdout
    };
    assert!(
        !list().contains(&scene.stack.name) || !list().contains(".tar"),
        "{}",
        list()
    );
    assert_eq!(scene.running(), [""; 0]);
    let json = output(&mut scene.place.program(&["recover", "--json"]))
        .expect_status(0)
        .json();
    assert_eq!(json["interrupted"], "killed");
    assert_eq!(json["recovered"][0]["services"], json!(["app", "db"]));
    scene.assert_recovered("killed while archiving");
    assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_signal_while_archiving_starts_the_stack_removes_the_partial_and_ends_the_run() {
    let scene = Scene::new("stop", 0);
    let second = scene.place.stack("paused");
    second.up();
    make_big(&scene.place, &scene.stack);
    let offline = json!({"name": scene.stack.name, "capture": "offline"});
    scene.place.config(json!([offline, second.name]), json!({}));
    let untouched = start_times(&second);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let run = Background::spawn(&mut scene.place.program(&["run", "--json"]));
        let dir = scene.place.store().join(&scene.stack.name);
        run.freeze_while_archiving(&dir, BIG_BYTES);
        send(&run, signal);
        run.thaw();
        let json = run.end().expect_status(2).json();
        assert_eq!(json["interrupted"], signal.as_str());
        assert!(
            failures(scene.stack.outcome(&json)).contains(": interrupted"),
            "{json}"
        );
        assert_eq!(scene.stack.outcome(&json)["status"], "failed");
        assert_eq!(second.outcome(&json)["status"], "notRun");
        assert_eq!(start_times(&second), untouched);
        scene.assert_recovered(signal.as_str());
        assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
        let report = output(&mut scene.place.program(&["report"]))
            .expect_status(0)
            .stdout;
        assert!(
            report.contains(&format!("interrupted: {signal}")),
            "{report}"
        );
    }
    // The control: without a signal, or with those that ask for nothing, both stacks are
    // backed up.
    let run = Background::spawn(&mut scene.place.program(&["run", "--json"]));
    let dir = scene.place.store().join(&scene.stack.name);
    run.freeze_while_archiving(&dir, BIG_BYTES);
    for signal in [Signal::SIGUSR1, Signal::SIGALRM, Signal::SIGXFSZ] {
        run.signal_all(signal);
    }
    run.thaw();
    let json = run.end().expect_status(0).json();
    assert_eq!(json["interrupted"], Value::Null);
    assert_ne!(start_times(&second), untouched);
}

/// Runs the program under limits on its resources that a shell sets.
fn limited(place: &Place, limits: &str) -> Command {
    let program = place.program(&["run", "--json"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{limits}; exec \"$@\""), "sh"]);
    shell.arg(program.get_program()).args(program.get_args());
    shell
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_limit_on_the_size_of_files_fails_the_archive_and_leaves_no_stack_down() {
    let scene = Scene::new("stop", 0);
    fs::write(scene.stack.dir.join("big"), vec![0x5a; 8 << 20]).unwrap();
    // 4 MiB, in units of 512 bytes.
    let json = output(&mut limited(&scene.place, "ulimit -f 8192"))
        .expect_status(2)
        .json();
    let failures = failures(scene.stack.outcome(&json));
    assert!(failures.contains("File too large"), "{failures}");
    scene.assert_recovered("the limit is reached");
    assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
    // The control.
    output(&mut limited(&scene.place, "ulimit -f 65536")).expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_may_open_as_many_files_as_the_hard_limit_allows() {
    let scene = Scene::new("stop", 0);
    make_big(&scene.place, &scene.stack);
    let run = Background::spawn(&mut limited(&scene.place, "ulimit -Sn 64; ulimit -Hn 4096"));
    let dir = scene.place.store().join(&scene.stack.name);
    run.freeze_while_archiving(&dir, BIG_BYTES);
    for pid in [run.pid(), run.worker().unwrap()] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let numbers: Vec<&str> = line.unwrap().split_whitespace().skip(3).collect();
        assert_eq!(numbers, ["4096", "4096", "files"]);
    }
    send(&run, Signal::SIGTERM);
    run.thaw();
    run.end().expect_status(2);
    scene.assert_recovered("SIGTERM");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_signal_during_a_slow_stop_ends_the_run_before_the_next_group_is_stopped() {
    let scene = Scene::new("stop", 3);
    let db_times = || {
        let mut times = start_times(&scene.stack);
        times.retain(|line| line.contains("-db-"));
        times
    };
    let before = db_times();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let spy = scene.place.spy("");
        spy.clear();
        let mut command = scene.place.program(&["run", "--json"]);
        let run = Background::spawn(spy.watch(&mut command));
        wait_until("the stop is issued", || {
            spy.calls().iter().any(|call| call.starts_with("stop "))
        });
        send(&run, signal);
        let json = run.end().expect_status(2).json();
        assert_eq!(json["interrupted"], signal.as_str());
        let failures = failures(scene.stack.outcome(&json));
        assert!(
            failures.contains(&format!("interrupted by {signal}")),
            "{failures}"
        );
        assert!(scene.stack.outcome(&json)["downtimeMs"].is_u64());
        scene.assert_recovered(signal.as_str());
        assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
        assert_eq!(db_times(), before, "the next group must not be stopped");
    }
    // The control: a complete run stops that group.
    scene.place.run().expect_status(0);
    assert_ne!(db_times(), before);
}

/// Starts a run and sends one signal while it waits for health.
fn signalled_during_the_wait_for_health(place: &Place, stack: &Stack) -> Background {
    stack.up();
    place.config(json!([stack.name]), json!({}));
    let spy = place.spy("");
    let mut command = place.program(&["run", "--json"]);
    let run = Background::spawn(spy.watch(&mut command));
    wait_until("it is started again", || {
        spy.calls().iter().any(|call| call.starts_with("start "))
            && stack.states() == ["app:running"]
    });
    send(&run, Signal::SIGINT);
    let log = place.path("log");
    wait_until("the signal is noted", || {
        fs::read_to_string(&log).unwrap().contains("signal=SIGINT")
    });
    run
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_signal_during_the_wait_for_health_lets_the_stack_finish() {
    let place = Place::new();
    let stack = place.stack("slow-health");
    let run = signalled_during_the_wait_for_health(&place, &stack);
    let json = run.end().expect_status(2).json();
    assert_eq!(json["interrupted"], "SIGINT");
    assert_eq!(stack.outcome(&json)["status"], "ok");
    assert!(stack.outcome(&json)["healthyMs"].as_u64().unwrap() >= 5000);
    let archive = place.archive(&stack.name);
    assert_eq!(place.journalled(), [""; 0]);
    // The archive was not read back; a warning says so.
    let has_warning = |json: &Value| {
        let warnings = stack.outcome(json)["warnings"].to_string();
        warnings.contains("the archive has no sums file")
    };
    assert!(has_warning(&json), "{json}");
    assert!(!archive.with_extension("sums").exists());
    output(&mut place.program(&["verify", &stack.name])).expect_status(0);
    fs::remove_file(&archive).unwrap();
    // The control: without a signal, the archive is read back.
    let json = place.run().expect_status(0).json();
    assert!(!has_warning(&json), "{json}");
    assert!(place.archive(&stack.name).with_extension("sums").exists());
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_second_signal_ends_the_wait_for_health_and_recover_resumes_it() {
    let place = Place::new();
    let stack = place.stack("slow-health");
    let compose = stack.dir.join("compose.yaml");
    let slower = fs::read_to_string(&compose)
        .unwrap()
        .replace("sleep 5", "sleep 20");
    fs::write(&compose, slower).unwrap();
    let run = signalled_during_the_wait_for_health(&place, &stack);
    send(&run, Signal::SIGINT);
    let json = run.end().expect_status(3).json();
    let failures = failures(stack.outcome(&json));
    let reason = "is not healthy (starting) when a second signal ended the wait";
    assert!(failures.contains(reason), "{failures}");
    assert_eq!(stack.states(), ["app:running"]);
    assert_eq!(place.journalled(), [format!("{}.json", stack.name)]);
    // The archive is good nevertheless.
    place.archive(&stack.name);
    let times = start_times(&stack);
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(place.journalled(), [""; 0]);
    assert_eq!(
        start_times(&stack),
        times,
        "recover must wait for the container, not restart it"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_hangup_is_ignored_under_nohup() {
    let scene = Scene::new("stop", 2);
    let spy = scene.place.spy("");
    let program = scene.place.program(&["run", "--json"]);
    let mut command = Command::new("nohup");
    command.arg(program.get_program()).args(program.get_args());
    let run = Background::spawn(spy.watch(&mut command));
    wait_until("the stop is issued", || {
        spy.calls().iter().any(|call| call.starts_with("stop "))
    });
    send(&run, Signal::SIGHUP);
    let json = run.end().expect_status(0).json();
    assert_eq!(json["interrupted"], Value::Null);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_closed_terminal_does_not_keep_the_stack_down() {
    let scene = Scene::new("stop", 0);
    // Without a reader, every write to the pipe fails.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = scene.place.program(&["run", "--verbose"]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    scene.assert_recovered("without a terminal");
    scene.place.archive(&scene.stack.name);
    // The control: another program fails when it writes to such a pipe.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut control = Command::new("sh");
    control.args(["-c", "echo x || exit 9"]).stdout(writer);
    assert_ne!(
        control.stderr(Stdio::null()).status().unwrap().code(),
        Some(0)
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_signal_to_the_whole_process_group_does_not_reach_the_docker_commands() {
    let scene = Scene::new("stop", 2);
    let spy = scene.place.spy("");
    let mut command = scene.place.program(&["run", "--json"]);
    // A shell on a terminal starts it in a group of its own, and Ctrl-C signals the
    // whole group.
    let run = Background::spawn(spy.watch(&mut command).process_group(0));
    wait_until("the stop is issued", || {
        spy.calls().iter().any(|call| call.starts_with("stop "))
    });
    nix::sys::signal::killpg(Pid::from_raw(run.pid()), Signal::SIGINT).unwrap();
    let json = run.end().expect_status(2).json();
    let failures = failures(scene.stack.outcome(&json));
    assert!(failures.contains("interrupted by SIGINT"), "{failures}");
    assert!(!failures.contains("docker"), "{failures}");
    scene.assert_recovered("Ctrl-C");
}
