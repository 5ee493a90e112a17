//! A fault of every kind at the program's calls to the kernel and to the Engine, and
//! what must hold after each. With `KILL_POINTS=all` it prints the table of
//! docs/reliability.md.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::common::kill_points::{is_complete, seed};
use crate::common::scene::{Scene, at_call};
use crate::common::{Background, Ended, output, strace, wait_until};

/// How many points of a cell a complete run tries, evenly spread over its calls.
const POINTS_OF_A_CELL: usize = 12;
/// A run of the lane tries one point of one cell in so many.
const CELLS_FOR_ONE: usize = 4;
const WORKERS: usize = 3;

/// Calls that do the same kind of thing, to the kernel or to the Engine.
struct Calls {
    what: &'static str,
    /// Names for strace; none for the calls to the Engine.
    syscalls: &'static str,
    faults: &'static [Fault],
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The call fails, with this error where the kernel is called.
    Error(&'static str),
    Kill,
    Terminate,
    StopThenKill,
    /// The call takes an hour.
    Hang,
}
use Fault::{Error, Hang, Kill, StopThenKill, Terminate};

const CALLS: [Calls; 9] = [
    Calls {
        what: "open a file",
        syscalls: "openat,openat2",
        faults: &[Error("EIO"), Error("EMFILE"), Kill, Terminate, StopThenKill],
    },
    Calls {
        what: "read a file or a directory",
        syscalls: "pread64,getdents64",
        faults: &[Error("EIO"), Kill, Terminate, StopThenKill, Hang],
    },
    Calls {
        what: "write",
        syscalls: "write,writev,pwrite64,copy_file_range",
        faults: &[Error("EIO"), Error("ENOSPC"), Kill, Terminate, StopThenKill],
    },
    Calls {
        what: "write to the archive, share or move its blocks",
        syscalls: "pwrite64,copy_file_range,ftruncate,fallocate,fadvise64",
        faults: &[Error("EIO"), Error("ENOSPC"), Kill, Hang],
    },
    Calls {
        what: "sync",
        syscalls: "fsync,fdatasync,syncfs,sync_file_range",
        faults: &[Error("EIO"), Error("ENOSPC"), Kill, Terminate, StopThenKill],
    },
    Calls {
        what: "make, rename or remove a file",
        syscalls: "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fchmod,fchown",
        faults: &[Error("EIO"), Error("ENOSPC"), Kill, Terminate, StopThenKill],
    },
    Calls {
        what: "make a thread or a process",
        syscalls: "clone,clone3,vfork",
        faults: &[Error("EAGAIN"), Kill, Terminate, StopThenKill],
    },
    Calls {
        what: "connect",
        syscalls: "socket,connect",
        faults: &[Error("EMFILE"), Error("ECONNREFUSED"), Kill, Terminate],
    },
    Calls {
        what: "ask the Engine, or run `docker`",
        syscalls: "",
        faults: &[Error("status 500 or 1"), Kill, Terminate, StopThenKill],
    },
];

/// What became of the runs of one cell.
#[derive(Default)]
struct Outcomes {
    points: usize,
    succeeded: usize,
    reported: usize,
    died: usize,
    /// Stacks that only `recover` started.
    recovered: usize,
}

impl Calls {
    fn is_of_the_engine(&self) -> bool {
        self.syscalls.is_empty()
    }

    /// Returns how many calls a thread makes at most in a run without a fault.
    fn count(&self, scene: &Scene, fault: Fault) -> usize {
        if self.is_of_the_engine() {
            let (ended, spy) = scene.attempt(&["run"], "");
            ended.unwrap().expect_status(0);
            return spy.calls().len();
        }
        let mut traced = self.traced(scene, "", fault);
        let run = Background::spawn(&mut traced);
        if fault == Hang {
            end_after_a_hang(scene, &run);
        }
        run.end().expect_status(0);
        let mut of_thread = HashMap::new();
        let log = fs::read_to_string(log_of_strace(scene)).unwrap();
        for line in log.lines() {
            let thread = line.split(' ').next().unwrap().to_owned();
            *of_thread.entry(thread).or_insert(0) += 1;
        }
        of_thread.into_values().max().unwrap_or(0)
    }

