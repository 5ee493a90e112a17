//! Reading the data of a file in an archive, at any place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::FileData;
use crate::scan::Extent;

impl FileData {
    /// Returns the stretches of data, with their places in the file.
    pub fn data_extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let whole = Extent {
            offset: 0,
            bytes: self.stored_bytes,
            stored: 0,
        };
        let (sparse, whole) = match self.extents.as_deref() {
            Some(extents) => (extents, None),
            None => (&[][..], Some(whole)),
        };
        sparse.iter().copied().chain(whole)
    }

    /// Whether both are laid out in the same way, so that equal stored data is equal
    /// content.
    pub fn has_layout_of(&self, other: &FileData) -> bool {
        self.file_bytes == other.file_bytes && self.extents == other.extents
    }

    /// Fills `buffer` with the file's content from `offset` on. Returns how many bytes
    /// that are: fewer than asked for only at the end of the file.
    ///
    /// # Errors
    /// When the archive cannot be read, or has become shorter.
    pub fn read_at(&self, archive: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.file_bytes.saturating_sub(offset);
        let wanted = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = &mut buffer[..wanted];
        let Some(extents) = &self.extents else {
            archive.read_exact_at(buffer, self.offset + offset)?;
            return Ok(wanted);
        };
        buffer.fill(0);
        let end = offset + wanted as u64;
        let first = first_that_ends_after(extents, offset);
        for extent in extents[first..].iter().take_while(|e| e.offset < end) {
            let from = extent.offset.max(offset);
            let to = (extent.offset + extent.bytes).min(end);
            let part = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            let stored = extent.stored + (from - extent.offset);
            archive.read_exact_at(part, self.offset + stored)?;
        }
        Ok(wanted)
    }

    /// Returns where the next data is, from `offset` on; `None` if only a hole follows.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        let Some(extents) = &self.extents else {
            return (offset < self.stored_bytes).then_some(offset);
        };
        let extent = extents.get(first_that_ends_after(extents, offset))?;
        Some(extent.offset.max(offset))
    }

    /// Returns where the next hole is, from `offset` on. There is one at the end of
    /// every file.
    pub fn next_hole(&self, offset: u64) -> u64 {
        let Some(extents) = &self.extents else {
            return offset.max(self.stored_bytes).min(self.file_bytes);
        };
        let mut at = offset;
        for extent in &extents[first_that_ends_after(extents, offset)..] {
            if extent.offset > at {
                break;
            }
            at = extent.offset + extent.bytes;
        }
        at.min(self.file_bytes)
    }
}

/// A hostile archive has millions of extents, and they are asked for one by one.
fn first_that_ends_after(extents: &[Extent], offset: u64) -> usize {
    extents.partition_point(|extent| extent.offset + extent.bytes <= offset)
}
