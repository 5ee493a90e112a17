//! Which blocks of a changed file are unchanged.
//!
//! A database changes few blocks of its large files. For files that are copied
//! more than once, a draft keeps a hash of each block, so that the next copy
//! writes only the blocks that differ.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::DEFAULT_SECRET_LENGTH;

use crate::archive::write::segment::{Segment, append};
#[cfg(test)]
use crate::scan::mutation::Mutation;

/// A page of PostgreSQL. Smaller blocks would need more memory, larger ones more
/// writing.
const HASHED_BYTES: usize = 8 * 1024;

/// Random and secret: whoever writes the files must not be able to craft two
/// blocks with the same hash.
pub(crate) type HashSecret = [u8; DEFAULT_SECRET_LENGTH];

/// The blocks of one file in a draft.
#[derive(Debug)]
pub(crate) struct BlockHashes {
    /// Where the file's data and padding are in the draft.
    range: Range<u64>,
    hashes: Vec<u64>,
}

/// A file that is copied and compared with its blocks in the draft.
pub(crate) struct ComparedFile {
    secret: Arc<HashSecret>,
    /// Hash of the path; see [`FingerprintKeys::hashed_paths`](crate::scan::FingerprintKeys::hashed_paths).
    pub(crate) path: u128,
    /// Where its data and padding are in the archive that is written.
    pub(crate) range: Range<u64>,
    /// `None` if the draft has no hashes of this file.
    draft: Option<Arc<BlockHashes>>,
    /// Hashes of the blocks that were read; empty before that.
    hashes: Mutex<Vec<u64>>,
}

impl ComparedFile {
    pub(crate) fn new(
        secret: Arc<HashSecret>,
        path: u128,
        range: Range<u64>,
        draft: Option<Arc<BlockHashes>>,
    ) -> ComparedFile {
        ComparedFile {
            secret,
            path,
            range,
            draft,
            hashes: Mutex::default(),
        }
    }

    /// Whether the draft has blocks to compare with.
    pub(crate) fn has_draft(&self) -> bool {
        self.draft.is_some()
    }

    /// The segment that stays in the draft if no block differs.
    pub(crate) fn largest_unchanged(&self) -> Option<Segment> {
        let old = &self.draft.as_ref()?.range;
        let bytes = |range: &Range<u64>| range.end - range.start;
        Some(Segment {
            old: old.start,
            new: self.range.start,
            bytes: bytes(old).min(bytes(&self.range)),
        })
    }

    /// Splits the file into windows that can be hashed separately. `bytes` is the
    /// length of a window; it must be a multiple of a block.
    pub(crate) fn windows(&self, bytes: u64) -> impl Iterator<Item = Range<u64>> {
        debug_assert!(bytes.is_multiple_of(HASHED_BYTES as u64));
        let Range { start, end } = self.range;
        let starts = (start..end).step_by(bytes as usize);
        starts.map(move |start| start..(start + bytes).min(end))
    }

