//! Writing an archive: its layout, and threads that render it.

pub mod block_hashes;
pub mod kept;
pub mod layout;
pub mod options;
pub mod render;
pub mod share;
pub mod sink;
mod windows;

use std::collections::BTreeSet;
use std::fs::File;
use std::iter;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::archive::tar::entry_head::stored_bytes;
use crate::archive::write::block_hashes::Compared;
use crate::archive::write::kept::{subtract, total_bytes};
use crate::archive::write::layout::Layout;
use crate::archive::write::options::{ReadOptions, ShareOptions};
use crate::archive::write::render::{Changed, Renderer};
use crate::archive::write::share::is_never_possible;
use crate::archive::write::sink::{Buffer, Sink};
use crate::archive::write::windows::{Crew, crews};
use crate::scan::Inventory;
#[cfg(test)]
use crate::scan::mutation::Mutation;
use crate::sys::format::display_path;
use crate::sys::progress;

/// How many changed files are named.
const NAMED_COUNT: usize = 20;

/// How long ago, as to what goes on changing: databases write their files at
/// each checkpoint only, minutes apart.
const LATELY: Duration = Duration::from_secs(3600);

/// What [`write_members`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Files that changed, vanished or were replaced since they were scanned.
    /// Their members are cut or padded with zeros to the scanned size.
    pub changed_count: u64,
    /// Paths of the first of them, for messages.
    pub changed: Vec<String>,
    /// File data whose blocks source and archive share.
    pub shared_bytes: u64,
    /// Files whose data could have been shared and was not: a file without
    /// copy-on-write, or the file system changed its mind.
    pub refused_count: u64,
}

/// Writes all of the archive but the manifest to `out`, which must be empty.
/// It is not synced.
///
/// Several threads each render a window of the archive and write it at its
/// place. Fails on what cannot be read, and names it; on what cannot be
/// written, naming nothing (the caller knows what `out` is).
pub fn write_members(
    layout: &Layout,
    inventory: &Inventory,
    reading: ReadOptions<'_>,
    out: &File,
) -> Result<WriteSummary> {
    let all = layout.start()..layout.archive_bytes();
    Ok(write_ranges(layout, inventory, reading, out, &[all], &[])?.summary)
}

#[derive(Default)]
pub struct WriteResult {
    pub summary: WriteSummary,
    /// Entries that changed while they were read, or were left out.
    pub(crate) changed: BTreeSet<usize>,
    /// What of which entries is shared, in the archive, ascending.
    pub(crate) shared: Vec<(usize, Range<u64>)>,
    /// What was not written yet; see [`ShareOptions::deferred_from_bytes`].
    pub deferred_bytes: u64,
}

/// Writes what of the archive is in `ranges` (ascending), but for those blocks
/// of the `compared` files in them that are in the draft.
pub(crate) fn write_ranges(
    layout: &Layout,
    inventory: &Inventory,
    reading: ReadOptions<'_>,
    out: &File,
    ranges: &[Range<u64>],
    compared: &[Compared],
) -> Result<WriteResult> {
    let already_changed = inventory.entries.iter().enumerate();
    let already_changed = already_changed.filter(|(_, entry)| entry.changed);
    let changed: Changed = Mutex::new(already_changed.map(|(index, _)| index).collect());
    let placed = match reading.share {
        Some(sharing) => share_data(layout, inventory, reading, &changed, (out, sharing), ranges)?,
        None => Placed::default(),
    };
    let shared = placed.shared.iter().map(|(_, range)| range.clone());
    let rest = subtract(&subtract(ranges, shared), placed.left_out.iter().cloned());
    let crews = crews(layout, inventory, &rest, compared);
    let error = Mutex::new(None);
    let sink = Sink::new(out);
    #[cfg(test)]
    let mutation = Mutation::current();
    std::thread::scope(|scope| {
        for crew in crews
            .iter()
            .flat_map(|crew| iter::repeat_n(crew, crew.threads))
        {
            scope.spawn(|| {
                #[cfg(test)]
                Mutation::inherit(mutation);
                let renderer = Renderer::new(layout, inventory, reading, &changed);
                if let Err(failure) = write_windows(renderer, crew, &sink, reading.cancel) {
                    crews.iter().for_each(Crew::dismiss);
                    let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
                    error.get_or_insert(failure);
                }
            });
        }
    });
    if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let changed = changed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut path = Vec::new();
    let named = changed.iter().take(NAMED_COUNT).map(|index| {
        inventory.member_path(*index, &mut path);
        display_path(&path)
    });
    let summary = WriteSummary {
        changed: named.collect(),
        changed_count: changed.len() as u64,
        shared_bytes: total_bytes(placed.shared.iter().map(|(_, range)| range)),
        refused_count: placed.refused_count,
    };
    Ok(WriteResult {
        summary,
        changed,
        shared: placed.shared,
        deferred_bytes: total_bytes(&placed.left_out),
    })
}

