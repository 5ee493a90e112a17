//! An archive that is written while the stack is up, and brought up to date while
//! it is down.
//!
//! A draft is an archive as of some scan, in one or more files. An [`Update`] is
//! what a later scan found to differ, in its final form. Only
//! [`Update::write`] has to happen while the stack is down; assembling the files
//! ([`Update::assemble`]) can wait until it is up again.

mod assemble;
mod copy;
mod file_segment;
pub mod moves;
mod unchanged;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

pub use crate::archive::draft::assemble::Assembled;
use crate::archive::draft::assemble::assemble;
use crate::archive::draft::file_segment::{FileSegment, bytes_in, joined, locate};
use crate::archive::draft::unchanged::unchanged_segments;
use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::archive::write::block_hashes::{BlockHashes, ComparedFile};
use crate::archive::write::hashes::RenderedHashes;
use crate::archive::write::layout::Layout;
use crate::archive::write::options::ReadOptions;
use crate::archive::write::ranges::{subtract, total_bytes};
use crate::archive::write::segment::Segment;
use crate::archive::write::share::unshare_ranges;
use crate::archive::write::{WriteResult, WriteSummary, write_ranges};
use crate::scan::{FingerprintKeys, Inventory, Node, TrackedDevices};

/// An archive in one or more files, which are known by number. The inventory that
/// it was made from is not needed any more.
pub struct Draft {
    layout: Layout,
    /// The whole archive except the manifest, ascending.
    parts: Vec<FileSegment>,
    file_count: usize,
    keys: FingerprintKeys,
    /// One for each entry.
    fingerprints: Vec<u128>,
    /// Block hashes of the larger files that were copied last, by the hashes of
    /// their paths.
    blocks: HashMap<u128, Arc<BlockHashes>>,
    /// Hashes of what was rendered, as far as it is in the draft.
    hashes: RenderedHashes,
    began: (SystemTime, Instant),
    /// Files that changed after this are active: they were written to while the
    /// draft was made, or too shortly before to tell.
    active_after: Option<SystemTime>,
    settled_after: Duration,
}

/// The parts of a later archive that are not in the draft.
pub struct Update {
    layout: Layout,
    /// The parts of the archive that are in the draft, ascending.
    unchanged: Vec<FileSegment>,
    /// The parts that are in the draft without a comparison of blocks, from the
    /// draft to the archive.
    kept: Vec<Segment>,
    /// The ranges of the archive that are not, ascending. They are written.
    delta: Vec<Range<u64>>,
    /// Number of the file that they are written to, at their places.
    out: usize,
    /// The larger files in them, ascending.
    compared: Vec<ComparedFile>,
    written: WriteResult,
    /// Ranges of the archive whose blocks are shared with active files,
    /// ascending.
    contended: Vec<Range<u64>>,
}

impl Draft {
    /// Writes the archive of `inventory` to `out`, which must be empty.
    ///
    /// `tracked` must come from a sync after the scan. A file that changed less than
    /// `settled_after` before the scan counts as changed in the next comparison;
    /// see [`SETTLED_AFTER`](crate::scan::SETTLED_AFTER).
    pub fn write(
        layout: Layout,
        inventory: &Inventory,
        options: ReadOptions<'_>,
        (tracked, settled_after): (&TrackedDevices, Duration),
        out: &File,
    ) -> Result<(Draft, WriteResult)> {
        let all = layout.start()..layout.archive_bytes();
        let mut written = write_ranges(
            &layout,
            inventory,
            options,
            out,
            std::slice::from_ref(&all),
            &[],
        )?;
        let mut draft = Draft {
            parts: vec![FileSegment::in_place(0, &all)],
            file_count: 1,
            layout,
            keys: FingerprintKeys::default(),
            fingerprints: Vec::new(),
            blocks: HashMap::new(),
            hashes: std::mem::take(&mut written.hashes),
            began: inventory.began,
            active_after: inventory.began.0.checked_sub(settled_after),
            settled_after,
        };
        draft.take_fingerprints(inventory, tracked, &written.changed);
        Ok((draft, written))
    }

