//! Divides the writing of an archive among pools of threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::archive::tar::ALIGNMENT_BYTES;
use crate::archive::tar::entry_head::stored_bytes;
use crate::archive::write::block_hashes::ComparedFile;
use crate::archive::write::hashes::part_end;
use crate::archive::write::layout::Layout;
use crate::archive::write::ranges::subtract;
use crate::scan::Inventory;

/// Files with at least this much stored data are large.
const LARGE_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// For the data of large files: just as many threads as keep the disk busy.
const LARGE: PoolSize = PoolSize {
    threads: 4,
    window_bytes: 1024 * 1024,
};

/// For everything else. There are more threads than processors, because a thread
/// waits for each small file that is not in the page cache.
const SMALL: PoolSize = PoolSize {
    threads: 16,
    window_bytes: 512 * 1024,
};

struct PoolSize {
    threads: usize,
    window_bytes: u64,
}

/// Threads that take windows from one queue.
pub(super) struct Pool<'a> {
    pub(super) threads: usize,
    /// Length of the longest window.
    pub(super) window_bytes: usize,
    windows: Vec<Window<'a>>,
    next: AtomicUsize,
}

/// A range of the archive that is rendered and written at once.
pub(super) struct Window<'a> {
    pub(super) range: Range<u64>,
    /// The file that it is a part of, if only the blocks that differ from the
    /// draft are written.
    pub(super) compared: Option<&'a ComparedFile>,
}

impl<'a> Pool<'a> {
    fn new(size: PoolSize, windows: impl Iterator<Item = Window<'a>>) -> Pool<'a> {
        let mut windows: Vec<Window<'_>> = windows.collect();
        windows.sort_by_key(|window| window.range.start);
        let bytes = |window: &Window<'_>| window.range.end - window.range.start;
        Pool {
            threads: size.threads.min(windows.len()),
            window_bytes: windows.iter().map(bytes).max().unwrap_or(0) as usize,
            windows,
            next: AtomicUsize::new(0),
        }
    }

    pub(super) fn next_window(&self) -> Option<&Window<'a>> {
        self.windows.get(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Drops all windows that no thread has taken yet.
    pub(super) fn cancel(&self) {
        self.next.store(self.windows.len(), Ordering::Relaxed);
    }
}

/// Splits `ranges` into the queues of two pools. A compared file that lies in one
/// of the ranges gets windows of its own.
pub(super) fn pools<'a>(
    layout: &'a Layout,
    inventory: &'a Inventory,
    ranges: &[Range<u64>],
    compared: &'a [ComparedFile],
) -> [Pool<'a>; 2] {
    // The other ones are shared, at least in part.
    let is_whole = |file: &&ComparedFile| {
        let after = ranges.partition_point(|range| range.end < file.range.end);
        let range = ranges.get(after);
        range.is_some_and(|range| range.start <= file.range.start)
    };
    let compared: Vec<&ComparedFile> = compared.iter().filter(is_whole).collect();
    let rest = subtract(ranges, compared.iter().map(|file| file.range.clone()));
    let small = subtract(&rest, large_data(layout, inventory));
    let large = subtract(&rest, small.iter().cloned());
    let compared = compared.into_iter().flat_map(|file| {
        let ranges = file.windows(LARGE.window_bytes);
        ranges.map(move |range| Window {
            range,
            compared: Some(file),
        })
    });
    [
        Pool::new(SMALL, windows(layout, inventory, small, SMALL.window_bytes)),
        Pool::new(
            LARGE,
            windows(layout, inventory, large, LARGE.window_bytes).chain(compared),
        ),
    ]
}

fn large_data(layout: &Layout, inventory: &Inventory) -> impl Iterator<Item = Range<u64>> {
    let entries = inventory.entries.iter().enumerate();
    let large =
        entries.filter(|(_, entry)| stored_bytes(inventory, entry.node) >= LARGE_FROM_BYTES);
    large.map(|(index, _)| layout.data(inventory, index))
}

/// Splits the ranges into windows of at most `bytes`. They end on boundaries of
/// blocks: a block that two threads write to would have to be read in between,
/// because it is not kept in the page cache. If possible, they end where nothing is
/// divided that is hashed as a whole.
fn windows<'a>(
    layout: &'a Layout,
    inventory: &'a Inventory,
    ranges: Vec<Range<u64>>,
    bytes: u64,
) -> impl Iterator<Item = Window<'a>> {
    ranges.into_iter().flat_map(move |range| {
        let mut start = range.start;
        std::iter::from_fn(move || {
            let limit = ((start + bytes) / ALIGNMENT_BYTES * ALIGNMENT_BYTES).min(range.end);
            let mut end = limit;
            let mut position = start;
            while position < limit {
                position = part_end(layout, inventory, position);
                if position <= limit && position.is_multiple_of(ALIGNMENT_BYTES) {
                    end = position;
                }
            }
            if position == limit {
                end = limit;
            }
            let window = start..end;
            start = end;
            (!window.is_empty()).then_some(Window {
                range: window,
                compared: None,
            })
        })
    })
}
