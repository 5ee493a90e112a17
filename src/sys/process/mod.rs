//! The only module that runs other programs. Each gets no stdin, a process group
//! of its own (so that Ctrl-C reaches this program and not its children), and
//! limits of time, memory and output. Its command line is logged, and the end of
//! its stderr is part of the error.

mod foreground;
mod marked;
mod pipe;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, geteuid};
use rustix::fs::{Access, access};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, set_parent_process_death_signal, setrlimit};
use thiserror::Error;

use crate::sys::signals::Signals;
pub use foreground::Foreground;
pub use marked::end_marked;
use pipe::PipeReader;

const DEFAULT_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long output is waited for after a program has ended. A daemon that the
/// program started may hold its pipes open for ever.
const OUTPUT_WAIT: Duration = Duration::from_secs(5);
/// How long a program that was killed is waited for. It ends later if it waits for what
/// cannot be interrupted, such as a mount that does not answer.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Time from SIGTERM to SIGKILL for a program that is interrupted.
const SIGTERM_GRACE: Duration = Duration::from_secs(10);
/// Where programs of the host are found if this program has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many lines of stderr are part of an error, and how much of each.
const ERROR_LINES: usize = 5;
const ERROR_LINE_CHARS: usize = 1000;
/// The first descriptor after stdin, stdout and stderr.
const FIRST_INHERITABLE: libc::c_uint = 3;
/// Where the kernel cannot mark all descriptors at once (before Linux 5.11), those below
/// this one are. This process opens those that it wants to be inherited when it begins,
/// so they have low numbers.
const MARKED_ONE_BY_ONE: libc::c_uint = 256;
/// How much a program may print, to stdout and to stderr.
pub const OUTPUT_LIMIT: usize = 64 << 20;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Success,
    /// The exit status, not 0.
    Failure(i32),
    /// The signal that killed it.
    Killed(i32),
    /// It was still running at its time limit, and was killed.
    TimedOut(Duration),
    /// It printed more than it may, and was killed.
    TooMuchOutput,
    /// It was asked to end early. Its exit status does not matter: some docker
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
            Exit::TooMuchOutput => {
                write!(f, "printed more than {} MiB, killed", OUTPUT_LIMIT >> 20)
            }
            Exit::TimedOut(limit) => {
                write!(f, "still running after {} s, killed", limit.as_secs())
            }
        }
    }
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    command_line: String,
}

/// A program ended without success. The message has its command line, how it
/// ended, and the last lines of its stderr.
#[derive(Debug, Error)]
#[error("`{command_line}`: {exit}{}", last_lines(.stderr))]
pub struct ProgramFailed {
    command_line: String,
    exit: Exit,
    stderr: Vec<u8>,
}

fn last_lines(stderr: &[u8]) -> String {
    let stderr = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
    match &lines[lines.len().saturating_sub(ERROR_LINES)..] {
        [] => String::new(),
        last => {
            let cut = |line: &&str| line.chars().take(ERROR_LINE_CHARS).collect::<String>();
            format!(": {}", last.iter().map(cut).collect::<Vec<_>>().join("; "))
        }
    }
}

impl Output {
    /// Returns how the program ended, and the end of its stderr, apart from each
    /// other.
    pub fn failure(&self) -> Option<(String, String)> {
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        (self.exit != Exit::Success).then(|| (self.exit.to_string(), stderr))
    }

    /// # Errors
    /// [`ProgramFailed`], unless the program succeeded.
    pub fn check(self) -> Result<Output> {
        if self.exit == Exit::Success {
            return Ok(self);
        }
        Err(ProgramFailed {
            command_line: self.command_line,
            exit: self.exit,
            stderr: self.stderr,
        }
        .into())
    }
}

/// A command line that is not running yet.
pub struct Program {
    command: Command,
    /// The program and its arguments, as logs and errors show them.
    name: String,
    args: String,
    limit: Duration,
    /// Without [`Program::interruptible_by`] these never arrive.
    signals: Signals,
    /// Called again and again until the program has ended.
    while_waiting: fn(),
    /// Whether it is asked to end at its limit, before it is killed.
    ends_gently: bool,
}

impl Program {
    pub fn new<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Program {
        Program::with_options::<S>(program, [], args)
    }

