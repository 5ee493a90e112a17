//! The only place that runs other programs: argv logged, no stdin, a process
//! group of its own (so that Ctrl-C reaches this program, not its children),
//! a time limit, and the end of stderr in the error.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sys::signals::Signals;

const POLL: Duration = Duration::from_millis(5);
/// How long output is waited for after a program's end: something that it
/// started, and that is not meant to end, may hold its pipes open.
const LINGER: Duration = Duration::from_secs(5);
/// From SIGTERM to SIGKILL, for a program that is not to go on.
const GRACE: Duration = Duration::from_secs(10);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Success,
    Failure(i32),
    Killed(i32),
    /// Still running at its time limit, and killed for it.
    TimedOut(Duration),
    /// Asked to end before it was done, whatever it says of that: some docker
    /// commands exit with 0 then.
    Interrupted,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Success => write!(f, "success"),
            Exit::Failure(code) => write!(f, "exit status {code}"),
            Exit::Killed(signal) => write!(f, "killed by signal {signal}"),
            Exit::Interrupted => write!(f, "interrupted"),
            Exit::TimedOut(limit) => write!(f, "no end after {} s", limit.as_secs()),
        }
    }
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// For messages.
    command_line: String,
}

impl Output {
    /// The error to show unless the program succeeded: command line, exit and
    /// the last lines it wrote to stderr.
    pub fn check(self) -> Result<Output> {
        if self.exit == Exit::Success {
            return Ok(self);
        }
        bail!(self.complaint())
    }

    pub fn complaint(&self) -> String {
        let stderr = String::from_utf8_lossy(&self.stderr);
        let lines: Vec<&str> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(5)..].join("; ");
        if tail.is_empty() {
            format!("`{}`: {}", self.command_line, self.exit)
        } else {
            format!("`{}`: {}: {tail}", self.command_line, self.exit)
        }
    }
}

/// A command line that is not running yet.
pub struct Program {
    command: Command,
    limit: Duration,
    /// None is ever received, unless told.
    signals: Signals,
}

impl Program {
    pub fn new<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Program {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Program {
            command,
            limit: Duration::from_secs(60),
            signals: Signals::default(),
        }
    }

    /// As a shell goes there: what is written in Go (docker) takes `PWD` for
    /// where it is, symlinks and all, and looks for itself only without it.
    pub fn current_dir(mut self, dir: &Path) -> Program {
        self.command.current_dir(dir).env("PWD", dir);
        self
    }

    pub fn without_env(mut self, name: &OsStr) -> Program {
        self.command.env_remove(name);
        self
    }

    /// Time after which the whole process group is killed; 60 s unless told.
    pub fn limit(mut self, limit: Duration) -> Program {
        self.limit = limit;
        self
    }

    /// When an end is asked for, the program's group is, too (SIGTERM), and
    /// killed if it does not comply.
    pub fn interruptible_by(mut self, signals: &Signals) -> Program {
        self.signals = signals.clone();
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// When the program cannot be started or waited for; how it ended is in
    /// the [`Output`].
    pub fn output(mut self) -> Result<Output> {
        let command_line = self.command_line();
        let began = Instant::now();
        let mut child = self.command.spawn().with_context(|| {
            let program = self.command.get_program().to_string_lossy().into_owned();
            format!("start `{program}` (is it installed, and on PATH?)")
        })?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let exit = self
            .wait(&mut child)
            .with_context(|| format!("wait for `{command_line}`"))?;
        let deadline = Instant::now() + LINGER;
        let output = Output {
            exit,
            stdout: stdout.bytes(deadline),
            stderr: stderr.bytes(deadline),
            command_line,
        };
        let duration_ms = began.elapsed().as_millis() as u64;
        tracing::debug!(command = output.command_line, exit = %exit, duration_ms, "ran");
        Ok(output)
    }

    fn wait(&self, child: &mut Child) -> io::Result<Exit> {
        // Its children hold the pipes open: the group goes, not the leader alone.
        let group = Pid::from_raw(child.id() as i32);
        let began = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                if asked.is_some() {
                    return Ok(Exit::Interrupted);
                }
                return Ok(match (status.code(), status.signal()) {
                    (Some(0), _) => Exit::Success,
                    (Some(code), _) => Exit::Failure(code),
                    (None, signal) => Exit::Killed(signal.unwrap_or(0)),
                });
            }
            if began.elapsed() > self.limit {
                let _ = killpg(group, Signal::SIGKILL);
                child.wait()?;
                return Ok(Exit::TimedOut(self.limit));
            }
            match asked {
                None if self.signals.received().is_some() => {
                    let _ = killpg(group, Signal::SIGTERM);
                    asked = Some(Instant::now());
                }
                Some(asked) if asked.elapsed() > GRACE => {
                    let _ = killpg(group, Signal::SIGKILL);
                }
                _ => {}
            }
            thread::sleep(POLL);
        }
    }

    fn command_line(&self) -> String {
        let words: Vec<OsString> = std::iter::once(self.command.get_program())
            .chain(self.command.get_args())
            .map(OsStr::to_owned)
            .collect();
        words.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }
}

