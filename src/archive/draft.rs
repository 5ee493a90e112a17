//! An archive that is written while the stack is up, and brought up to date
//! while it is down.
//!
//! A draft is an archive as of some scan. An [`Update`] holds what a later scan
//! found to be different, already in its final form; making it ([`Draft::prepare`])
//! is all that need be done while the stack is down. Putting both together
//! ([`Update::apply`]) can wait until it is up again.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::kept::{Kept, kept, subtract};
use super::layout::Layout;
use super::relocate::{copy, relocate, share};
use super::write::{Reading, WriteSummary, write_ranges};
use crate::capture::{Entry, Inventory, Keys, Trust};

/// What is known of an archive in a partial. Its inventory need not be kept.
pub struct Draft {
    layout: Layout,
    keys: Keys,
    /// One for each entry.
    fingerprints: Vec<u128>,
    began: (SystemTime, Instant),
    settled_after: Duration,
}

/// What of a later archive is not in the draft.
pub struct Update {
    layout: Layout,
    kept: Vec<Kept>,
    /// In the archive, ascending: where what was written is.
    fresh: Vec<Range<u64>>,
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
        let (summary, changed) = write_ranges(&layout, inventory, reading, out, &[all])?;
        let mut draft = Draft {
            layout,
            keys: Keys::default(),
            fingerprints: Vec::new(),
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
        let is_in_place = !kept.is_empty() && !kept.iter().any(Kept::is_moved);
        Update {
            layout,
            kept,
            fresh,
            is_in_place,
            summary: WriteSummary::default(),
            changed: BTreeSet::new(),
        }
    }

    /// Takes note that `update` was applied.
    pub fn advance(&mut self, update: Update, inventory: &Inventory, trust: &Trust) {
        self.layout = update.layout;
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
        let written = write_ranges(&self.layout, inventory, reading, out, &self.fresh)?;
        (self.summary, self.changed) = written;
        Ok(())
    }

    pub fn into_layout(self) -> Layout {
        self.layout
    }

    /// Bytes that are read and written while the stack is down.
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
