//! How the writing of an archive is divided among threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::archive::tar::entry_head::stored_bytes;
use crate::archive::write::block_hashes::Compared;
use crate::archive::write::kept::subtract;
use crate::archive::write::layout::Layout;
use crate::scan::Inventory;

/// Files with at least this much stored data are large.
const LARGE_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// For the data of large files: as few threads as keep the disk busy.
const LARGE: Size = Size {
    threads: 4,
    window_bytes: 1024 * 1024,
};

/// For all else. More threads than processors: a small file that is not in the
/// page cache is waited for.
const SMALL: Size = Size {
    threads: 16,
    window_bytes: 512 * 1024,
};

struct Size {
    threads: usize,
    window_bytes: u64,
}

/// Threads that share out windows among them.
pub(crate) struct Crew<'a> {
    pub(crate) threads: usize,
    /// The longest window.
    pub(crate) window_bytes: usize,
    windows: Vec<Window<'a>>,
    next: AtomicUsize,
}

/// What is rendered and written at once.
pub(crate) struct Window<'a> {
    pub(crate) range: Range<u64>,
    pub(crate) compared: Option<&'a Compared>,
}

impl<'a> Crew<'a> {
    fn new(size: Size, windows: impl Iterator<Item = Window<'a>>) -> Crew<'a> {
        let mut windows: Vec<Window<'_>> = windows.collect();
        windows.sort_by_key(|window| window.range.start);
        let bytes = |window: &Window<'_>| window.range.end - window.range.start;
        Crew {
            threads: size.threads.min(windows.len()),
            window_bytes: windows.iter().map(bytes).max().unwrap_or(0) as usize,
            windows,
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn next_window(&self) -> Option<&Window<'a>> {
        self.windows.get(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// There is nothing left to do.
    pub(crate) fn dismiss(&self) {
        self.next.store(self.windows.len(), Ordering::Relaxed);
    }
}

/// Who writes what is in `ranges`. Those of the `compared` files that lie in
/// one of them have windows of their own.
pub(crate) fn crews<'a>(
    layout: &Layout,
    inventory: &Inventory,
    ranges: &[Range<u64>],
    compared: &'a [Compared],
) -> [Crew<'a>; 2] {
    // Others are shared.
    let is_whole = |file: &&Compared| {
        let after = ranges.partition_point(|range| range.end < file.place.end);
        let range = ranges.get(after);
        range.is_some_and(|range| range.start <= file.place.start)
    };
    let compared: Vec<&Compared> = compared.iter().filter(is_whole).collect();
    let rest = subtract(ranges, compared.iter().map(|file| file.place.clone()));
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
        Crew::new(SMALL, windows(small, SMALL.window_bytes)),
        Crew::new(LARGE, windows(large, LARGE.window_bytes).chain(compared)),
    ]
}

fn large_data(layout: &Layout, inventory: &Inventory) -> impl Iterator<Item = Range<u64>> {
    let entries = inventory.entries.iter().enumerate();
    let large =
        entries.filter(|(_, entry)| stored_bytes(inventory, entry.node) >= LARGE_FROM_BYTES);
    large.map(|(index, _)| layout.data(inventory, index))
}

/// Parts of the ranges that are written at once, which end where windows of the
/// whole archive do.
fn windows<'a>(ranges: Vec<Range<u64>>, bytes: u64) -> impl Iterator<Item = Window<'a>> {
    ranges.into_iter().flat_map(move |range| {
        let windows = range.start / bytes..range.end.div_ceil(bytes);
        windows.map(move |window| Window {
            range: (window * bytes).max(range.start)..((window + 1) * bytes).min(range.end),
            compared: None,
        })
    })
}