    /// Hashes `window`, which belongs at `start` in the archive. Returns the parts
    /// of it that are not in the draft.
    pub(crate) fn differing(&self, start: u64, window: &[u8]) -> Vec<Range<usize>> {
        let first = (start - self.range.start) as usize / HASHED_BYTES;
        let blocks = window.chunks(HASHED_BYTES);
        let hashes: Vec<u64> = blocks.map(|block| hash(&self.secret, block)).collect();
        let mut differing: Vec<Range<usize>> = Vec::new();
        for (number, hash) in hashes.iter().enumerate() {
            if self.is_unchanged(first + number, *hash) {
                continue;
            }
            let start = number * HASHED_BYTES;
            let end = (start + HASHED_BYTES).min(window.len());
            match differing.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => differing.push(start..end),
            }
        }
        let mut all = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = (self.range.end - self.range.start) as usize;
        all.resize(bytes.div_ceil(HASHED_BYTES), 0);
        all[first..first + hashes.len()].copy_from_slice(&hashes);
        differing
    }

    fn is_unchanged(&self, number: usize, hash: u64) -> bool {
        self.draft.as_ref().is_some_and(|draft| {
            let is_equal = draft.hashes.get(number) == Some(&hash);
            #[cfg(test)]
            let is_equal = is_equal || Mutation::Blocks.is_on();
            is_equal && block_bytes(&draft.range, number) == block_bytes(&self.range, number)
        })
    }

    /// The unchanged blocks of the file, ascending.
    pub(crate) fn unchanged(&self) -> Vec<Segment> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unchanged = Vec::new();
        let Some(draft) = &self.draft else {
            return unchanged;
        };
        for (number, hash) in hashes.iter().enumerate() {
            if self.is_unchanged(number, *hash) {
                let offset = (number * HASHED_BYTES) as u64;
                let block = Segment {
                    old: draft.range.start + offset,
                    new: self.range.start + offset,
                    bytes: block_bytes(&self.range, number),
                };
                append(&mut unchanged, block);
            }
        }
        unchanged
    }

    /// The hashes for the next comparison. `None` if no block was read, because
    /// all are shared.
    pub(crate) fn into_hashes(self) -> Option<Arc<BlockHashes>> {
        let hashes = self.hashes.into_inner();
        let hashes = hashes.unwrap_or_else(PoisonError::into_inner);
        let range = self.range;
        (!hashes.is_empty()).then(|| Arc::new(BlockHashes { range, hashes }))
    }
}

/// The length of a block: the last one is shorter, and those behind it have none.
fn block_bytes(range: &Range<u64>, number: usize) -> u64 {
    let bytes = range.end - range.start;
    let before = (number * HASHED_BYTES) as u64;
    bytes.saturating_sub(before).min(HASHED_BYTES as u64)
}

fn hash(secret: &HashSecret, block: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_secret(secret, block).expect("the secret has the default length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Arc<HashSecret> {
        Arc::new([7; DEFAULT_SECRET_LENGTH])
    }

    /// Reads `data` in windows; returns the ranges that differ.
    fn differing(file: &ComparedFile, data: &[u8]) -> Vec<Range<usize>> {
        let window_bytes = 2 * HASHED_BYTES as u64;
        let windows = file.windows(window_bytes);
        let differing = windows.flat_map(|window| {
            let offset = (window.start - file.range.start) as usize;
            let part = &data[offset..offset + (window.end - window.start) as usize];
            let found = file.differing(window.start, part);
            found
                .into_iter()
                .map(move |range| range.start + offset..range.end + offset)
        });
        // Joins the ranges of neighbouring windows.
        differing.fold(Vec::new(), |mut all: Vec<Range<usize>>, range| {
            match all.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => all.push(range),
            }
            all
        })
    }

    #[test]
    fn only_blocks_that_differ_are_written() {
        let mut data = vec![1; 5 * HASHED_BYTES + 512];
        let bytes = data.len() as u64;
        let first = ComparedFile::new(secret(), 0, 4096..4096 + bytes, None);
        assert_eq!(differing(&first, &data), vec![0..data.len()]);
        assert!(first.unchanged().is_empty());
        let draft = first.into_hashes();
        data[HASHED_BYTES + 3] = 2;
        let again = ComparedFile::new(secret(), 0, 8192..8192 + bytes, draft.clone());
        assert_eq!(
            differing(&again, &data),
            vec![HASHED_BYTES..2 * HASHED_BYTES]
        );
        let block_start = |number: usize| (number * HASHED_BYTES) as u64;
        let expected = [
            Segment {
                old: 4096,
                new: 8192,
                bytes: block_start(1),
            },
            Segment {
                old: 4096 + block_start(2),
                new: 8192 + block_start(2),
                bytes: bytes - block_start(2),
            },
        ];
        assert_eq!(again.unchanged(), expected);
        // The file now ends within what was its third block.
        let short = &data[..2 * HASHED_BYTES + 512];
        let bytes = short.len() as u64;
        let shorter = ComparedFile::new(secret(), 0, 0..bytes, draft);
        assert_eq!(differing(&shorter, short), vec![HASHED_BYTES..short.len()]);
    }
}
