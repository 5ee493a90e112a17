use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use rustix::io::{Errno, ReadWriteFlags};

use super::layout::Layout;
use super::render::{Changed, Renderer};
use crate::capture::{Inventory, Source, display_path};
use crate::progress;

/// How much of the archive is rendered and written at once.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// `RWF_DONTCACHE` of `linux/fs.h`: write back at once, and keep nothing of it
/// in the page cache. Linux 6.14, ext4, XFS, Btrfs.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// How many changed files are named.
const NAMED_COUNT: usize = 20;

/// What [`write_members`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Files that changed, vanished or were replaced since they were scanned.
    /// Their members are cut or padded with zeros to the scanned size.
    pub changed_count: u64,
    /// Paths of the first of them, for messages.
    pub changed: Vec<String>,
}

/// Writes all of the archive but the manifest to `out`, which must be empty.
/// It is not synced.
///
/// Several threads each render a window of the archive and write it at its
/// place. Fails on what cannot be read, and names it; on what cannot be
/// written, naming nothing (the caller knows what `out` is); and with
/// `interrupted` soon after `cancel` is set. `sources` must be those that the
/// inventory is of.
pub fn write_members(
    layout: &Layout,
    inventory: &Inventory,
    sources: &[Source],
    out: &File,
    cancel: &AtomicBool,
) -> Result<WriteSummary> {
    let already_changed = inventory.entries.iter().enumerate();
    let already_changed = already_changed.filter(|(_, entry)| entry.changed);
    let changed: Changed = Mutex::new(already_changed.map(|(index, _)| index).collect());
    let next_window = AtomicU64::new(layout.start() / WINDOW_BYTES);
    let error = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..thread_count() {
            scope.spawn(|| {
                let renderer = Renderer::new(layout, inventory, sources, &changed);
                if let Err(failure) = write_windows(renderer, layout, out, cancel, &next_window) {
                    // The others find nothing left to do.
                    next_window.store(u64::MAX / WINDOW_BYTES / 2, Ordering::Relaxed);
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
    Ok(WriteSummary {
        changed: named.collect(),
        changed_count: changed.len() as u64,
    })
}

/// More than processors, because small files that are not in the page cache
/// are waited for.
fn thread_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (processors * 2).clamp(4, 8)
}

fn write_windows(
    mut renderer: Renderer<'_>,
    layout: &Layout,
    out: &File,
    cancel: &AtomicBool,
    next_window: &AtomicU64,
) -> Result<()> {
    let mut buffer = vec![0; WINDOW_BYTES as usize];
    loop {
        if cancel.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let window = next_window.fetch_add(1, Ordering::Relaxed);
        let start = (window * WINDOW_BYTES).max(layout.start());
        let end = ((window + 1) * WINDOW_BYTES).min(layout.archive_bytes());
        if start >= end {
            return Ok(());
        }
        let part = &mut buffer[..(end - start) as usize];
        renderer.render(start, part)?;
        write_at(out, part, start)?;
        progress::wrote(end - start);
    }
}

/// Writes all of `part`. Where the kernel can, not through the page cache: an
/// archive would push out what the stack is about to need, and writing it back
/// would only begin when there is much to write.
fn write_at(out: &File, mut part: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !part.is_empty() {
        match rustix::io::pwritev2(out, &[IoSlice::new(part)], offset, DONTCACHE) {
            Ok(written) => {
                part = &part[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            // Neither this kernel nor this file system may know the flag.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return out.write_all_at(part, offset);
            }
            Err(error) => return Err(error.into()),
        }
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
