//! An archive that is written while the stack is up, and brought up to date
//! while it is down.
//!
//! A draft is an archive as of some scan. An [`Update`] holds what a later scan
//! found to be different, already in its final form; making it ([`Draft::prepare`])
//! is all that need be done while the stack is down. Putting both together
//! ([`Update::apply`]) can wait until it is up again.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::ALIGNED_FROM_BYTES;
use super::blocks::{Blocks, Compared};
use super::kept::{Kept, kept, subtract};
use super::layout::Layout;
use super::relocate::{copy, relocate, share};
use super::write::{Reading, WriteSummary, write_ranges};
use crate::capture::{Entry, Inventory, Keys, Node, Trust};

/// What is known of an archive in a partial. Its inventory need not be kept.
pub struct Draft {
    layout: Layout,
    keys: Keys,
    /// One for each entry.
    fingerprints: Vec<u128>,
    /// Of the larger files that were copied last, by the hashes of their paths.
    blocks: HashMap<u128, Arc<Blocks>>,
    began: (SystemTime, Instant),
    settled_after: Duration,
}

/// What of a later archive is not in the draft.
pub struct Update {
    layout: Layout,
    kept: Vec<Kept>,
    /// In the archive, ascending: where what was written is.
    fresh: Vec<Range<u64>>,
    /// The larger files in that, ascending.
    compared: Vec<Compared>,
    /// Nothing that stays has to move: the rest goes to its place in the draft.
    is_in_place: bool,
    pub summary: WriteSummary,
    /// Entries that changed while they were read.
    changed: BTreeSet<usize>,
}

/// Which of two files is the archive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Draft,
    Scratch,
}

/// How an update was put together, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    pub placed: Placed,
    pub copied_bytes: u64,
}

impl Draft {
    /// Writes the archive of `inventory` to `out`, which must be empty. The
    /// file systems must have been synced after the scan: `trust` is of that.
    /// Files younger than `settled_after` are not relied on; see
    /// [`SETTLED_AFTER`](crate::capture::SETTLED_AFTER).
    pub fn write(
        layout: Layout,
        inventory: &Inventory,
        reading: Reading<'_>,
        (trust, settled_after): (&Trust, Duration),
        out: &File,
    ) -> Result<(Draft, WriteSummary)> {
        let all = layout.start()..layout.archive_bytes();
        let (summary, changed) = write_ranges(&layout, inventory, reading, out, &[all], &[])?;
        let mut draft = Draft {
            layout,
            keys: Keys::default(),
            fingerprints: Vec::new(),
            blocks: HashMap::new(),
            began: inventory.began,
            settled_after,
        };
        draft.remember(inventory, trust, &changed);
        Ok((draft, summary))
    }

    fn remember(&mut self, inventory: &Inventory, trust: &Trust, changed: &BTreeSet<usize>) {
        let settled = inventory.began.0.checked_sub(self.settled_after);
        self.began = inventory.began;
        self.fingerprints = self.keys.fingerprints(inventory, |index, entry| {
            trust.of_device(entry.dev)
                && !entry.changed
                && !changed.contains(&index)
                && settled.is_some_and(|settled| is_older(entry, settled))
        });
    }

    /// Finds out what of the archive of `inventory` is not in the draft.
    pub fn compare(&self, layout: Layout, inventory: &Inventory) -> Update {
        // Fingerprints of this one are compared, not relied on: the young ones
        // have no equal in the draft.
        let kept = match self.was_set_back(inventory) {
            true => Vec::new(),
            false => {
                let fingerprints = self.keys.fingerprints(inventory, |_, _| true);
                let old = (&self.fingerprints[..], &self.layout);
                kept(old, (&fingerprints, &layout), inventory)
            }
        };
        let all = layout.start()..layout.archive_bytes();
        let places = kept.iter().map(|kept| kept.new..kept.new + kept.bytes);
        let fresh = subtract(&[all], places);
        let compared = self.compared(&layout, inventory, &fresh);
        let stays = !kept.is_empty() || compared.iter().any(Compared::has_old);
        let is_moved = kept.iter().any(Kept::is_moved) || compared.iter().any(Compared::is_moved);
        Update {
            layout,
            kept,
            fresh,
            compared,
            is_in_place: stays && !is_moved,
            summary: WriteSummary::default(),
            changed: BTreeSet::new(),
        }
    }

    /// The files in `fresh` that are large enough to be compared block by block.
    fn compared(
        &self,
        layout: &Layout,
        inventory: &Inventory,
        fresh: &[Range<u64>],
    ) -> Vec<Compared> {
        let key = self.keys.secret();
        let mut next = 0;
        let paths = self.keys.paths(inventory);
        let compared = paths.filter_map(|(index, entry, path)| {
            let Node::File { bytes, .. } = entry.node else {
                return None;
            };
            if bytes < ALIGNED_FROM_BYTES || inventory.extents(entry.node).is_some() {
                return None;
            }
            let place = layout.data(inventory, index);
            while fresh.get(next).is_some_and(|range| range.end < place.end) {
                next += 1;
            }
            let range = fresh.get(next)?;
            let old = self.blocks.get(&path).cloned();
            (range.start <= place.start).then(|| Compared::new(key, path, place, old))
        });
        compared.collect()
    }

