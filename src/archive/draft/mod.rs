//! An archive that is written while the stack is up, and brought up to date
//! while it is down.
//!
//! A draft is an archive as of some scan, in several files. An [`Update`] holds
//! what a later scan found to be different, already in its final form; writing
//! it ([`Update::write`]) is all that need be done while the stack is down.
//! Putting the files together ([`Update::assemble`]) can wait until it is up again.

mod pieces;
pub mod relocate;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use rustix::io::Errno;

use crate::archive::draft::pieces::{Piece, bytes_in, joined, locate};
use crate::archive::draft::relocate::{Copier, relocate, share};
use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::archive::write::block_hashes::{Blocks, Compared};
use crate::archive::write::kept::{Kept, kept, subtract, total_bytes};
use crate::archive::write::layout::Layout;
use crate::archive::write::options::ReadOptions;
use crate::archive::write::share::unshare_blocks;
use crate::archive::write::{WriteResult, WriteSummary, write_ranges};
use crate::scan::{FingerprintKeys, Inventory, Node, TrackedDevices};

/// So much is in the page cache for it, before it is asked whether to go on.
const UNSHARED_AT_ONCE_BYTES: usize = 64 << 20;

/// What is known of an archive in some files. Its inventory need not be kept.
pub struct Draft {
    layout: Layout,
    /// All of it but the manifest.
    pieces: Vec<Piece>,
    file_count: usize,
    keys: FingerprintKeys,
    /// One for each entry.
    fingerprints: Vec<u128>,
    /// Of the larger files that were copied last, by the hashes of their paths.
    blocks: HashMap<u128, Arc<Blocks>>,
    began: (SystemTime, Instant),
    /// What changed after this was written to while the draft was made, or so
    /// shortly before the first scan that it is not relied on.
    busy_after: Option<SystemTime>,
    settled_after: Duration,
}

/// What of a later archive is not in the draft.
pub struct Update {
    layout: Layout,
    /// What of the draft stays, ascending.
    kept: Vec<Piece>,
    /// In the archive, ascending: what is written.
    fresh: Vec<Range<u64>>,
    /// The file it is written to, at its place.
    out: usize,
    /// The larger files in that, ascending.
    compared: Vec<Compared>,
    written: WriteResult,
    /// In the archive, ascending: what this shares with files that were being
    /// written to; see [`Draft::busy_after`].
    busy: Vec<Range<u64>>,
}

/// How an update was put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The file that is the archive now.
    pub file: usize,
    pub copied_bytes: u64,
}

impl Draft {
    /// Writes the archive of `inventory` to `out`, which must be empty. The
    /// file systems must have been synced after the scan: `tracked` is of that.
    /// Files younger than `settled_after` are not relied on; see
    /// [`SETTLED_AFTER`](crate::scan::SETTLED_AFTER).
    pub fn write(
        layout: Layout,
        inventory: &Inventory,
        reading: ReadOptions<'_>,
        (tracked, settled_after): (&TrackedDevices, Duration),
        out: &File,
    ) -> Result<(Draft, WriteResult)> {
        let all = layout.start()..layout.archive_bytes();
        let written = write_ranges(
            &layout,
            inventory,
            reading,
            out,
            std::slice::from_ref(&all),
            &[],
        )?;
        let mut draft = Draft {
            pieces: vec![Piece::at_its_place(0, &all)],
            file_count: 1,
            layout,
            keys: FingerprintKeys::default(),
            fingerprints: Vec::new(),
            blocks: HashMap::new(),
            began: inventory.began,
            busy_after: inventory.began.0.checked_sub(settled_after),
            settled_after,
        };
        draft.remember(inventory, tracked, &written.changed);
        Ok((draft, written))
    }

