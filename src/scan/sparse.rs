//! Holes in files.

use std::fs::File;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// A file whose holes together are smaller than this is stored whole, with zeros,
/// so that readers without support for sparse files get it too.
const WORTHWHILE_BYTES: u64 = 64 * 1024;

/// A file with more extents than this has its small holes stored as zeros.
const MAX_EXTENTS: usize = 1 << 20;

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its place in the file.
    pub offset: u64,
    pub bytes: u64,
    /// Its place in the stored data: the sum of `bytes` before it.
    pub stored: u64,
}

/// Returns the data of `file` (of `size` bytes) without its holes, ascending, as
/// `lseek(2)` finds them by `SEEK_DATA` and `SEEK_HOLE`. `None` if leaving out the
/// holes would save little, or the file system does not report holes.
pub(crate) fn extents(file: &File, size: u64) -> rustix::io::Result<Option<Box<[Extent]>>> {
    let mut found: Vec<Extent> = Vec::new();
    let mut smallest_hole = 1;
    let mut position = 0;
    while position < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(data) if data < size => data,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let hole = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.clamp(data, size),
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error),
        };
        add(&mut found, data, hole, smallest_hole);
        position = hole.max(data + 1);
        if found.len() >= MAX_EXTENTS {
            smallest_hole = smallest_hole.max(4096) * 4;
            found = merged(&found, smallest_hole);
        }
    }
    let stored = number(&mut found);
    Ok((size - stored >= WORTHWHILE_BYTES).then(|| found.into_boxed_slice()))
}

/// Appends the data between `start` and `end`. A hole before it that is smaller
/// than `smallest_hole` bytes becomes data.
fn add(extents: &mut Vec<Extent>, start: u64, end: u64, smallest_hole: u64) {
    match extents.last_mut() {
        Some(last) if start - (last.offset + last.bytes) < smallest_hole => {
            last.bytes = end - last.offset;
        }
        _ => extents.push(Extent {
            offset: start,
            bytes: end - start,
            stored: 0,
        }),
    }
}

/// Returns the extents with all holes smaller than `smallest_hole` turned into
/// data.
pub(crate) fn merged(extents: &[Extent], smallest_hole: u64) -> Vec<Extent> {
    let mut merged = Vec::new();
    for extent in extents {
        let end = extent.offset + extent.bytes;
        add(&mut merged, extent.offset, end, smallest_hole);
    }
    merged
}

/// Fills in `stored`. Returns the length of all data.
fn number(extents: &mut [Extent]) -> u64 {
    let mut stored = 0;
    for extent in extents {
        extent.stored = stored;
        stored += extent.bytes;
    }
    stored
}