    /// Prepares a program with options that stand before the others and need not be
    /// shown in logs and errors.
    pub fn with_options<S: AsRef<OsStr>>(
        program: &str,
        options: impl IntoIterator<Item = OsString>,
        args: impl IntoIterator<Item = S>,
    ) -> Program {
        let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let shown_args = args.join(OsStr::new(" "));
        let mut command = Command::new(find(program).as_deref().unwrap_or(program.as_ref()));
        command
            .args(options)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Program {
            command,
            name: program.to_owned(),
            args: shown_args.to_string_lossy().into_owned(),
            limit: DEFAULT_LIMIT,
            signals: Signals::default(),
            while_waiting: || {},
            ends_gently: false,
        }
    }

    /// Shows another name of the program in logs and errors.
    pub fn shown_as(mut self, name: &str) -> Program {
        name.clone_into(&mut self.name);
        self
    }

    /// Runs the program in `dir`, and sets `PWD` as a shell does. Programs
    /// written in Go (docker) take their directory from `PWD`, symlinks
    /// included, and ask the kernel only if it is not set.
    pub fn current_dir(mut self, dir: &Path) -> Program {
        self.command.current_dir(dir).env("PWD", dir);
        self
    }

    /// Adds a variable to the environment.
    pub fn env(mut self, name: &str, value: &str) -> Program {
        self.command.env(name, value);
        self
    }