    /// A run whose own threads are traced, and not those of `docker`. A run that is to
    /// hang is watched by another process, as always, and its worker is traced from its
    /// first request to the Engine on; else a run does everything by itself.
    fn traced(&self, scene: &Scene, inject: &str, fault: Fault) -> Command {
        let log = log_of_strace(scene);
        let _ = fs::remove_file(&log);
        let log = log.to_str().unwrap();
        let trace = format!("trace={}", self.syscalls);
        let mut options = vec!["-qq", "-f", "-b", "execve", "-o", log, "-e", &trace];
        if !inject.is_empty() {
            options.extend(["-e", inject]);
        }
        let mut run = scene.place.program(&["run", "--json"]);
        if fault != Hang {
            return strace(&run, &options);
        }
        let options = options.join("' '");
        let attach = format!(
            "if [ $COUNT = 1 ]; then\n\
             strace '{options}' -p ${{PARENT#* }} </dev/null >/dev/null 2>&1 9>&- &\n\
             echo $! >'{log}.pid'\n\
             until [ -e '{log}' ]; do sleep 0.02; done\nsleep 0.1; fi"
        );
        let spy = scene.place.spy(&attach);
        spy.clear();
        spy.watch(&mut run);
        run
    }

    /// Starts a run with the fault at call `n`.
    fn start(&self, scene: &Scene, fault: Fault, n: usize) -> Background {
        if self.is_of_the_engine() {
            let action = match fault {
                Error(_) => "echo refused >&2; exit 1",
                Kill => "kill -9 $PARENT; exit 1",
                Terminate => "kill -TERM $PARENT",
                StopThenKill => "kill -STOP $PARENT; sleep 0.5; kill -9 $PARENT; exit 1",
                Hang => unreachable!("no cell has it"),
            };
            let spy = scene.place.spy(&at_call(n, action));
            spy.clear();
            let mut run = scene.place.program(&["run", "--json"]);
            return Background::spawn(spy.watch(&mut run));
        }
        let fault_of_strace = match fault {
            Error(name) => format!("error={name}"),
            Kill => "signal=SIGKILL".to_owned(),
            Terminate => "signal=SIGTERM".to_owned(),
            StopThenKill => "signal=SIGSTOP".to_owned(),
            Hang => "delay_enter=3600s".to_owned(),
        };
        let inject = format!("inject={}:{fault_of_strace}:when={n}", self.syscalls);
        Background::spawn(&mut self.traced(scene, &inject, fault))
    }

    /// Kills a run that the fault has stopped. A run that was not stopped is left alone.
    fn kill_when_stopped(scene: &Scene, run: &Background) {
        let is_stopped = || {
            let log = fs::read_to_string(log_of_strace(scene)).unwrap_or_default();
            log.contains("stopped by SIGSTOP")
        };
        wait_until("the run stops or ends", || is_stopped() || run.has_ended());
        let children = format!("/proc/{0}/task/{0}/children", run.pid());
        for child in fs::read_to_string(children)
            .unwrap_or_default()
            .split_whitespace()
        {
            let _ = kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL);
        }
    }
}

/// Waits until a run has ended that has given its worker up. strace 6.1 keeps a thread
/// that it delays from ending, and with it the run's output open.
fn end_after_a_hang(scene: &Scene, run: &Background) {
    wait_until("the run ends", || run.has_ended());
    let pid = fs::read_to_string(scene.place.path("trace.pid")).unwrap();
    let _ = kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL);
}

fn log_of_strace(scene: &Scene) -> PathBuf {
    scene.place.path("trace")
}

/// A stack with one archive, which no fault may harm.
struct Subject {
    scene: Scene,
    old: (PathBuf, Vec<u8>),
}

impl Subject {
    fn new() -> Subject {
        let scene = Scene::new("stop", 0);
        let stack = json!({"name": scene.stack.name, "downLimit": 20, "stallLimit": 20});
        scene.place.config(json!([stack]), json!({}));
        scene.place.run().expect_status(0);
        let path = scene.place.archive(&scene.stack.name);
        let old = (path.clone(), fs::read(path).unwrap());
        Subject { scene, old }
    }

