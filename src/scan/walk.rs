use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};

use super::attributes::AttributeSets;
use super::inventory::{NONE, Node};
use super::listing::{Lister, Listing, joined};
use super::shared::Shared;
use super::{Entry, Exclude, Inventory, Source};

/// The listings that are done are put together when they have this many
/// entries, or all are done: a thread is woken for it.
pub(crate) const BATCH_COUNT: usize = 8192;

/// A directory to be listed.
struct Job {
    source: usize,
    rel: Vec<u8>,
    /// Where its listing goes.
    slot: usize,
}

#[derive(Default)]
struct Work {
    /// The last is the next: what the archive has first.
    jobs: Vec<Job>,
    /// Of the directories, from when they are done until they are put together.
    listings: Vec<Option<Box<Listing>>>,
    /// Entries in these.
    entry_count: usize,
    /// What is to be put together next, if it is waited for.
    wanted: Option<usize>,
    busy_count: usize,
    /// Everything is done, or nothing more is to be.
    ended: bool,
    error: Option<anyhow::Error>,
}

/// What is to be done, and who waits for it.
#[derive(Default)]
struct Queue {
    work: Mutex<Work>,
    /// There are jobs, or there will be none.
    jobs: Condvar,
    /// The wanted listing is done, or will not be.
    listed: Condvar,
}

/// Lists everything in the sources, several directories at a time.
///
/// What vanishes meanwhile is left out. Fails if something cannot be read, and
/// names it; fails with `interrupted` soon after `cancel` is set.
pub fn scan(
    sources: &[Source],
    exclude: &Exclude,
    exclude_caches: bool,
    cancel: &AtomicBool,
) -> Result<Inventory> {
    let began = (SystemTime::now(), Instant::now());
    let shared = Shared {
        exclude,
        exclude_caches,
        attributes: AttributeSets::default(),
        devices: Mutex::default(),
    };
    let queue = Queue::default();
    let mut lister = Lister::new(&shared, cancel);
    let roots: Vec<Listing> = sources
        .iter()
        .map(|source| lister.root(source))
        .collect::<Result<_>>()?;
    drop(lister);
    queue.lock().listings.resize_with(sources.len(), || None);
    for (slot, root) in roots.into_iter().enumerate().rev() {
        queue.done(&mut queue.lock(), slot, b"", slot, root);
    }
    let assembled = std::thread::scope(|scope| {
        for _ in 0..thread_count() {
            scope.spawn(|| queue.run_jobs(sources, &shared, cancel));
        }
        let assembled = assemble(&queue, sources.len());
        queue.end(&mut queue.lock());
        assembled
    });
    let error = queue.lock().error.take();
    match error {
        Some(error) => Err(error),
        None => assembled.map(|inventory| Inventory {
            began,
            devices: shared
                .devices
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
            attributes: shared.attributes.into_sets(),
            ..inventory
        }),
    }
}

/// Cold directories are waited for, so more threads than processors help.
fn thread_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (processors * 2).clamp(4, 16)
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_jobs(&self, sources: &[Source], shared: &Shared<'_>, cancel: &AtomicBool) {
        let mut lister = Lister::new(shared, cancel);
        lister.set_apart();
        let mut work = self.lock();
        while !work.ended {
            let Some(job) = work.jobs.pop() else {
                if work.busy_count == 0 {
                    self.end(&mut work);
                    return;
                }
                work = self.jobs.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            work.busy_count += 1;
            drop(work);
            // A panic must reach the other threads, which would wait for ever
            // for this one to be done.
            let list = || lister.list(&sources[job.source], &job.rel);
            let listed = panic::catch_unwind(AssertUnwindSafe(list))
                .unwrap_or_else(|_| Err(anyhow!("scan panicked (see stderr): this is a bug")));
            work = self.lock();
            work.busy_count -= 1;
            match listed {
                Ok(listing) => self.done(&mut work, job.slot, &job.rel, job.source, listing),
                Err(error) => {
                    work.error.get_or_insert(error);
                    self.end(&mut work);
                }
            }
        }
    }

    fn end(&self, work: &mut Work) {
        work.ended = true;
        self.jobs.notify_all();
        self.listed.notify_all();
    }

    /// Takes the listing for `slot`, of the directory at `rel`, and makes jobs of
    /// the directories in it.
    fn done(&self, work: &mut Work, slot: usize, rel: &[u8], source: usize, mut listing: Listing) {
        listing.first_slot = work.listings.len();
        let slots = listing.first_slot..listing.first_slot + listing.directories.len();
        work.listings.resize_with(slots.end, || None);
        for (index, child_slot) in listing.directories.iter().zip(slots).rev() {
            let name = listing.name(&listing.entries[*index as usize]);
            // The root's name is not in paths.
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

    /// Waits for a listing. `None` if there will be none.
    fn take(&self, slot: usize) -> Option<Listing> {
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

/// Puts the listings together in the order of the archive, as they are done,
/// and finds the hard links.
fn assemble(queue: &Queue, source_count: usize) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    for source in 0..source_count {
        inventory.sources.push(inventory.entries.len() as u32);
        let mut first_links = HashMap::new();
        let mut open = vec![Walk::new(&mut inventory, queue, source, NONE)?];
        while let Some(walk) = open.last_mut() {
            let Some(mut entry) = walk.entries.next() else {
                open.pop();
                continue;
            };
            let index = inventory.entries.len();
            entry.parent = walk.parent;
            entry.name_start += walk.name_base;
            match &mut entry.node {
                Node::Symlink { start, .. } => *start += walk.name_base,
                Node::File { sparse, .. } if *sparse != NONE => *sparse += walk.sparse_base,
                _ => {}
            }
            if entry.has_links {
                let first = *first_links.entry((entry.dev, entry.ino)).or_insert(index);
                if first != index {
                    entry.node = Node::HardLink {
                        first: first as u32,
                    };
                }
            }
            if let Node::File { bytes, .. } = entry.node {
                inventory.content_bytes += bytes;
            }
            inventory.entries.push(entry);
            if entry.node == Node::Directory {
                let slot = walk.next_slot;
                walk.next_slot += 1;
                let walk = Walk::new(&mut inventory, queue, slot, index as u32)?;
                inventory.entries[index].changed = walk.is_gone;
                open.push(walk);
            }
        }
    }
    Ok(inventory)
}

/// A listing whose entries are being moved to the inventory.
struct Walk {
    entries: std::vec::IntoIter<Entry>,
    next_slot: usize,
    is_gone: bool,
    parent: u32,
    name_base: u32,
    sparse_base: u32,
}

impl Walk {
    fn new(inventory: &mut Inventory, queue: &Queue, slot: usize, parent: u32) -> Result<Walk> {
        let listing = queue.take(slot).context("interrupted")?;
        let count = inventory.entries.len() + listing.entries.len();
        let name_base = inventory.names.len();
        let name_bytes = name_base + listing.names.len();
        if count >= NONE as usize || name_bytes >= NONE as usize {
            bail!("too many files: {count} and more, with {name_bytes} bytes of names");
        }
        let sparse_base = inventory.sparse.len() as u32;
        inventory.names.extend_from_slice(&listing.names);
        inventory.sparse.extend(listing.sparse);
        inventory.socket_count += listing.socket_count;
        inventory.excluded_count += listing.excluded_count;
        Ok(Walk {
            entries: listing.entries.into_iter(),
            next_slot: listing.first_slot,
            is_gone: listing.is_gone,
            parent,
            name_base: name_base as u32,
            sparse_base,
        })
    }
}
