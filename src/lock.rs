//! At most one run at a time (I9): a flock, which the kernel drops with the
//! process that holds it, however that ends.
//!
//! A second one is inherited by the docker commands that a run starts, and so
//! outlives a run that is killed before its commands have ended. Such a command
//! may still be about to stop or remove containers, and would take down what
//! is started now; so it is waited for.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

/// A command that has not ended by then hangs, or has left something behind
/// that has nothing to do with containers any more.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);

/// Held until dropped.
#[derive(Debug)]
#[allow(dead_code, reason = "held for their drops")]
pub struct Lock {
    run: Flock<File>,
    commands: Option<Flock<File>>,
}

impl Lock {
    /// Creates the state directory (mode 0700) where it is missing.
    ///
    /// # Errors
    /// When another run holds it; the message names its process.
    pub fn take(state_dir: &Path) -> Result<Lock> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .with_context(|| format!("create the state directory {}", state_dir.display()))?;
        let path = state_dir.join("lock");
        match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // For the message of whoever comes second; nothing depends on it.
                let _ = file.set_len(0);
                let _ = write!(file, "{}", std::process::id());
                Ok(Lock {
                    run: file,
                    commands: outwait_commands(&state_dir.join("commands"))?,
                })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
                bail!(
                    "another run is under way (process {pid} holds {})",
                    path.display()
                )
            }
            Err((_, errno)) => {
                Err(anyhow!(errno)).with_context(|| format!("lock {}", path.display()))
            }
        }
    }
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
    use super::*;

    #[test]
    fn a_second_run_is_refused_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let first = Lock::take(&state_dir).unwrap();
        let message = Lock::take(&state_dir).unwrap_err().to_string();
        let expected = format!("another run is under way (process {}", std::process::id());
        assert!(message.starts_with(&expected), "{message}");
        drop(first);
        Lock::take(&state_dir).unwrap();
    }
}
