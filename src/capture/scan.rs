use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};

use super::attributes::AttributeSets;
use super::inventory::{NONE, Node};
use super::listing::{Lister, Listing, joined};
use super::{Exclude, Inventory, Source};

/// What the threads of a scan share.
pub(crate) struct Shared<'a> {
    pub(crate) exclude: &'a Exclude,
    pub(crate) exclude_caches: bool,
    pub(crate) attributes: AttributeSets,
    devices: Mutex<Vec<u64>>,
}

impl Shared<'_> {
    pub(crate) fn device_index(&self, device: u64) -> Result<u16> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let known = devices.iter().position(|known| *known == device);
        let index = known.unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        });
        u16::try_from(index).context("too many file systems")
    }
}

/// A directory to be listed.
struct Job {
    source: usize,
    rel: Vec<u8>,
    /// Where its listing goes.
    slot: usize,
}

#[derive(Default)]
struct Work {
    jobs: Vec<Job>,
    listings: Vec<Listing>,
    busy_count: usize,
    error: Option<anyhow::Error>,
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
    let mut work = Work::default();
    let mut lister = Lister::new(&shared, cancel);
    for source in sources {
        let root = lister.root(source)?;
        work.listings.push(root);
    }
    for source in 0..sources.len() {
        add_directories(&mut work, source, b"", source);
    }
    drop(lister);
    let work = Mutex::new(work);
    let ready = Condvar::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..thread_count() {
            scope.spawn(|| run_jobs(sources, &shared, cancel, &work, &ready, &stop));
        }
    });
    let mut work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    match work.error.take() {
        Some(error) => Err(error),
        None => assemble(work.listings, sources.len(), shared)
            .map(|inventory| Inventory { began, ..inventory }),
    }
}

/// Cold directories are waited for, so more threads than processors help.
fn thread_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (processors * 2).clamp(4, 16)
}

fn run_jobs(
    sources: &[Source],
    shared: &Shared<'_>,
    cancel: &AtomicBool,
    work: &Mutex<Work>,
    ready: &Condvar,
    stop: &AtomicBool,
) {
    let lock = || work.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lister = Lister::new(shared, cancel);
    let mut work = lock();
    loop {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(job) = work.jobs.pop() else {
            if work.busy_count == 0 {
                ready.notify_all();
                return;
            }
            work = ready.wait(work).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        work.busy_count += 1;
        drop(work);
        // A panic must reach the other threads, which would wait for ever for
        // this one to be done.
        let list = || lister.list(&sources[job.source], &job.rel);
        let listed = panic::catch_unwind(AssertUnwindSafe(list))
            .unwrap_or_else(|_| Err(anyhow!("scan panicked (see stderr): this is a bug")));
        work = lock();
        work.busy_count -= 1;
        match listed {
            Ok(listing) => {
                work.listings[job.slot] = listing;
                add_directories(&mut work, job.slot, &job.rel, job.source);
            }
            Err(error) => {
                work.error.get_or_insert(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
        ready.notify_all();
    }
}

/// Makes jobs of the directories in the listing at `slot`, whose path is `rel`.
fn add_directories(work: &mut Work, slot: usize, rel: &[u8], source: usize) {
    let mut directories = std::mem::take(&mut work.listings[slot].directories);
    let is_root = slot == source;
    for (index, child_slot) in &mut directories {
        let listing = &work.listings[slot];
        let name = listing.name(&listing.entries[*index as usize]);
        let rel = if is_root {
            Vec::new()
        } else {
            joined(rel, name)
        };
        *child_slot = work.listings.len();
        work.listings.push(Listing::default());
        work.jobs.push(Job {
            source,
            rel,
            slot: *child_slot,
        });
    }
    work.listings[slot].directories = directories;
}

/// Puts the listings together in the order of the archive, and finds the hard
/// links.
fn assemble(
    mut listings: Vec<Listing>,
    source_count: usize,
    shared: Shared<'_>,
) -> Result<Inventory> {
    let mut inventory = Inventory {
        devices: shared
            .devices
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
        attributes: shared.attributes.into_sets(),
        ..Inventory::default()
    };
    let count: usize = listings.iter().map(|listing| listing.entries.len()).sum();
    let name_bytes: usize = listings.iter().map(|listing| listing.names.len()).sum();
    if count >= NONE as usize || name_bytes >= NONE as usize {
        bail!("too many files: {count}, with {name_bytes} bytes of names");
    }
    inventory.entries.reserve_exact(count);
    inventory.names.reserve_exact(name_bytes);
    for source in 0..source_count {
        inventory.sources.push(inventory.entries.len() as u32);
        let mut first_links = HashMap::new();
        let mut open = vec![Walk::new(&mut inventory, &mut listings[source], NONE)];
        while let Some(walk) = open.last_mut() {
            let Some(entry) = walk.entries.next() else {
                open.pop();
                continue;
            };
            let index = inventory.entries.len();
            let mut entry = entry;
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
                let slot = walk.slots.next().context("directory without listing")?;
                inventory.entries[index].changed = listings[slot].is_gone;
                open.push(Walk::new(&mut inventory, &mut listings[slot], index as u32));
            }
        }
    }
    Ok(inventory)
}

/// A listing whose entries are being moved to the inventory.
struct Walk {
    entries: std::vec::IntoIter<super::Entry>,
    slots: std::vec::IntoIter<usize>,
    parent: u32,
    name_base: u32,
    sparse_base: u32,
}

impl Walk {
    fn new(inventory: &mut Inventory, listing: &mut Listing, parent: u32) -> Walk {
        let listing = std::mem::take(listing);
        let name_base = inventory.names.len() as u32; // `assemble` checked the sum
        let sparse_base = inventory.sparse.len() as u32;
        inventory.names.extend_from_slice(&listing.names);
        inventory.sparse.extend(listing.sparse);
        inventory.socket_count += listing.socket_count;
        inventory.excluded_count += listing.excluded_count;
        let slots: Vec<usize> = listing.directories.iter().map(|(_, slot)| *slot).collect();
        Walk {
            entries: listing.entries.into_iter(),
            slots: slots.into_iter(),
            parent,
            name_base,
            sparse_base,
        }
    }
}
