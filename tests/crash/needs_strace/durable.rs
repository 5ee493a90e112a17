//! The order of fsync, rename and docker commands, as strace reports it; and runs
//! that are killed before each of those system calls.

use std::fs;
use std::time::Duration;

use crate::common::kill_points::{if_complete, kill_points};
use crate::common::scene::{Scene, start_times};
use crate::common::{Background, killed_before, output, slowed, strace, wait_until};
use serde_json::json;

const SYSCALLS: &str = "fsync,fdatasync,rename,renameat2,unlink,unlinkat,execve";

/// The lines of a trace, in the order the system calls began.
struct Trace(Vec<String>);

impl Trace {
    /// Traces a run that succeeds.
    fn of_a_run(scene: &Scene) -> Trace {
        Trace::with_status(scene, 0)
    }

    /// Traces a run that ends with `status`. Requests to the Engine appear as writes
    /// to its socket.
    fn with_status(scene: &Scene, status: i32) -> Trace {
        let log = scene.place.path("trace");
        let trace = format!("trace={SYSCALLS},write,sendto");
        let options = ["-f", "-qq", "-y", "-s", "500", "-e", &trace, "-o"];
        let run = scene.place.program(&["run"]);
        let mut command = strace(&run, &[&options[..], &[log.to_str().unwrap()]].concat());
        output(&mut command).expect_status(status);
        let text = fs::read_to_string(log).unwrap();
        Trace(text.lines().map(str::to_owned).collect())
    }

