//! Doing the same with several containers at the same time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use anyhow::{Result, anyhow};

use crate::sys::threads::{Spawned, spawn_or_run};

/// Calls `act` with each of the items, each in a thread of its own, and returns
/// the results in the order of the items. A panic becomes an error.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    act: impl Fn(&T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let span = tracing::Span::current();
    thread::scope(|scope| {
        let begin = |item| {
            let (span, act) = (span.clone(), &act);
            spawn_or_run(scope, move || {
                let act = AssertUnwindSafe(|| span.in_scope(|| act(item)));
                catch_unwind(act).unwrap_or_else(|_| Err(anyhow!("panicked")))
            })
        };
        let begun: Vec<_> = items.iter().map(begin).collect();
        begun.into_iter().map(Spawned::join).collect()
    })
}
