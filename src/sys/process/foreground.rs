//! A program in the foreground: it has the terminal of this program, its input and its
//! output, and no limit.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Exit;

/// A program that runs. It is in this program's process group, so Ctrl-C reaches both.
pub struct Foreground {
    child: Child,
    name: String,
}

impl Foreground {
    /// Starts a program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Foreground> {
        let child = Command::new(program)
            .args(args)
            .spawn()
            .with_context(|| format!("cannot start `{program}` (is it installed, and on PATH?)"))?;
        Ok(Foreground {
            child,
            name: program.to_owned(),
        })
    }

    /// Asks the program to end.
    pub fn terminate(&self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
    }

    /// Returns how the program has ended, once it has.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn try_wait(&mut self) -> Result<Option<Exit>> {
        let status = self
            .child
            .try_wait()
            .with_context(|| format!("cannot wait for `{}`", self.name))?;
        Ok(status.map(|status| match (status.code(), status.signal()) {
            (Some(0), _) => Exit::Success,
            (Some(code), _) => Exit::Failure(code),
            (None, signal) => Exit::Killed(signal.unwrap_or(0)),
        }))
    }
}