    /// Takes note that `update` was applied.
    pub fn advance(&mut self, update: Update, inventory: &Inventory, trust: &Trust) {
        self.layout = update.layout;
        let blocks = update.compared.into_iter();
        let blocks = blocks.filter_map(|file| Some((file.path, file.into_blocks()?)));
        self.blocks = blocks.collect();
        self.remember(inventory, trust, &update.changed);
    }

    /// Whether the clock that stamps files was set back between the scans: a
    /// file could have been written at the very time it was written before.
    fn was_set_back(&self, inventory: &Inventory) -> bool {
        let (clock, steady) = inventory.began;
        let passed = steady.saturating_duration_since(self.began.1);
        let shown = clock.duration_since(self.began.0).unwrap_or_default();
        shown + self.settled_after / 2 < passed
    }
}

fn is_older(entry: &Entry, time: SystemTime) -> bool {
    let Ok(since_1970) = time.duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    let time = (since_1970.as_secs() as i64, since_1970.subsec_nanos());
    (entry.ctime_s, entry.ctime_ns) < time
}

impl Update {
    /// Writes what is not in `draft`: there if nothing that stays has to move,
    /// else to `scratch`, which must be empty. Neither is an archive then,
    /// until the update is applied.
    pub fn write(
        &mut self,
        inventory: &Inventory,
        reading: Reading<'_>,
        (draft, scratch): (&File, &File),
    ) -> Result<()> {
        let out = if self.is_in_place { draft } else { scratch };
        let written = write_ranges(
            &self.layout,
            inventory,
            reading,
            out,
            &self.fresh,
            &self.compared,
        )?;
        (self.summary, self.changed) = written;
        self.keep(self.compared.iter().flat_map(Compared::kept).collect());
        Ok(())
    }

    /// `more` need not be copied after all.
    fn keep(&mut self, more: Vec<Kept>) {
        let places = more.iter().map(|kept| kept.new..kept.new + kept.bytes);
        self.fresh = subtract(&self.fresh, places);
        self.kept.extend(more);
        self.kept.sort_unstable_by_key(|kept| kept.new);
    }

    /// Whether some of it may turn out to be in the draft after all.
    pub fn is_comparable(&self) -> bool {
        self.compared.iter().any(Compared::has_old)
    }

    pub fn into_layout(self) -> Layout {
        self.layout
    }

    /// Bytes that are not in the draft; once they are written, without the
    /// blocks that turned out to be.
    pub fn fresh_bytes(&self) -> u64 {
        self.fresh.iter().map(|range| range.end - range.start).sum()
    }

    /// Puts the archive together, in the one of the two files in which less
    /// has to be copied. They must be those that it was written with;
    /// `room_bytes` are free on their file system.
    pub fn apply(
        &self,
        (draft, scratch): (&File, &File),
        room_bytes: u64,
        cancel: &AtomicBool,
    ) -> Result<Applied> {
        let mut applied = Applied {
            placed: Placed::Draft,
            copied_bytes: 0,
        };
        if !self.is_in_place {
            applied = self.put_together((draft, scratch), room_bytes, cancel)?;
        }
        let file = match applied.placed {
            Placed::Draft => draft,
            Placed::Scratch => scratch,
        };
        rustix::fs::ftruncate(file, self.layout.archive_bytes())?;
        Ok(applied)
    }

    fn put_together(
        &self,
        (draft, scratch): (&File, &File),
        room_bytes: u64,
        cancel: &AtomicBool,
    ) -> Result<Applied> {
        let shareable = self.kept.iter().filter(|kept| kept.blocks().is_some());
        let can_share = match shareable.max_by_key(|kept| kept.bytes) {
            Some(longest) => share(draft, scratch, longest, cancel)?,
            None => false,
        };
        let kept_bytes: u64 = self.kept.iter().map(|kept| kept.bytes).sum();
        let fresh_bytes = self.fresh_bytes();
        if can_share || kept_bytes < fresh_bytes.min(room_bytes) {
            let copied_bytes = self.kept.iter().try_fold(0, |copied, kept| {
                if can_share && share(draft, scratch, kept, cancel)? {
                    return Ok(copied);
                }
                copy((draft, kept.old), (scratch, kept.new), kept.bytes, cancel)?;
                anyhow::Ok(copied + kept.bytes)
            })?;
            return Ok(Applied {
                placed: Placed::Scratch,
                copied_bytes,
            });
        }
        let mut copied_bytes = relocate(draft, &self.kept, cancel)?;
        for range in &self.fresh {
            let bytes = range.end - range.start;
            copy((scratch, range.start), (draft, range.start), bytes, cancel)?;
            copied_bytes += bytes;
        }
        Ok(Applied {
            placed: Placed::Draft,
            copied_bytes,
        })
    }
}
