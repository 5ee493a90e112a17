//! Writing an archive: its layout, and threads that render it.

pub mod block_hashes;
pub mod hashes;
pub mod layout;
pub mod options;
mod pools;
pub mod ranges;
pub mod render;
pub mod segment;
pub mod share;
mod shared_data;
pub mod sink;

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::archive::write::block_hashes::ComparedFile;
use crate::archive::write::hashes::RenderedHashes;
use crate::archive::write::layout::Layout;
use crate::archive::write::options::ReadOptions;
use crate::archive::write::pools::{Pool, pools};
use crate::archive::write::ranges::{subtract, total_bytes};
use crate::archive::write::render::{ChangedEntries, Renderer};
use crate::archive::write::shared_data::{SharedData, share_data};
use crate::archive::write::sink::{AlignedBuffer, Sink};
use crate::scan::Inventory;
#[cfg(test)]
use crate::scan::mutation::Mutation;
use crate::sys::format::display_path;
use crate::sys::progress;
use crate::sys::threads::spawn_some;

/// How many changed files a summary names.
const NAMED_COUNT: usize = 20;

/// What happened while an archive was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Files that changed, vanished or were replaced since they were scanned.
    /// Their members are cut, or padded with zeros, to the scanned size.
    pub changed_count: u64,
    /// Member paths of the first of these files, for messages.
    pub changed: Vec<String>,
    /// Bytes of file data whose blocks the sources and the archive share.
    pub shared_bytes: u64,
    /// Files that the file system refused to share although it can share others:
    /// the file is not copy-on-write, or no more references are possible.
    pub refused_count: u64,
}

/// Writes the whole archive except the manifest to `out`, which must be empty.
/// Does not sync it.
///
/// Several threads each render a window of the archive and write it at its place.
///
/// # Errors
/// Names what cannot be read. An error of `out` names nothing, because the caller
/// knows what `out` is.
pub fn write_members(
    layout: &Layout,
    inventory: &Inventory,
    options: ReadOptions<'_>,
    out: &File,
) -> Result<(WriteSummary, RenderedHashes)> {
    let all = layout.start()..layout.archive_bytes();
    let written = write_ranges(layout, inventory, options, out, &[all], &[])?;
    Ok((written.summary, written.hashes))
}

/// What was written of some ranges of an archive.
#[derive(Default)]
pub struct WriteResult {
    pub summary: WriteSummary,
    /// See [`ReadOptions::hash`].
    pub(crate) hashes: RenderedHashes,
    /// Entries that changed while they were read, or were deferred.
    pub(crate) changed: BTreeSet<usize>,
    /// Ranges of the archive that are shared, and the entry that each belongs to;
    /// ascending.
    pub(crate) shared: Vec<(usize, Range<u64>)>,
    /// Bytes that were not written yet; see
    /// [`ShareOptions::deferred_from_bytes`](options::ShareOptions::deferred_from_bytes).
    pub deferred_bytes: u64,
}

/// Writes the parts of the archive in `ranges` (ascending). Blocks of the
/// `compared` files that are in the draft are not written.
pub(crate) fn write_ranges(
    layout: &Layout,
    inventory: &Inventory,
    options: ReadOptions<'_>,
    out: &File,
    ranges: &[Range<u64>],
    compared: &[ComparedFile],
) -> Result<WriteResult> {
    let already_changed = inventory.entries.iter().enumerate();
    let already_changed = already_changed.filter(|(_, entry)| entry.changed);
    let changed: ChangedEntries = Mutex::new(already_changed.map(|(index, _)| index).collect());
    let shared = match options.share {
        Some(sharing) => share_data(layout, inventory, options, &changed, (out, sharing), ranges)?,
        None => SharedData::default(),
    };
    let shared_ranges = shared.ranges.iter().map(|(_, range)| range.clone());
    let rest = subtract(ranges, shared_ranges);
    let rest = subtract(&rest, shared.deferred.iter().cloned());
    let pools = pools(layout, inventory, &rest, compared);
    let error = Mutex::new(None);
    let hashes = Mutex::new(RenderedHashes::default());
    let sink = Sink::new(out);
    #[cfg(test)]
    let mutation = Mutation::current();
    std::thread::scope(|scope| {
        let (pools, sink, error, hashes, changed) = (&pools, &sink, &error, &hashes, &changed);
        let fail = move |failure| {
            pools.iter().for_each(Pool::cancel);
            let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
            error.get_or_insert(failure);
        };
        for pool in pools {
            let work = move || {
                #[cfg(test)]
                Mutation::inherit(mutation);
                let renderer = Renderer::new(layout, inventory, options, changed);
                match write_windows(renderer, pool, sink) {
                    Ok(own) => {
                        let mut hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
                        hashes.append(own);
                    }
                    Err(failure) => fail(failure),
                }
            };
            if let Err(failure) = spawn_some(scope, pool.threads, work) {
                fail(failure);
            }
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
        shared_bytes: total_bytes(shared.ranges.iter().map(|(_, range)| range)),
        refused_count: shared.refused_count,
    };
    let mut hashes = hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
    hashes.sort();
    Ok(WriteResult {
        summary,
        hashes,
        changed,
        shared: shared.ranges,
        deferred_bytes: total_bytes(&shared.deferred),
    })
}

/// Renders and writes windows until the pool has none left. Returns the hashes of
/// what was rendered, if they are wanted.
fn write_windows(
    mut renderer: Renderer<'_>,
    pool: &Pool<'_>,
    sink: &Sink<'_>,
) -> Result<RenderedHashes> {
    let mut hashes = RenderedHashes::default();
    let mut buffer = AlignedBuffer::new(pool.window_bytes);
    while let Some(window) = pool.next_window() {
        let options = renderer.options;
        if options.cancel.load(Ordering::Relaxed) {
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
        if options.hash {
            // The storage is busy with what was written meanwhile.
            hashes.add(renderer.layout, renderer.inventory, start, part);
        }
        progress::add_written_bytes(end - start);
    }
    Ok(hashes)
}

/// Writes the manifest to the front of the archive: `json`, then spaces and a
/// newline.
///
/// # Errors
/// When `json` is longer than the space reserved for it, or `out` cannot be
/// written to.
pub fn write_manifest(layout: &Layout, out: &File, json: &[u8]) -> Result<()> {
    let json_bytes = json.len() as u64;
    ensure!(
        json_bytes <= layout.manifest_bytes_max(),
        "the manifest has {json_bytes} bytes; only {} are reserved for it",
        layout.manifest_bytes_max()
    );
    let mut region = layout.manifest_header.clone();
    region.extend_from_slice(json);
    region.resize(layout.start() as usize - 1, b' ');
    region.push(b'\n');
    out.write_all_at(&region, 0)
        .context("cannot write the manifest")
}