    /// Tries one point, and checks everything that must hold.
    fn try_point(&self, calls: &Calls, fault: Fault, n: usize, outcomes: &mut Outcomes) {
        let Subject { scene, old } = self;
        let point = format!("{}, {}, call {n}", calls.what, name(fault));
        eprintln!("{point}");
        self.remove_new_archives();
        let run = calls.start(scene, fault, n);
        if fault == StopThenKill && !calls.is_of_the_engine() {
            Calls::kill_when_stopped(scene, &run);
        }
        if fault == Hang {
            end_after_a_hang(scene, &run);
        }
        let ended = run.end();
        let is_up = scene.running() == scene.states;
        let archives = || scene.place.stored(&scene.stack.name);
        outcomes.points += 1;
        match ended.status {
            0 => {
                outcomes.succeeded += 1;
                // No report is better than the truth.
                assert!(is_up, "{point}: {}", shown(&ended));
                let tars = archives().into_iter().filter(|name| name.ends_with(".tar"));
                assert_eq!(tars.count(), 2, "{point}: {}", shown(&ended));
            }
            // The dynamic linker says so when it cannot load the program.
            1..=3 | 127 => {
                outcomes.reported += 1;
                assert!(is_up || ended.status == 3, "{point}: {}", shown(&ended));
                assert!(
                    !ended.stderr.contains("panicked"),
                    "{point}: {}",
                    shown(&ended)
                );
            }
            _ => {
                outcomes.died += 1;
                // SIGTERM ends the program until it has a handler.
                let may_die = matches!(fault, Kill | StopThenKill) || fault == Terminate && is_up;
                assert!(may_die, "{point}: {}", shown(&ended));
            }
        }
        outcomes.recovered += usize::from(!is_up);
        let recovered = output(&mut scene.place.program(&["recover", "--json"]));
        assert_eq!(recovered.status, 0, "{point}: {}", shown(&recovered));
        scene.assert_recovered(&point);
        scene.assert_stays_up(Duration::from_millis(200), &point);
        assert!(
            fs::read(&old.0).unwrap() == old.1,
            "{point}: the old archive"
        );
        let verified = output(&mut scene.place.program(&["verify", &scene.stack.name]));
        assert_eq!(verified.status, 0, "{point}: {}", shown(&verified));
    }

    fn remove_new_archives(&self) {
        let dir = self.old.0.parent().unwrap();
        let old = self.old.0.file_name().unwrap().to_str().unwrap();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if !entry.file_name().to_str().unwrap().starts_with(old) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

fn shown(ended: &Ended) -> String {
    format!("{}\n{}\n{}", ended.status, ended.stdout, ended.stderr)
}

fn name(fault: Fault) -> String {
    match fault {
        Error(name) => format!("error: {name}"),
        Kill => "SIGKILL".to_owned(),
        Terminate => "SIGTERM".to_owned(),
        StopThenKill => "SIGSTOP, then SIGKILL".to_owned(),
        Hang => "hangs".to_owned(),
    }
}

/// Chooses the calls to try from `count`.
fn points(count: usize, random: usize) -> Vec<usize> {
    if !is_complete() {
        return vec![1 + random % count];
    }
    let chosen = POINTS_OF_A_CELL.min(count);
    (0..chosen).map(|i| 1 + i * count / chosen).collect()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn no_fault_at_any_call_leaves_a_stack_down_or_harms_an_archive() {
    let cells: Vec<(&Calls, Fault)> = CALLS
        .iter()
        .flat_map(|calls| calls.faults.iter().map(move |fault| (calls, *fault)))
        .collect();
    let wanted = std::env::var("MATRIX_CELL").unwrap_or_default();
    let (seed, next) = (seed(), AtomicUsize::new(0));
    let table = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let subject = Subject::new();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some((calls, fault)) = cells.get(i) else { break };
                    let is_chosen = is_complete() || i % CELLS_FOR_ONE == seed % CELLS_FOR_ONE;
                    let label = format!("| {} | {} |", calls.what, name(*fault));
                    if !is_chosen || !label.contains(&wanted) {
                        continue;
                    }
                    subject.remove_new_archives();
                    let count = calls.count(&subject.scene, *fault);
                    assert!(count > 0, "no call to {}", calls.what);
                    let mut outcomes = Outcomes::default();
                    for n in points(count, seed / CELLS_FOR_ONE) {
                        subject.try_point(calls, *fault, n, &mut outcomes);
                    }
                    let Outcomes { points, succeeded, reported, died, recovered } = outcomes;
                    let row = format!("{label} {count} | {points} | {succeeded} | {reported} | {died} | {recovered} |");
                    eprintln!("{row}");
                    table.lock().unwrap().push((i, row, points, reported + died));
                }
            });
        }
    });
    let mut table = table.into_inner().unwrap();
    table.sort();
    for (_, row, ..) in &table {
        println!("{row}");
    }
    // A hang that nobody noticed would have lasted an hour. The controls: there were
    // points, and faults had effects.
    let tried: usize = table.iter().map(|row| row.2).sum();
    let failed: usize = table.iter().map(|row| row.3).sum();
    assert!(
        tried >= if is_complete() { 300 } else { 1 } || !wanted.is_empty(),
        "{tried}"
    );
    assert!(
        !is_complete() || failed > tried / 4 || !wanted.is_empty(),
        "{failed} of {tried}"
    );
}
