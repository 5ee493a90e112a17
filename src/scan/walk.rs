//! Walking the trees, several directories at a time.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::Result;

use super::assemble::assemble;
use super::attributes::AttributeSets;
use super::directory::{DirectoryListing, DirectoryReader};
use super::queue::Queue;
use super::state::ScanState;
use super::{Exclude, Inventory, Source};
use crate::sys::threads::spawn_some;

/// Lists everything in the sources. What vanishes meanwhile is left out.
///
/// # Errors
/// When something cannot be read; the message names it. `interrupted`, soon after
/// `cancel` is set.
pub fn scan(
    sources: &[Source],
    exclude: &Exclude,
    exclude_caches: bool,
    cancel: &AtomicBool,
) -> Result<Inventory> {
    let began = (SystemTime::now(), Instant::now());
    let state = ScanState {
        exclude,
        exclude_caches,
        attributes: AttributeSets::default(),
        devices: Mutex::default(),
    };
    let mut reader = DirectoryReader::new(&state, cancel);
    let roots: Vec<DirectoryListing> = sources
        .iter()
        .map(|source| reader.root(source))
        .collect::<Result<_>>()?;
    drop(reader);
    let queue = Queue::new(roots);
    let assembled = std::thread::scope(|scope| {
        let spawned = spawn_some(scope, thread_count(), || {
            queue.run_jobs(sources, &state, cancel);
        });
        let assembled = spawned.and_then(|()| assemble(&queue, sources.len()));
        queue.end();
        assembled
    });
    match queue.take_error() {
        Some(error) => Err(error),
        None => assembled.map(|inventory| Inventory {
            began,
            devices: state
                .devices
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
            attributes: state.attributes.into_sets(),
            ..inventory
        }),
    }
}

/// More threads than processors, because threads wait for cold directories.
fn thread_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (processors * 2).clamp(4, 16)
}