    /// Returns the position of the first line at or after `from` that contains all
    /// of `words`.
    #[track_caller]
    fn find(&self, from: usize, words: &[&str]) -> usize {
        let matches = |line: &String| words.iter().all(|word| line.contains(word));
        let found = self.0.iter().skip(from).position(matches);
        from + found.unwrap_or_else(|| panic!("no {words:?} in {:#?}", &self.0[from..]))
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn i1_the_journal_is_synced_before_the_first_stop_and_removed_after_the_last_start() {
    let scene = Scene::new("stop", 0);
    let trace = Trace::of_a_run(&scene);
    let dir = scene.place.state().join("journal");
    let entry = dir.join(format!("{}.json", scene.stack.name));
    let (dir, entry) = (dir.display().to_string(), entry.display().to_string());
    let written = format!("{entry}.new");
    let file = trace.find(0, &["fsync(", &format!("<{written}>")]);
    let renamed = trace.find(file, &["rename(", &format!("\"{written}\", \"{entry}\"")]);
    let synced = trace.find(renamed, &["fsync(", &format!("<{dir}>")]);
    let stop = trace.find(0, &["POST /", "/stop"]);
    assert!(file < renamed && renamed < synced && synced < stop);
    // One thread makes all three calls, so each has ended when the next begins.
    let thread = |i: usize| trace.0[i].split(' ').next().unwrap();
    assert_eq!(thread(file), thread(renamed));
    assert_eq!(thread(file), thread(synced));
    let start = |line: &&String| line.contains("POST /") && line.contains("/start");
    let starts = trace.0.iter().filter(start).count();
    let removed = trace.find(stop, &["unlink(", &format!("\"{entry}\"")]);
    assert_eq!(trace.0[..removed].iter().filter(start).count(), starts);
    assert!(starts >= 2);
    trace.find(removed, &["fsync(", &format!("<{dir}>")]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_whose_journal_entry_cannot_be_synced_is_left_alone_by_run_and_recover() {
    let scene = Scene::new("stop", 0);
    let place = &scene.place;
    place.run().expect_status(0);
    let times = start_times(&scene.stack);
    let journal = place.state().join("journal").display().to_string();
    // The first sync of the directory fails, when the entry is in it already.
    let inject = "inject=fsync:error=EIO:when=1";
    let options = [
        "-f",
        "-qq",
        "-P",
        &journal,
        "-e",
        "trace=fsync",
        "-e",
        inject,
    ];
    let log = place.path("trace").display().to_string();
    let options = [&options[..], &["-o", &log]].concat();
    let json = output(&mut strace(&place.program(&["run", "--json"]), &options));
    let json = json.expect_status(2).json();
    let failures = scene.stack.outcome(&json)["failures"].to_string();
    assert!(failures.contains("write the journal"), "{failures}");
    assert!(fs::read_to_string(log).unwrap().contains("INJECTED"));
    assert_eq!(place.journalled(), [""; 0]);
    let ended = output(&mut place.program(&["recover"])).expect_status(0);
    assert!(
        ended.stderr.contains("nothing to recover"),
        "{}",
        ended.stderr
    );
    assert_eq!(start_times(&scene.stack), times);
    // The control: without the error, the stack is stopped and started.
    place.run().expect_status(0);
    assert_ne!(start_times(&scene.stack), times);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn i5_an_archive_is_synced_before_it_gets_its_name_and_its_directory_after() {
    let scene = Scene::new("stop", 0);
    let trace = Trace::of_a_run(&scene);
    let archive = scene.place.archive(&scene.stack.name);
    let name = archive.file_name().unwrap().to_str().unwrap();
    let dir = archive.parent().unwrap().display().to_string();
    let file = trace.find(0, &["fsync(", &format!("<{dir}/{name}.partial>")]);
    let renamed = trace.find(0, &["renameat2(", &format!("\"{name}.partial\"")]);
    assert!(trace.0[renamed].contains(&format!("\"{name}\"")));
    let synced = trace.find(renamed, &["fsync(", &format!("<{dir}>")]);
    assert!(file < renamed && renamed < synced);
    // The stack is started before, so the syncs do not add to its downtime.
    let start = trace.find(0, &["POST /", "/start"]);
    assert!(start < file);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_unusable_draft_is_removed_after_the_stack_is_up_again() {
    let scene = Scene::new("stop", 0);
    // The run fails on this open file once the stack is down.
    let path = scene.stack.dir.join("bulk");
    let _writer = fs::OpenOptions::new().append(true).open(path).unwrap();
    let trace = Trace::with_status(&scene, 2);
    let stop = trace.find(0, &["POST /", "/stop"]);
    let start = trace.find(stop, &["POST /", "/start"]);
    let removed = trace.find(0, &["unlinkat(", ".tar.partial\""]);
    assert!(start < removed);
    scene.assert_recovered("an unusable draft");
    assert_eq!(scene.place.stored(&scene.stack.name), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_archive_gets_its_name_where_renameat2_and_linkat_fail() {
    let scene = Scene::new("stop", 0);
    let stack = json!({"name": scene.stack.name, "capture": "offline"});
    scene.place.config(json!([stack]), json!({}));
    let inject = ["renameat2:error=EINVAL", "linkat:error=EPERM"].map(|e| format!("inject={e}"));
    let log = scene.place.path("trace");
    let log = log.to_str().unwrap();
    let options = ["-qq", "-o", log, "-e", &inject[0], "-e", &inject[1]];
    let mut command = strace(&scene.place.program(&["run"]), &options);
    output(&mut command).expect_status(0);
    scene.assert_recovered("by a plain rename");
    scene.place.archive(&scene.stack.name);
    // The control: both calls were tried.
    let trace = fs::read_to_string(log).unwrap();
    for call in ["renameat2(", "linkat("] {
        assert!(trace.contains(call), "{trace}");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_before_any_sync_rename_or_removal_is_recovered() {
    let scene = Scene::new("stop", 0);
    let mut points = 0;
    for syscall in ["fsync", "rename", "renameat2", "unlink", "unlinkat"] {
        for n in kill_points() {
            let point = format!("killed before {syscall} {n}");
            let run = scene.place.program(&["run"]);
            let mut command = killed_before(&run, syscall, n);
            let ended = output(&mut command);
            if ended.status != -1 {
                ended.expect_status(0);
                break;
            }
            points += 1;
            output(&mut scene.place.program(&["recover"])).expect_status(0);
            scene.assert_recovered(&point);
            scene.assert_stays_up(Duration::from_millis(300), &point);
        }
    }
    eprintln!("{points} points");
    assert!(points >= if_complete(16).max(1), "{points}");
    let archives = scene.place.stored(&scene.stack.name).len();
    assert!(
        archives >= 5,
        "the complete runs alone make five: {archives}"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn containers_stopped_by_hand_while_the_archive_is_finished_stay_down() {
    let scene = Scene::new("stop", 0);
    let run = scene.place.program(&["run"]);
    let mut command = slowed(&run, "renameat2", 20_000_000);
    let run = Background::spawn(&mut command);
    wait_until("the stack is journalled", || {
        !scene.place.journalled().is_empty()
    });
    wait_until("the journal entry is removed", || {
        scene.place.journalled().is_empty()
    });
    assert_eq!(
        scene.partials().len(),
        1,
        "the archive must not be finished yet"
    );
    assert_eq!(scene.running(), scene.states);
    output(&mut scene.stack.compose(&["stop"])).expect_status(0);
    scene.place.kill_holder();
    run.wait();
    let mut recover = scene.place.program(&["recover", "--json"]);
    let json = output(&mut recover).expect_status(0).json();
    // The control: there was something to recover from.
    assert_eq!(json["interrupted"], "killed");
    assert_eq!(json["recovered"], json!([]));
    assert_eq!(scene.running(), [""; 0]);
    assert_eq!(scene.partials(), [""; 0]);
}
