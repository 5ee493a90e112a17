//! One operation at a time: a flock on a file in the state directory. The
//! kernel releases it with the process that holds it, however that ends.
//!
//! A second lock is inherited by the docker commands that an operation starts.
//! It outlives an operation that is killed before its commands have ended. Such
//! a command may still be about to stop or remove containers, and would take
//! down what the next operation starts; so the next operation waits for it.

mod operation;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use thiserror::Error;

use crate::sys::signals::Signals;

pub use operation::Operation;

/// How long to wait for the commands of a killed operation. A command that runs
/// longer hangs, or has left a process behind that no longer changes
/// containers.
const LEFTOVER_COMMANDS_LIMIT: Duration = Duration::from_secs(600);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often the lock is tried until its file names a holder that is alive. A
/// process that has just taken the lock has not written its name yet, and one
/// that has just ended leaves the lock to the next.
const TRIES: u32 = 10;

/// The lock of the state directory, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    operation: Flock<File>,
    _commands: Option<Flock<File>>,
}

/// Another process holds the lock.
#[derive(Debug, Error)]
pub enum LockHeld {
    #[error("a {} is under way (process {pid} holds {})", .operation.name(), .path.display())]
    By {
        path: PathBuf,
        pid: u32,
        operation: Operation,
    },
    /// The lock file does not name a process that is alive.
    #[error("another command is under way (it holds {})", .path.display())]
    ByUnknown { path: PathBuf },
}

impl LockHeld {
    /// Whether the holder has started what a killed run left stopped, so that
    /// nothing is left to do for `recover`.
    pub fn holder_recovers(&self) -> bool {
        match self {
            LockHeld::By { operation, .. } => operation.begins_with_recovery(),
            LockHeld::ByUnknown { .. } => false,
        }
    }
}

impl Lock {
    /// Takes the lock, and creates the state directory (mode 0700) if it is
    /// missing. A caller that takes the lock for a run or a drill must begin by
    /// recovering, since `recover` relies on that.
    ///
    /// # Errors
    /// [`LockHeld`] when another process holds the lock.
    pub fn take(state_dir: &Path, for_what: Operation) -> Result<Lock> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .with_context(|| {
                format!("cannot create the state directory {}", state_dir.display())
            })?;
        let path = state_dir.join("lock");
        for tried in 0..TRIES {
            if tried > 0 {
                thread::sleep(POLL_INTERVAL);
            }
            let mut file =
                match Flock::lock(open(&path, for_what)?, FlockArg::LockExclusiveNonblock) {
                    Ok(operation) => return Lock::taken(operation, state_dir, for_what),
                    Err((file, Errno::EWOULDBLOCK)) => file,
                    Err((_, errno)) => {
                        return Err(anyhow!(errno))
                            .with_context(|| format!("cannot lock {}", path.display()));
                    }
                };
            if let Some((pid, operation)) = read_holder(&mut file) {
                let held = LockHeld::By {
                    path,
                    pid,
                    operation,
                };
                return Err(held.into());
            }
        }
        Err(LockHeld::ByUnknown { path }.into())
    }

    fn taken(mut operation: Flock<File>, state_dir: &Path, for_what: Operation) -> Result<Lock> {
        // Only for the messages of other processes: the lock itself does not
        // depend on what the file says.
        let _ = operation.set_len(0);
        let _ = write!(operation, "{} {}", std::process::id(), for_what.name());
        Ok(Lock {
            operation,
            _commands: lock_commands(&state_dir.join("commands"), for_what)?,
        })
    }

    /// Whether a command is under way that writes the journal. A command that
    /// cannot be named may be one.
    pub fn is_held_by_journal_writer(state_dir: &Path) -> bool {
        // Without a file, nobody has ever taken the lock.
        let Ok(file) = File::open(state_dir.join("lock")) else {
            return false;
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => false,
            Err((mut file, _)) => {
                read_holder(&mut file).is_none_or(|(_, operation)| operation.writes_journal())
            }
        }
    }

    /// Takes the lock, and waits for its holder where `operation` is one that
    /// waits: a run and a drill wait for every operation except a second
    /// instance of themselves, `recover` waits for those that do not recover
    /// themselves. These three also wait for a holder that is not known.
    ///
    /// # Errors
    /// Those of [`Lock::take`]. A signal ends the wait with an error.
    pub fn wait(state_dir: &Path, operation: Operation, signals: &Signals) -> Result<Lock> {
        let mut is_logged = false;
        loop {
            let error = match Lock::take(state_dir, operation) {
                Ok(lock) => return Ok(lock),
                Err(error) => error,
            };
            let (pid, holder) = match error.downcast_ref() {
                Some(LockHeld::By { pid, operation, .. }) => (Some(*pid), Some(*operation)),
                Some(LockHeld::ByUnknown { .. }) => (None, None),
                None => return Err(error),
            };
            if !operation.waits_for(holder) {
                return Err(error);
            }
            if !is_logged {
                let holder = holder.map_or("command", Operation::name);
                tracing::info!(pid, "waiting for the {holder} that is under way");
                is_logged = true;
            }
            thread::sleep(POLL_INTERVAL);
            signals.check()?;
        }
    }
}

impl Drop for Lock {
    /// Removes the record before the lock is released, so that nobody takes this
    /// process for the holder while it ends.
    fn drop(&mut self) {
        let _ = self.operation.set_len(0);
    }
}

/// Returns the pid and the operation recorded in the lock file, if that process
/// is still alive. A killed holder leaves its record behind.
fn read_holder(file: &mut File) -> Option<(u32, Operation)> {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let (pid, name) = text.split_once(' ')?;
    let operation = Operation::ALL
        .into_iter()
        .find(|operation| operation.name() == name)?;
    let pid = pid.parse().ok()?;
    let is_alive = Path::new(&format!("/proc/{pid}")).exists();
    is_alive.then_some((pid, operation))
}

/// Opens a lock file. `recover` starts stacks even from a file system that cannot
/// be written to (any more).
fn open(path: &Path, for_what: Operation) -> Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    match for_what {
        Operation::Recover => opened.or_else(|error| File::open(path).map_err(|_| error)),
        _ => opened,
    }
    .with_context(|| format!("cannot open {}", path.display()))
}

/// Waits for the commands of a killed operation, and returns the lock that the
/// commands of this one inherit. Returns `None` if the old commands have not
/// ended within [`LEFTOVER_COMMANDS_LIMIT`].
fn lock_commands(path: &Path, for_what: Operation) -> Result<Option<Flock<File>>> {
    let mut file = open(path, for_what)?;
    let began = Instant::now();
    let mut is_logged = false;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                fcntl(&*lock, FcntlArg::F_SETFD(FdFlag::empty()))
                    .with_context(|| format!("cannot make {} inheritable", path.display()))?;
                return Ok(Some(lock));
            }
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => {
                return Err(anyhow!(errno))
                    .with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        if began.elapsed() > LEFTOVER_COMMANDS_LIMIT {
            tracing::warn!(
                waited_secs = LEFTOVER_COMMANDS_LIMIT.as_secs(),
                "docker commands of a killed run are still running; going on without waiting \
                 for them"
            );
            return Ok(None);
        }
        if !is_logged {
            tracing::warn!("waiting for docker commands that a killed run left running");
            is_logged = true;
        }
        thread::sleep(POLL_INTERVAL);
    }
}