    fn remember(
        &mut self,
        inventory: &Inventory,
        tracked: &TrackedDevices,
        changed: &BTreeSet<usize>,
    ) {
        let settled = inventory.began.0.checked_sub(self.settled_after);
        self.began = inventory.began;
        self.fingerprints = self.keys.fingerprints(inventory, |index, entry| {
            tracked.contains(entry.dev)
                && !entry.changed
                && !changed.contains(&index)
                && settled.is_some_and(|settled| entry.is_older(settled))
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
        let same = compared.iter().filter_map(Compared::may_be_kept);
        let may_be_kept = kept.iter().copied().chain(same).collect::<Vec<_>>();
        Update {
            layout,
            out: self.unmoved(&locate(&self.pieces, &may_be_kept)),
            kept: locate(&self.pieces, &kept),
            fresh,
            compared,
            written: WriteResult::default(),
            busy: Vec::new(),
        }
    }

    /// The file that has most of the `pieces` that stay, and all of those at
    /// their places: more can be written to it. A new one, if there is none.
    fn unmoved(&self, pieces: &[Piece]) -> usize {
        let moved: BTreeSet<usize> = pieces
            .iter()
            .filter(|piece| piece.kept.is_moved())
            .map(|piece| piece.file)
            .collect();
        let unmoved = (0..self.file_count).filter(|file| !moved.contains(file));
        unmoved
            .max_by_key(|file| bytes_in(pieces, *file))
            .unwrap_or(self.file_count)
    }

    /// The files in `fresh` that are large enough to be compared block by block.
    fn compared(
        &self,
        layout: &Layout,
        inventory: &Inventory,
        fresh: &[Range<u64>],
    ) -> Vec<Compared> {
        let is_large = |range: &Range<u64>| range.end - range.start >= ALIGNED_FROM_BYTES;
        if !fresh.iter().any(is_large) {
            return Vec::new();
        }
        let key = Arc::new(self.keys.derive_secret());
        let mut next = 0;
        let paths = self.keys.hashed_paths(inventory);
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
            (range.start <= place.start).then(|| Compared::new(key.clone(), path, place, old))
        });
        compared.collect()
    }

