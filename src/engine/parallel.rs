//! Doing the same with several containers at the same time.

use std::thread;

use anyhow::{Result, anyhow};

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
            scope.spawn(move || span.in_scope(|| act(item)))
        };
        let threads: Vec<_> = items.iter().map(begin).collect();
        let end = |thread: thread::ScopedJoinHandle<'_, Result<R>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("panicked")))
        };
        threads.into_iter().map(end).collect()
    })
}