    /// Takes the fingerprints of all entries whose copies can be relied on.
    fn take_fingerprints(
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

    /// Finds the parts of the archive of `inventory` that are not in the draft.
    pub fn compare(&self, layout: Layout, inventory: &Inventory) -> Update {
        // These fingerprints are only compared, so all entries have one: the
        // draft has no equal of one that is not settled.
        let unchanged = match self.clock_was_set_back(inventory) {
            true => Vec::new(),
            false => {
                let fingerprints = self.keys.fingerprints(inventory, |_, _| true);
                let draft = (&self.fingerprints[..], &self.layout);
                unchanged_segments(draft, (&fingerprints, &layout), inventory)
            }
        };
        let all = layout.start()..layout.archive_bytes();
        let delta = subtract(&[all], unchanged.iter().map(Segment::new_range));
        let compared = self.compared_files(&layout, inventory, &delta);
        let in_blocks = compared.iter().filter_map(ComparedFile::largest_unchanged);
        let possibly_unchanged: Vec<Segment> = unchanged.iter().copied().chain(in_blocks).collect();
        Update {
            layout,
            out: self.file_without_moves(&locate(&self.parts, &possibly_unchanged)),
            unchanged: locate(&self.parts, &unchanged),
            kept: unchanged,
            delta,
            compared,
            written: WriteResult::default(),
            contended: Vec::new(),
        }
    }

    /// The file that holds most of the `unchanged` parts, and all of its own at
    /// their places, so that more can be written to it. If there is none, the
    /// number of a new file.
    fn file_without_moves(&self, unchanged: &[FileSegment]) -> usize {
        let moved: BTreeSet<usize> = unchanged
            .iter()
            .filter(|part| part.segment.is_moved())
            .map(|part| part.file)
            .collect();
        let without_moves = (0..self.file_count).filter(|file| !moved.contains(file));
        without_moves
            .max_by_key(|file| bytes_in(unchanged, *file))
            .unwrap_or(self.file_count)
    }

    /// The files in `delta` that are large enough to be compared block by block.
    fn compared_files(
        &self,
        layout: &Layout,
        inventory: &Inventory,
        delta: &[Range<u64>],
    ) -> Vec<ComparedFile> {
        let is_large = |range: &Range<u64>| range.end - range.start >= ALIGNED_FROM_BYTES;
        if !delta.iter().any(is_large) {
            return Vec::new();
        }
        let secret = Arc::new(self.keys.derive_secret());
        let mut next = 0;
        let paths = self.keys.hashed_paths(inventory);
        let compared = paths.filter_map(|(index, entry, path)| {
            let Node::File { bytes, .. } = entry.node else {
                return None;
            };
            if bytes < ALIGNED_FROM_BYTES || inventory.extents(entry.node).is_some() {
                return None;
            }
            let data = layout.data(inventory, index);
            while delta.get(next).is_some_and(|range| range.end < data.end) {
                next += 1;
            }
            let range = delta.get(next)?;
            let draft = self.blocks.get(&path).cloned();
            (range.start <= data.start)
                .then(|| ComparedFile::new(secret.clone(), path, data, draft))
        });
        compared.collect()
    }

    /// Makes the written `update` part of the draft.
    pub fn advance(&mut self, mut update: Update, inventory: &Inventory, tracked: &TrackedDevices) {
        let written = std::mem::take(&mut update.written.hashes);
        self.hashes.advance(&update.kept, written);
        self.parts = update.parts();
        self.file_count = self.file_count.max(update.out + 1);
        self.layout = update.layout;
        let blocks = update.compared.into_iter();
        let blocks = blocks.filter_map(|file| Some((file.path, file.into_hashes()?)));
        self.blocks = blocks.collect();
        self.take_fingerprints(inventory, tracked, &update.written.changed);
    }

    /// Hashes of what was rendered of the archive that the draft and its written
    /// `update` become.
    pub fn into_hashes(mut self, update: &mut Update) -> RenderedHashes {
        let written = std::mem::take(&mut update.written.hashes);
        self.hashes.advance(&update.kept, written);
        self.hashes
    }

    /// Whether the clock that stamps files was set back between the scans. Then a
    /// file could have been modified at the very time of its last modification.
    fn clock_was_set_back(&self, inventory: &Inventory) -> bool {
        let (clock, steady) = inventory.began;
        let elapsed = steady.saturating_duration_since(self.began.1);
        let shown = clock.duration_since(self.began.0).unwrap_or_default();
        shown + self.settled_after / 2 < elapsed
    }
}

impl Update {
    /// Number of the file to write to. If it is the number of a new file, that
    /// must be empty.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Writes what is not in the draft to `out`, the file with the number
    /// [`out`](Update::out).
    pub fn write(
        &mut self,
        draft: &Draft,
        inventory: &Inventory,
        options: ReadOptions<'_>,
        out: &File,
    ) -> Result<()> {
        let (layout, delta) = (&self.layout, &self.delta);
        self.written = write_ranges(layout, inventory, options, out, delta, &self.compared)?;
        let is_active = |index: usize| {
            let active_after = draft.active_after;
            active_after.is_none_or(|time| !inventory.entries[index].is_older(time))
        };
        let shared = self.written.shared.iter();
        let contended = shared.filter(|(index, _)| is_active(*index));
        self.contended = contended.map(|(_, range)| range.clone()).collect();
        let blocks = self.compared.iter().flat_map(ComparedFile::unchanged);
        let blocks: Vec<Segment> = blocks.collect();
        self.delta = subtract(&self.delta, blocks.iter().map(Segment::new_range));
        self.unchanged.extend(locate(&draft.parts, &blocks));
        self.unchanged.sort_unstable_by_key(|part| part.segment.new);
        Ok(())
    }