    /// Gives the program these environment variables and no other.
    pub fn only_env(
        mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, OsString)>,
    ) -> Program {
        self.command.env_clear().envs(variables);
        self
    }

    /// Runs the program as a user, with the user's primary group and no other.
    pub fn user(self, user: &User) -> Program {
        self.user_ids(user.uid.as_raw(), user.gid.as_raw())
    }

    /// Runs the program as the user and the group with these numbers, without any other
    /// group.
    pub fn user_ids(mut self, uid: u32, gid: u32) -> Program {
        self.command.uid(uid).gid(gid);
        self
    }

    /// Closes every file of this process that the program would inherit, such as a lock.
    /// A user who runs a program can keep what it has open.
    #[allow(unsafe_code)]
    pub fn inherits_nothing(mut self) -> Program {
        // SAFETY: between fork and exec, the closure makes system calls only. It
        // allocates nothing and takes no lock. Three integers go into close_range(2),
        // which reads and writes no memory. A descriptor that is borrowed may not be
        // open; then the call fails, which does not matter.
        unsafe {
            self.command.pre_exec(|| {
                let marked = libc::syscall(
                    libc::SYS_close_range,
                    FIRST_INHERITABLE,
                    libc::c_uint::MAX,
                    libc::CLOSE_RANGE_CLOEXEC,
                );
                if marked == 0 {
                    return Ok(());
                }
                for descriptor in FIRST_INHERITABLE..MARKED_ONE_BY_ONE {
                    let descriptor = BorrowedFd::borrow_raw(descriptor as i32);
                    let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
                }
                Ok(())
            });
        }
        self
    }

    /// Has the kernel kill the program when the thread that runs it ends, so that it does
    /// not outlive a process that is killed. The programs that it has started go on.
    #[allow(unsafe_code)]
    pub fn killed_with_this_thread(mut self) -> Program {
        // SAFETY: between fork and exec, the closure makes one system call. It allocates
        // nothing and takes no lock.
        unsafe {
            self.command.pre_exec(|| {
                set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                Ok(())
            });
        }
        self
    }

    /// Calls `step` again and again until the program has ended, or its limit has passed.
    pub fn while_waiting(mut self, step: fn()) -> Program {
        self.while_waiting = step;
        self
    }

    /// Limits the memory of the program and of each program that it starts. No core
    /// is dumped when it ends because of that.
    #[allow(unsafe_code)]
    pub fn memory_limit(mut self, bytes: u64) -> Program {
        let limit = |resource, most| {
            let limits = Rlimit {
                current: Some(most),
                maximum: Some(most),
            };
            setrlimit(resource, limits)
        };
        // SAFETY: between fork and exec, the closure makes two system calls. It
        // allocates nothing and takes no lock.
        unsafe {
            self.command.pre_exec(move || {
                limit(Resource::Data, bytes)?;
                Ok(limit(Resource::Core, 0)?)
            });
        }
        self
    }

    /// Sets the time after which the whole process group is killed. The default
    /// is 60 s.
    pub fn limit(mut self, limit: Duration) -> Program {
        self.limit = limit;
        self
    }

    /// Sends the process group SIGTERM at the limit, and SIGKILL if it has not ended after a
    /// grace period of 10 s. What the program has started ends with it then.
    pub fn ends_gently(mut self) -> Program {
        self.ends_gently = true;
        self
    }

    /// Sends the process group SIGTERM when one of `signals` arrives, and
    /// SIGKILL if it has not ended after a grace period of 10 s.
    pub fn interruptible_by(mut self, signals: &Signals) -> Program {
        self.signals = signals.clone();
        self
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// When the program cannot be started or waited for. How it ended is in the
    /// [`Output`].
    pub fn output(mut self) -> Result<Output> {
        let command_line = format!("{} {}", self.name, self.args).trim_end().to_owned();
        let began = Instant::now();
        let mut child = self.command.spawn().with_context(|| {
            format!(
                "cannot start `{}` (is it installed, and on PATH?)",
                self.name
            )
        })?;
        let stdout = PipeReader::start(child.stdout.take(), OUTPUT_LIMIT);
        let stderr = PipeReader::start(child.stderr.take(), OUTPUT_LIMIT);
        let (stdout, stderr) = match (stdout, stderr) {
            (Ok(stdout), Ok(stderr)) => (stdout, stderr),
            (Err(error), _) | (_, Err(error)) => {
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                child.wait()?;
                return Err(error).with_context(|| format!("cannot run `{command_line}`"));
            }
        };
        let exit = self
            .wait(&mut child, &|| stdout.is_over() || stderr.is_over())
            .with_context(|| format!("cannot wait for `{command_line}`"))?;
        let deadline = Instant::now() + OUTPUT_WAIT;
        let output = Output {
            exit,
            stdout: stdout.finish(deadline),
            stderr: stderr.finish(deadline),
            command_line,
        };
        let duration_ms = began.elapsed().as_millis() as u64;
        tracing::debug!(command = output.command_line, exit = %exit, duration_ms, "command ended");
        Ok(output)
    }

    fn wait(&self, child: &mut Child, prints_too_much: &dyn Fn() -> bool) -> io::Result<Exit> {
        // Signals go to the whole group: children of the program hold its pipes
        // open, too.
        let group = Pid::from_raw(child.id() as i32);
        let began = Instant::now();
        let mut terminated: Option<(Instant, Exit)> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                if let Some((_, reason)) = terminated {
                    if self.ends_gently {
                        // What it started may go on.
                        let _ = killpg(group, Signal::SIGKILL);
                    }
                    return Ok(reason);
                }
                return Ok(match (status.code(), status.signal()) {
                    _ if prints_too_much() => Exit::TooMuchOutput,
                    (Some(0), _) => Exit::Success,
                    (Some(code), _) => Exit::Failure(code),
                    (None, signal) => Exit::Killed(signal.unwrap_or(0)),
                });
            }
            let is_late = began.elapsed() > self.limit;
            let reason = match terminated {
                Some((at, reason)) if at.elapsed() > SIGTERM_GRACE => Some(reason),
                _ if prints_too_much() => Some(Exit::TooMuchOutput),
                _ if is_late && !self.ends_gently => Some(Exit::TimedOut(self.limit)),
                _ => None,
            };
            if let Some(reason) = reason {
                let _ = killpg(group, Signal::SIGKILL);
                reap(child)?;
                return Ok(reason);
            }
            (self.while_waiting)();
            let why_end = match self.signals.received() {
                Some(_) => Some(Exit::Interrupted),
                None => is_late.then_some(Exit::TimedOut(self.limit)),
            };
            if let (None, Some(why)) = (terminated, why_end) {
                let _ = killpg(group, Signal::SIGTERM);
                terminated = Some((Instant::now(), why));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Waits for a program that was killed, unless it does not end.
fn reap(child: &mut Child) -> io::Result<()> {
    let deadline = Instant::now() + KILL_WAIT;
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Finds a program on this program's `PATH`, so that the other program needs none.
fn find(program: &str) -> Option<OsString> {
    if program.contains('/') {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_absolute() && is_executable(candidate));
    found.map(Into::into)
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// Returns the variables that each program of the host gets: the `PATH` of this program,
/// and the home directory of the user who runs it, who is `user` or that of this process.
pub fn host_environment(user: Option<&User>) -> [(String, OsString); 2] {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let own = || User::from_uid(geteuid()).ok().flatten();
    let home = user.cloned().or_else(own).map(|user| user.dir);
    let home = home.unwrap_or_else(|| "/".into()).into_os_string();
    [("PATH".to_owned(), path), ("HOME".to_owned(), home)]
}

/// Returns the directory in which a program is found.
pub fn directory_of(program: &str) -> Option<OsString> {
    let found = find(program)?;
    Path::new(&found)
        .parent()
        .map(|dir| dir.as_os_str().to_owned())
}