/// What need not be written, or not yet: ranges of the archive, ascending.
#[derive(Default)]
struct Placed {
    shared: Vec<(usize, Range<u64>)>,
    left_out: Vec<Range<u64>>,
    refused_count: u64,
}

/// Shares the blocks of larger files with the archive where that can be done.
fn share_data(
    layout: &Layout,
    inventory: &Inventory,
    reading: ReadOptions<'_>,
    changed: &Changed,
    (out, sharing): (&File, ShareOptions<'_>),
    ranges: &[Range<u64>],
) -> Result<Placed> {
    let mut placed = Placed::default();
    let lately = inventory.began.0.checked_sub(LATELY);
    let mut impossible = vec![false; inventory.devices.len()];
    let mut renderer = Renderer::new(layout, inventory, reading, changed);
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
        if reading.cancel.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        inventory.relative_path(index, &mut path);
        if sharing.unshared.matches_file(&path) {
            continue;
        }
        let is_left_out = reading.is_live
            && stored >= sharing.deferred_from_bytes
            && lately.is_none_or(|lately| !entry.is_older(lately));
        match renderer.share_data(index, out, is_left_out)? {
            Ok(ranges) if is_left_out => placed.left_out.extend(ranges),
            Ok(ranges) => placed
                .shared
                .extend(ranges.into_iter().map(|range| (index, range))),
            Err(error) if is_never_possible(error) => impossible[usize::from(entry.dev)] = true,
            Err(_) => placed.refused_count += 1,
        }
    }
    Ok(placed)
}

fn write_windows(
    mut renderer: Renderer<'_>,
    crew: &Crew<'_>,
    sink: &Sink<'_>,
    cancel: &AtomicBool,
) -> Result<()> {
    let mut buffer = Buffer::new(crew.window_bytes);
    while let Some(window) = crew.next_window() {
        if cancel.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let Range { start, end } = window.range;
        let part = buffer.part((end - start) as usize);
        renderer.render(start, part)?;
        match window.compared {
            None => sink.write_at(part, start)?,
            Some(file) => {
                for range in file.differing(start, part) {
                    sink.write_at(&part[range.clone()], start + range.start as u64)?;
                }
            }
        }
        progress::add_written_bytes(end - start);
    }
    Ok(())
}

/// Writes the manifest to the front of the archive, `json` followed by spaces
/// and a newline.
///
/// Fails if `json` is longer than the room that was reserved.
pub fn write_manifest(layout: &Layout, out: &File, json: &[u8]) -> Result<()> {
    let json_bytes = json.len() as u64;
    ensure!(
        json_bytes <= layout.manifest_bytes_max(),
        "manifest of {json_bytes} bytes does not fit in {}",
        layout.manifest_bytes_max()
    );
    let mut region = layout.manifest_header.clone();
    region.extend_from_slice(json);
    region.resize(layout.start() as usize - 1, b' ');
    region.push(b'\n');
    out.write_all_at(&region, 0).context("write manifest")
}