    /// Whether [`write`](Update::write) may find more of it in the draft, by
    /// comparing blocks.
    pub fn is_comparable(&self) -> bool {
        self.compared.iter().any(ComparedFile::has_draft)
    }

    /// The layout of the later archive.
    pub fn into_layout(self) -> Layout {
        self.layout
    }

    /// Bytes that are not in the draft. Once they are written, without the blocks
    /// that turned out to be in it.
    pub fn delta_bytes(&self) -> u64 {
        total_bytes(&self.delta)
    }

    /// The whole archive except the manifest.
    fn parts(&self) -> Vec<FileSegment> {
        let delta = self.delta.iter();
        let delta = delta.map(|range| FileSegment::in_place(self.out, range));
        let mut parts: Vec<FileSegment> = self.unchanged.iter().copied().chain(delta).collect();
        parts.sort_unstable_by_key(|part| part.segment.new);
        joined(parts)
    }

    /// Assembles the archive in one of the `files`: by sharing blocks, or in the
    /// file for which least has to be copied. `room_bytes` are free on their file
    /// system.
    pub fn assemble(
        &self,
        files: &[&File],
        room_bytes: u64,
        cancel: &AtomicBool,
    ) -> Result<Assembled> {
        let archive_bytes = self.layout.archive_bytes();
        let files = (files, self.out);
        assemble(&self.parts(), files, archive_bytes, room_bytes, cancel)
    }

    /// Gives the archive blocks of its own instead of those that it shares with
    /// active files, where the file system writes in place. Otherwise the next
    /// write to each shared block would go to another place on the disk. Returns
    /// for how many bytes this was done. Without room for more, the rest stays
    /// shared, and the archive is as good.
    pub fn unshare(&self, archive: &File, cancel: &AtomicBool) -> Result<u64> {
        unshare_ranges(archive, &self.contended, cancel)
    }

    /// Room that [`unshare`](Update::unshare) needs at most.
    pub fn contended_bytes(&self) -> u64 {
        total_bytes(&self.contended)
    }

    /// What happened in [`write`](Update::write).
    pub fn summary(&self) -> &WriteSummary {
        &self.written.summary
    }

    /// See [`WriteResult::deferred_bytes`].
    pub fn deferred_bytes(&self) -> u64 {
        self.written.deferred_bytes
    }
}