/// A pipe that a thread reads.
struct Drain {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Drain {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let shared = bytes.clone();
    let reader = thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut part = [0; 8 << 10];
        // What was read before an error is worth more than the error.
        loop {
            let count = match pipe.read(&mut part) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.extend_from_slice(&part[..count]);
        }
    });
    Drain { bytes, reader }
}

impl Drain {
    /// All of it; after the deadline, what there is by then. The thread is left
    /// to whoever holds the pipe open.
    fn bytes(self, deadline: Instant) -> Vec<u8> {
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(POLL / 5);
        }
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program::new("sh", ["-c", script])
    }

    #[test]
    fn output_and_exit_status_are_returned() {
        let output = sh("echo out; echo err >&2; exit 3").output().unwrap();
        assert_eq!(output.exit, Exit::Failure(3));
        assert_eq!(output.stdout, b"out\n");
        assert_eq!(
            output.check().unwrap_err().to_string(),
            "`sh -c echo out; echo err >&2; exit 3`: exit status 3: err"
        );
    }

    #[test]
    fn a_program_is_told_by_which_symlink_it_is_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let printed = Program::new("printenv", ["PWD"]).current_dir(&link);
        let printed = printed.output().unwrap().stdout;
        assert_eq!(printed, format!("{}\n", link.display()).into_bytes());
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let began = Instant::now();
        let output = sh("sleep 30 & sleep 30")
            .limit(Duration::from_millis(200))
            .output()
            .unwrap();
        assert_eq!(output.exit, Exit::TimedOut(Duration::from_millis(200)));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_ends_with_this_one_whether_it_likes_or_not() {
        // Asked for once it runs.
        let ends = |script: &str| {
            let dir = tempfile::tempdir().unwrap();
            let runs = dir.path().join("runs");
            let program = sh(&script.replace("RUNS", runs.to_str().unwrap()));
            let signals = Signals::default();
            let began = Instant::now();
            let output = thread::scope(|scope| {
                scope.spawn(|| {
                    while !runs.exists() && began.elapsed() < GRACE {
                        thread::sleep(POLL);
                    }
                    signals.note(Signal::SIGTERM as i32);
                });
                program.interruptible_by(&signals).output().unwrap()
            });
            (output.exit, began.elapsed())
        };
        let (exit, took) = ends("touch RUNS; sleep 30 & sleep 30");
        assert_eq!(exit, Exit::Interrupted);
        assert!(took < GRACE, "{took:?}");
        let (exit, took) = ends("trap 'exit 0' TERM; touch RUNS; sleep 30 & wait");
        assert_eq!(exit, Exit::Interrupted);
        assert!(took < GRACE, "{took:?}");
        let (exit, took) = ends("trap '' TERM; touch RUNS; sleep 30 & sleep 30");
        assert_eq!(exit, Exit::Interrupted);
        assert!((GRACE..GRACE * 2).contains(&took), "{took:?}");
        // The control.
        let output = sh("exit 0")
            .interruptible_by(&Signals::default())
            .output()
            .unwrap();
        assert_eq!(output.exit, Exit::Success);
    }

    #[test]
    fn what_a_program_leaves_behind_with_its_pipes_is_not_waited_for() {
        let began = Instant::now();
        let output = sh("echo out; setsid sleep 20 & exit 0").output().unwrap();
        assert_eq!(output.exit, Exit::Success);
        assert_eq!(output.stdout, b"out\n");
        // The control: it was waited for a while.
        assert!((LINGER..LINGER * 2).contains(&began.elapsed()));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Program::new("no-such-program", ["x"]).output().unwrap_err();
        assert!(format!("{error:#}").starts_with(
            "start `no-such-program` (is it installed, and on PATH?): No such file or directory"
        ));
    }
}
