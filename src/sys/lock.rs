//! At most one run at a time (I9): a flock, which the kernel drops with the
//! process that holds it, however that ends.
//!
//! A second one is inherited by the docker commands that a run starts, and so
//! outlives a run that is killed before its commands have ended. Such a command
//! may still be about to stop or remove containers, and would take down what
//! is started now; so it is waited for.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

use crate::sys::signals::Signals;

/// A command that has not ended by then hangs, or has left something behind
/// that has nothing to do with containers any more.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked who holds the lock: who has just taken it has not
/// said so yet.
const HOLDER_LOOKS: u32 = 10;

/// What the lock is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Run,
    Drill,
    Restore,
    Verify,
    Prune,
    Recover,
}

impl Operation {
    const ALL: [Operation; 6] = [
        Operation::Run,
        Operation::Drill,
        Operation::Restore,
        Operation::Verify,
        Operation::Prune,
        Operation::Recover,
    ];

    fn name(self) -> &'static str {
        match self {
            Operation::Run => "run",
            Operation::Drill => "drill",
            Operation::Restore => "restore",
            Operation::Verify => "verify",
            Operation::Prune => "prune",
            Operation::Recover => "recover",
        }
    }

    /// Its holder began by starting what was left stopped.
    fn has_recovered(self) -> bool {
        matches!(self, Operation::Run | Operation::Drill)
    }

    /// What nobody sits in front of waits for all but its like: a run that is
    /// due at night is not to be gone without for a `verify`. Who waits holds
    /// nothing.
    fn waits_for(self, holder: Operation) -> bool {
        match self {
            Operation::Run | Operation::Drill => self != holder,
            Operation::Recover => !holder.has_recovered(),
            Operation::Restore | Operation::Verify | Operation::Prune => false,
        }
    }
}

/// LockHeld until dropped.
#[derive(Debug)]
#[allow(dead_code, reason = "held for their drops")]
pub struct Lock {
    run: Flock<File>,
    commands: Option<Flock<File>>,
}

/// Why the lock could not be taken.
#[derive(Debug)]
pub struct LockHeld {
    path: PathBuf,
    /// `None` if it does not say who it is.
    holder: Option<(u32, Operation)>,
}

impl LockHeld {
    /// Whether there is nothing to do for `recover`.
    pub fn has_recovered(&self) -> bool {
        self.holder.is_some_and(|(_, work)| work.has_recovered())
    }
}

impl fmt::Display for LockHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.holder {
            Some((pid, work)) => write!(
                f,
                "a {} is under way (process {pid} holds {path})",
                work.name()
            ),
            None => write!(f, "another command is under way (it holds {path})"),
        }
    }
}

impl std::error::Error for LockHeld {}

impl Lock {
    /// Creates the state directory (mode 0700) where it is missing. Who takes
    /// the lock for a run or a drill must begin by recovering.
    ///
    /// # Errors
    /// A [`LockHeld`] when another command holds it; the message says which.
    pub fn take(state_dir: &Path, work: Operation) -> Result<Lock> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .with_context(|| format!("create the state directory {}", state_dir.display()))?;
        let path = state_dir.join("lock");
        match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // For whoever comes second; that there is only one does not
                // depend on it.
                let _ = file.set_len(0);
                let _ = write!(file, "{} {}", std::process::id(), work.name());
                Ok(Lock {
                    run: file,
                    commands: outwait_commands(&state_dir.join("commands"))?,
                })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let holder = holder(&mut file);
                Err(LockHeld { path, holder }.into())
            }
            Err((_, errno)) => {
                Err(anyhow!(errno)).with_context(|| format!("lock {}", path.display()))
            }
        }
    }

    /// Waits for what `work` waits for: a run and a drill for all but their
    /// like, `recover` for what has not recovered itself.
    ///
    /// # Errors
    /// As [`Lock::take`]; and when a signal ends the wait.
    pub fn wait(state_dir: &Path, work: Operation, signals: &Signals) -> Result<Lock> {
        let mut is_told = false;
        loop {
            let error = match Lock::take(state_dir, work) {
                Ok(lock) => return Ok(lock),
                Err(error) => error,
            };
            let holder = error
                .downcast_ref::<LockHeld>()
                .and_then(|held| held.holder);
            let Some((pid, holder)) = holder.filter(|(_, holder)| work.waits_for(*holder)) else {
                return Err(error);
            };
            if !is_told {
                tracing::info!(pid, "waiting for the {} that is under way", holder.name());
                is_told = true;
            }
            thread::sleep(LOOK);
            signals.check()?;
        }
    }
}

