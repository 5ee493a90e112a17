//! The directories that a scan still has to list, and the listings that are
//! ready to be assembled.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;

use super::Source;
use super::directory::{DirectoryListing, DirectoryReader, joined};
use super::state::ScanState;

/// The assembling thread is woken when the finished listings hold this many
/// entries, or when all are finished: waking it for each would cost more.
pub(crate) const BATCH_COUNT: usize = 8192;

/// A directory to be listed.
struct Job {
    source: usize,
    rel: Vec<u8>,
    /// Index of its listing in [`Work::listings`].
    slot: usize,
}

#[derive(Default)]
struct Work {
    /// The last job is done next; it comes first in the archive.
    jobs: Vec<Job>,
    /// One slot for each directory; filled while its listing is finished but not
    /// yet assembled.
    listings: Vec<Option<Box<DirectoryListing>>>,
    /// Entries in `listings`.
    entry_count: usize,
    /// The slot that the assembling thread waits for.
    wanted: Option<usize>,
    busy_count: usize,
    /// All jobs are done, or the scan has failed.
    ended: bool,
    error: Option<anyhow::Error>,
}

#[derive(Default)]
pub(crate) struct Queue {
    work: Mutex<Work>,
    /// Signalled when there are new jobs, or there will be none.
    jobs: Condvar,
    /// Signalled when the wanted listing is finished, or never will be.
    listed: Condvar,
}

impl Queue {
    /// Starts with the listings of the sources' roots, which get the first slots.
    pub(crate) fn new(roots: Vec<DirectoryListing>) -> Queue {
        let queue = Queue::default();
        let mut work = queue.lock();
        work.listings.resize_with(roots.len(), || None);
        for (slot, root) in roots.into_iter().enumerate().rev() {
            queue.finish(&mut work, slot, b"", slot, root);
        }
        drop(work);
        queue
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does jobs until there are none. Several threads run this.
    pub(crate) fn run_jobs(&self, sources: &[Source], state: &ScanState<'_>, cancel: &AtomicBool) {
        let mut reader = DirectoryReader::new(state, cancel);
        reader.unshare_working_directory();
        let mut work = self.lock();
        while !work.ended {
            let Some(job) = work.jobs.pop() else {
                if work.busy_count == 0 {
                    self.end_locked(&mut work);
                    return;
                }
                work = self.jobs.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            work.busy_count += 1;
            drop(work);
            // A panic must end the scan: the other threads would wait for this
            // thread's listing for ever.
            let list = || reader.list(&sources[job.source], &job.rel);
            let listed = panic::catch_unwind(AssertUnwindSafe(list))
                .unwrap_or_else(|_| Err(anyhow!("the scan panicked (see stderr): this is a bug")));
            work = self.lock();
            work.busy_count -= 1;
            match listed {
                Ok(listing) => self.finish(&mut work, job.slot, &job.rel, job.source, listing),
                Err(error) => {
                    work.error.get_or_insert(error);
                    self.end_locked(&mut work);
                }
            }
        }
    }

    /// Ends the scan: no further job is done.
    pub(crate) fn end(&self) {
        self.end_locked(&mut self.lock());
    }

    fn end_locked(&self, work: &mut Work) {
        work.ended = true;
        self.jobs.notify_all();
        self.listed.notify_all();
    }

    /// The first error of a job.
    pub(crate) fn take_error(&self) -> Option<anyhow::Error> {
        self.lock().error.take()
    }

    /// Stores the finished listing of the directory at `rel` in `slot`, and adds
    /// jobs for the directories in it.
    fn finish(
        &self,
        work: &mut Work,
        slot: usize,
        rel: &[u8],
        source: usize,
        mut listing: DirectoryListing,
    ) {
        listing.first_slot = work.listings.len();
        let slots = listing.first_slot..listing.first_slot + listing.directories.len();
        work.listings.resize_with(slots.end, || None);
        for (index, child_slot) in listing.directories.iter().zip(slots).rev() {
            let name = listing.name(&listing.entries[*index as usize]);
            // The root's name is not part of relative paths.
            let rel = match slot == source {
                true => Vec::new(),
                false => joined(rel, name),
            };
            work.jobs.push(Job {
                source,
                rel,
                slot: child_slot,
            });
        }
        if !listing.directories.is_empty() {
            self.jobs.notify_all();
        }
        work.entry_count += listing.entries.len();
        work.listings[slot] = Some(Box::new(listing));
        let is_wanted = work
            .wanted
            .is_some_and(|wanted| work.listings[wanted].is_some());
        if is_wanted && work.entry_count >= BATCH_COUNT {
            self.listed.notify_all();
        }
    }

    /// Waits for the listing in `slot` and takes it out. `None` if the scan has
    /// ended without it.
    pub(crate) fn take(&self, slot: usize) -> Option<DirectoryListing> {
        let mut work = self.lock();
        if work.listings[slot].is_none() {
            work.wanted = Some(slot);
            let is_too_early = |work: &mut Work| {
                let is_enough = work.listings[slot].is_some() && work.entry_count >= BATCH_COUNT;
                !is_enough && !work.ended
            };
            let waited = self.listed.wait_while(work, is_too_early);
            work = waited.unwrap_or_else(PoisonError::into_inner);
            work.wanted = None;
        }
        let listing = *work.listings[slot].take()?;
        work.entry_count -= listing.entries.len();
        Some(listing)
    }
}
