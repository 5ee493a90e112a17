//! Hashes of what was rendered, taken on its way into the archive.

use std::ops::Range;

use crate::archive::hash::{
    DataHash, HeadHash, PIECE_BYTES, hash_head, hash_piece, join_pieces, piece_bytes, piece_count,
};
use crate::archive::tar::entry_head::stored_bytes;
use crate::archive::tar::{ALIGNED_FROM_BYTES, BLOCK_BYTES};
use crate::archive::write::layout::Layout;
use crate::archive::write::segment::Segment;
use crate::scan::Inventory;

/// The hashes of parts of an archive as they were rendered. Parts of which no
/// hash is known are those that were not rendered in one piece, whose blocks are
/// shared, or that were written while a stack was down.
#[derive(Clone, Debug, Default)]
pub struct RenderedHashes {
    /// Ascending by offset, once [`sort`](RenderedHashes::sort) was called.
    heads: Vec<HashedHead>,
    pieces: Vec<HashedPiece>,
}

#[derive(Clone, Copy, Debug)]
struct HashedHead {
    /// Offset of the member.
    start: u64,
    bytes: u32,
    /// Hash of the member's head and its padding.
    hash: HeadHash,
}

#[derive(Clone, Copy, Debug)]
struct HashedPiece {
    start: u64,
    bytes: u32,
    hash: DataHash,
}

impl RenderedHashes {
    /// Hashes all that is whole in `window`, which belongs at `start` in the
    /// archive.
    pub(super) fn add(
        &mut self,
        layout: &Layout,
        inventory: &Inventory,
        start: u64,
        window: &[u8],
    ) {
        let end = start + window.len() as u64;
        let part = |range: &Range<u64>| {
            let is_whole = start <= range.start && range.end <= end;
            is_whole.then(|| &window[(range.start - start) as usize..(range.end - start) as usize])
        };
        for index in layout.entry_at(start)..inventory.entries.len() {
            let member = layout.offsets[index];
            if member >= end {
                break;
            }
            let data_bytes = stored_bytes(inventory, inventory.entries[index].node);
            let data = layout.data(inventory, index).start;
            if let Some(head) = part(&(member..data)) {
                let padding = [0; BLOCK_BYTES as usize];
                let padding_bytes = data_bytes.next_multiple_of(BLOCK_BYTES) - data_bytes;
                self.heads.push(HashedHead {
                    start: member,
                    bytes: head.len() as u32,
                    hash: hash_head(head, &padding[..padding_bytes as usize]),
                });
            }
            let first = start.saturating_sub(data) / PIECE_BYTES;
            let until = piece_count(data_bytes).min(end.saturating_sub(data).div_ceil(PIECE_BYTES));
            for number in first..until {
                let piece = data + number * PIECE_BYTES;
                let bytes = piece_bytes(data_bytes, number);
                if let Some(part) = part(&(piece..piece + bytes)) {
                    self.pieces.push(HashedPiece {
                        start: piece,
                        bytes: bytes as u32,
                        hash: hash_piece(part, number, data_bytes),
                    });
                }
            }
        }
    }

    pub(super) fn append(&mut self, mut other: RenderedHashes) {
        self.heads.append(&mut other.heads);
        self.pieces.append(&mut other.pieces);
    }

    pub(super) fn sort(&mut self) {
        self.heads.sort_unstable_by_key(|head| head.start);
        self.pieces.sort_unstable_by_key(|piece| piece.start);
    }

    /// Goes over to a later archive, of which `kept` are the parts that were in the
    /// older one and were not written again, ascending in both; `written` are the
    /// hashes of what was.
    pub(crate) fn advance(&mut self, kept: &[Segment], written: RenderedHashes) {
        self.heads.retain_mut(|head| {
            let place = place(kept, head.start, head.bytes);
            place.map(|place| head.start = place).is_some()
        });
        self.pieces.retain_mut(|piece| {
            let place = place(kept, piece.start, piece.bytes);
            place.map(|place| piece.start = place).is_some()
        });
        self.append(written);
        self.sort();
    }

    /// The hash of the head and the padding of the member at `start`, if it was
    /// rendered as such.
    pub(crate) fn head(&self, start: u64, bytes: u64) -> Option<HeadHash> {
        let found = self.heads.binary_search_by_key(&start, |head| head.start);
        let head = self.heads[found.ok()?];
        (u64::from(head.bytes) == bytes).then_some(head.hash)
    }

    /// The hash of the data at `start`, if all of it was rendered as such.
    pub(crate) fn data(&self, start: u64, bytes: u64) -> Option<DataHash> {
        let found = self
            .pieces
            .binary_search_by_key(&start, |piece| piece.start);
        let count = usize::try_from(piece_count(bytes)).ok()?;
        let pieces = self.pieces[found.ok()?..].get(..count)?;
        let is_piece = |(number, piece): (usize, &HashedPiece)| {
            let number = number as u64;
            piece.start == start + number * PIECE_BYTES
                && u64::from(piece.bytes) == piece_bytes(bytes, number)
        };
        if count == 0 || !pieces.iter().enumerate().all(is_piece) {
            return None;
        }
        let hashes: Vec<DataHash> = pieces.iter().map(|piece| piece.hash).collect();
        Some(join_pieces(&hashes))
    }
}

/// Where the bytes from `start` on are in the later archive, if all of them are in
/// one segment.
fn place(kept: &[Segment], start: u64, bytes: u32) -> Option<u64> {
    let after = kept.partition_point(|segment| segment.old <= start);
    let segment = kept.get(after.checked_sub(1)?)?;
    let is_whole = start + u64::from(bytes) <= segment.old + segment.bytes;
    is_whole.then(|| segment.new + (start - segment.old))
}

/// The end of the part that is hashed as a whole and holds the byte at `position`:
/// a member, or the head of one whose data is aligned, or a piece of its data.
pub(super) fn part_end(layout: &Layout, inventory: &Inventory, position: u64) -> u64 {
    let index = layout.entry_at(position);
    let Some(entry) = inventory.entries.get(index) else {
        return layout.archive_bytes();
    };
    let data = layout.data(inventory, index);
    if stored_bytes(inventory, entry.node) < ALIGNED_FROM_BYTES {
        data.end
    } else if position < data.start {
        data.start
    } else {
        let number = (position - data.start) / PIECE_BYTES;
        data.end.min(data.start + (number + 1) * PIECE_BYTES)
    }
}