    /// Takes note that `update` was written.
    pub fn advance(&mut self, update: Update, inventory: &Inventory, tracked: &TrackedDevices) {
        self.pieces = update.pieces();
        self.file_count = self.file_count.max(update.out + 1);
        self.layout = update.layout;
        let blocks = update.compared.into_iter();
        let blocks = blocks.filter_map(|file| Some((file.path, file.into_blocks()?)));
        self.blocks = blocks.collect();
        self.remember(inventory, tracked, &update.written.changed);
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

impl Update {
    /// The number of the file to write to. If there is none of this number
    /// yet, it must be empty.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Writes what is not in the draft to the file that is meant by
    /// [`out`](Update::out).
    pub fn write(
        &mut self,
        draft: &Draft,
        inventory: &Inventory,
        reading: ReadOptions<'_>,
        out: &File,
    ) -> Result<()> {
        let (layout, fresh) = (&self.layout, &self.fresh);
        self.written = write_ranges(layout, inventory, reading, out, fresh, &self.compared)?;
        let shared = self.written.shared.iter();
        let is_at_rest = |index: usize| {
            let busy_after = draft.busy_after;
            busy_after.is_some_and(|time| inventory.entries[index].is_older(time))
        };
        let busy = shared.filter(|(index, _)| !is_at_rest(*index));
        self.busy = busy.map(|(_, range)| range.clone()).collect();
        let same: Vec<Kept> = self.compared.iter().flat_map(Compared::kept).collect();
        let places = same.iter().map(|kept| kept.new..kept.new + kept.bytes);
        self.fresh = subtract(&self.fresh, places);
        self.kept.extend(locate(&draft.pieces, &same));
        self.kept.sort_unstable_by_key(|piece| piece.kept.new);
        Ok(())
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
    pub fn delta_bytes(&self) -> u64 {
        total_bytes(&self.fresh)
    }

    /// All of the archive but the manifest.
    fn pieces(&self) -> Vec<Piece> {
        let fresh = self.fresh.iter();
        let fresh = fresh.map(|range| Piece::at_its_place(self.out, range));
        let mut pieces: Vec<Piece> = self.kept.iter().copied().chain(fresh).collect();
        pieces.sort_unstable_by_key(|piece| piece.kept.new);
        joined(pieces)
    }

    /// Puts the archive together in one of the `files`: by sharing blocks, or
    /// in the one in which least has to be copied. `room_bytes` are free on
    /// their file system.
    pub fn assemble(
        &self,
        files: &[&File],
        room_bytes: u64,
        cancel: &AtomicBool,
    ) -> Result<Assembled> {
        let pieces = self.pieces();
        let can_share = self.can_share(&pieces, files, cancel)?;
        let file = if can_share {
            self.out
        } else {
            fullest(&pieces, files.len(), room_bytes)
        };
        let target = files[file];
        let (own, others): (Vec<Piece>, Vec<Piece>) =
            pieces.iter().partition(|piece| piece.file == file);
        let own: Vec<Kept> = own.iter().map(|piece| piece.kept).collect();
        let mut copied_bytes = relocate(target, &own, cancel)?;
        let mut copier = Copier::new(target, cancel);
        for Piece { file, kept } in others {
            if !(can_share && share(files[file], &mut copier, &kept)?) {
                copier.copy(files[file], &kept)?;
                copied_bytes += kept.bytes;
            }
        }
        rustix::fs::ftruncate(target, self.layout.archive_bytes())?;
        Ok(Assembled { file, copied_bytes })
    }

    /// Gives the archive blocks of its own for what it shares with files that
    /// are being written to, where the file system writes in place: else the
    /// next write to each of those would put a copy of it elsewhere. Returns for
    /// how many bytes that was done; what it was not done for, when there is no
    /// room, is as good.
    pub fn unshare(&self, archive: &File, cancel: &AtomicBool) -> Result<u64> {
        let mut unshared_bytes = 0;
        for range in &self.busy {
            for start in range.clone().step_by(UNSHARED_AT_ONCE_BYTES) {
                let bytes = (range.end - start).min(UNSHARED_AT_ONCE_BYTES as u64);
                if cancel.load(Ordering::Relaxed) {
                    return Ok(unshared_bytes);
                }
                match unshare_blocks(archive, start, bytes) {
                    Ok(()) => unshared_bytes += bytes,
                    Err(Errno::OPNOTSUPP) => return Ok(unshared_bytes),
                    Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
                        tracing::info!(%error, "blocks stay shared");
                        return Ok(unshared_bytes);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(unshared_bytes)
    }

    /// What [`unshare`](Update::unshare) needs at most.
    pub fn contended_bytes(&self) -> u64 {
        total_bytes(&self.busy)
    }

    pub fn summary(&self) -> &WriteSummary {
        &self.written.summary
    }

    /// See [`WriteResult::deferred_bytes`].
    pub fn deferred_bytes(&self) -> u64 {
        self.written.deferred_bytes
    }

    fn can_share(&self, pieces: &[Piece], files: &[&File], cancel: &AtomicBool) -> Result<bool> {
        let others = pieces.iter().filter(|piece| piece.file != self.out);
        let shareable = others.filter(|piece| piece.kept.blocks().is_some());
        match shareable.max_by_key(|piece| piece.kept.bytes) {
            Some(longest) => {
                let mut copier = Copier::new(files[self.out], cancel);
                share(files[longest.file], &mut copier, &longest.kept)
            }
            None => Ok(false),
        }
    }
}

/// The file with most of the pieces. For any but the first, the others must
/// have room beside it.
fn fullest(pieces: &[Piece], file_count: usize, room_bytes: u64) -> usize {
    let all_bytes: u64 = (0..file_count).map(|file| bytes_in(pieces, file)).sum();
    let has_room = |file: &usize| *file == 0 || all_bytes - bytes_in(pieces, *file) < room_bytes;
    let files = (0..file_count).filter(has_room);
    files
        .max_by_key(|file| bytes_in(pieces, *file))
        .unwrap_or(0)
}
