//! Threads that are done without where the system has no room for one (clone(2) fails
//! with `EAGAIN`: a full pids cgroup, as `TasksMax=` makes one).

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use anyhow::{Context as _, Result};

/// Work that was begun by [`spawn_or_run`].
pub enum Spawned<'scope, T> {
    Thread(ScopedJoinHandle<'scope, T>),
    Done(T),
}

impl<T> Spawned<'_, T> {
    /// Waits for the result. A panic of the work goes on here.
    pub fn join(self) -> T {
        match self {
            Spawned::Thread(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Spawned::Done(result) => result,
        }
    }
}

/// Does `work` in a thread of `scope`, or, where there cannot be one, here and now.
pub fn spawn_or_run<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Spawned<'scope, T> {
    // A thread that cannot be started drops what it was given.
    let shared = Arc::new(Mutex::new(Some(work)));
    let take = |shared: &Mutex<Option<_>>| {
        let work = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.expect("the work is done once")
    };
    let own = shared.clone();
    match Builder::new().spawn_scoped(scope, move || take(&own)()) {
        Ok(thread) => Spawned::Thread(thread),
        Err(error) => {
            tracing::debug!("no room for another thread: {error}");
            Spawned::Done(take(&shared)())
        }
    }
}

/// Starts as many of `count` threads as there is room for, all with the same work.
///
/// # Errors
/// When there is no room for a single one.
pub fn spawn_some<'scope, W: Fn() + Clone + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    work: W,
) -> Result<()> {
    for number in 0..count {
        if let Err(error) = Builder::new().spawn_scoped(scope, work.clone()) {
            if number == 0 {
                return Err(error).context("cannot start a thread");
            }
            tracing::debug!("no room for more than {number} threads: {error}");
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_once_and_its_result_comes_back() {
        let sum = std::thread::scope(|scope| {
            let works = (1..=4).map(|number| spawn_or_run(scope, move || number * 10));
            works
                .collect::<Vec<_>>()
                .into_iter()
                .map(Spawned::join)
                .sum::<i32>()
        });
        assert_eq!(sum, 100);
    }
}
