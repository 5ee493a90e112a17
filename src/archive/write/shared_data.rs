//! Shares the data of larger files with their sources, instead of copying it.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::archive::tar::entry_head::stored_bytes;
use crate::archive::write::layout::Layout;
use crate::archive::write::options::{ReadOptions, ShareOptions};
use crate::archive::write::render::{ChangedEntries, Renderer};
use crate::archive::write::share::is_never_possible;
use crate::scan::Inventory;
use crate::sys::progress;

/// A file modified within this time is assumed to be still changing. (Databases
/// write at checkpoints, minutes apart.)
const STILL_CHANGING: Duration = Duration::from_secs(3600);

/// The data of larger files that is not copied. All ranges are offsets in the
/// archive, ascending.
#[derive(Default)]
pub(super) struct SharedData {
    /// Ranges that are shared, and the entry that each belongs to.
    pub(super) ranges: Vec<(usize, Range<u64>)>,
    /// Ranges that are left for later; see [`ShareOptions::deferred_from_bytes`].
    pub(super) deferred: Vec<Range<u64>>,
    /// See [`WriteSummary::refused_count`](super::WriteSummary::refused_count).
    pub(super) refused_count: u64,
}

/// Shares the blocks of larger files whose members lie within `ranges`, where
/// that is possible.
pub(super) fn share_data(
    layout: &Layout,
    inventory: &Inventory,
    options: ReadOptions<'_>,
    changed: &ChangedEntries,
    (out, sharing): (&File, ShareOptions<'_>),
    ranges: &[Range<u64>],
) -> Result<SharedData> {
    let mut shared = SharedData::default();
    let changing_after = inventory.began.0.checked_sub(STILL_CHANGING);
    let mut impossible = vec![false; inventory.devices.len()];
    let mut renderer = Renderer::new(layout, inventory, options, changed);
    let mut path = Vec::new();
    let mut next = 0;
    for (index, entry) in inventory.entries.iter().enumerate() {
        let stored = stored_bytes(inventory, entry.node);
        if stored < ALIGNED_FROM_BYTES || impossible[usize::from(entry.dev)] {
            continue;
        }
        let member = layout.offsets[index]..layout.offsets[index + 1];
        while ranges
            .get(next)
            .is_some_and(|range| range.end <= member.start)
        {
            next += 1;
        }
        let is_wanted = ranges
            .get(next)
            .is_some_and(|range| range.start <= member.start && member.end <= range.end);
        if !is_wanted {
            continue;
        }
        if options.cancel.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        progress::step();
        inventory.relative_path(index, &mut path);
        if sharing.unshared.matches_file(&path) {
            continue;
        }
        let is_deferred = options.is_live
            && stored >= sharing.deferred_from_bytes
            && changing_after.is_none_or(|time| !entry.is_older(time));
        match renderer.share_data(index, out, is_deferred)? {
            Ok(ranges) if is_deferred => shared.deferred.extend(ranges),
            Ok(ranges) => shared
                .ranges
                .extend(ranges.into_iter().map(|range| (index, range))),
            Err(error) if is_never_possible(error) => impossible[usize::from(entry.dev)] = true,
            Err(_) => shared.refused_count += 1,
        }
    }
    Ok(shared)
}