/// Who says in the lock's file that he holds it, and still runs; what a killed
/// one has left there does not count.
fn holder(file: &mut File) -> Option<(u32, Operation)> {
    for look in 0..HOLDER_LOOKS {
        if look > 0 {
            thread::sleep(LOOK);
        }
        let mut text = String::new();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        let said = text.split_once(' ').and_then(|(pid, name)| {
            let work = Operation::ALL
                .into_iter()
                .find(|work| work.name() == name)?;
            Some((pid.parse().ok()?, work))
        });
        if let Some((pid, _)) = said
            && Path::new(&format!("/proc/{pid}")).exists()
        {
            return said;
        }
    }
    None
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// Returns the lock that this run's own commands inherit; `None` when those of
/// a killed run still have it after a long time.
fn outwait_commands(path: &Path) -> Result<Option<Flock<File>>> {
    let mut file = open(path)?;
    let began = Instant::now();
    let mut is_told = false;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                fcntl(&*lock, FcntlArg::F_SETFD(FdFlag::empty()))
                    .with_context(|| format!("have commands inherit {}", path.display()))?;
                return Ok(Some(lock));
            }
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => {
                return Err(anyhow!(errno)).with_context(|| format!("lock {}", path.display()));
            }
        };
        if began.elapsed() > LEFTOVERS_LIMIT {
            tracing::warn!("commands of a killed run have not ended, going on");
            return Ok(None);
        }
        if !is_told {
            tracing::warn!("waiting for the docker commands that a killed run left");
            is_told = true;
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_second_run_is_refused_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let first = Lock::take(&state_dir, Operation::Run).unwrap();
        let message = Lock::take(&state_dir, Operation::Run)
            .unwrap_err()
            .to_string();
        let expected = format!("a run is under way (process {}", std::process::id());
        assert!(message.starts_with(&expected), "{message}");
        drop(first);
        Lock::take(&state_dir, Operation::Run).unwrap();
    }

    #[test]
    fn what_has_a_timer_waits_for_all_but_its_like_and_what_is_typed_for_nothing() {
        use Operation::*;
        let waits = |work| match work {
            Run => vec![Drill, Restore, Verify, Prune, Recover],
            Drill => vec![Run, Restore, Verify, Prune, Recover],
            Recover => vec![Restore, Verify, Prune, Recover],
            Restore | Verify | Prune => vec![],
        };
        let pairs = Operation::ALL.map(|work| Operation::ALL.map(|holder| (work, holder)));
        thread::scope(|scope| {
            for (work, holder) in pairs.into_iter().flatten() {
                let is_waited_for = waits(work).contains(&holder);
                scope.spawn(move || assert_waits(work, holder, is_waited_for));
            }
        });
    }

    fn assert_waits(work: Operation, holder: Operation, is_waited_for: bool) {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), holder).unwrap();
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let taken = Lock::wait(dir.path(), work, &Signals::default());
                sender.send(taken.map(drop).map_err(|error| error.to_string()))
            });
            let early = receiver.recv_timeout(LOOK * 3).ok();
            drop(first);
            if is_waited_for {
                assert_eq!(early, None, "{work:?} waits for {holder:?}");
                assert_eq!(receiver.recv(), Ok(Ok(())));
            } else {
                let said = format!("a {} is under way (process ", holder.name());
                let error = early.and_then(Result::err).unwrap();
                assert!(error.starts_with(&said), "{work:?}: {error}");
            }
        });
    }

    #[test]
    fn what_a_killed_holder_wrote_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Lock::take(dir.path(), Operation::Run).unwrap();
        let refusal = || Lock::take(dir.path(), Operation::Prune).unwrap_err();
        let has_recovered = || {
            refusal()
                .downcast_ref::<LockHeld>()
                .unwrap()
                .has_recovered()
        };
        // The control.
        assert!(has_recovered());
        // No process has a number as great (proc_sys_kernel(5), pid_max).
        for text in [
            "",
            "7",
            "4194305 run",
            "4194305 drill",
            "1 verify",
            "1 walk",
        ] {
            fs::write(dir.path().join("lock"), text).unwrap();
            assert!(!has_recovered(), "{text}");
        }
        fs::write(dir.path().join("lock"), "1 drill").unwrap();
        assert!(has_recovered());
    }
}
