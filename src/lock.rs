//! At most one run at a time (I9): a flock, which the kernel drops with the
//! process that holds it, however that ends.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held until dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

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
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // For the message of whoever comes second; nothing depends on it.
                let _ = file.set_len(0);
                let _ = write!(file, "{}", std::process::id());
                Ok(Lock(file))
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
