//! Which blocks of a file that changed are still what they were.
//!
//! A database changes few blocks of large files. Of files that are copied once
//! more, a draft remembers a hash of each block, so that of the next copy only
//! the blocks that differ need be written.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::DEFAULT_SECRET_LENGTH;

use crate::archive::write::kept::{Kept, push};
#[cfg(test)]
use crate::scan::mutation::Mutation;

/// A page of PostgreSQL. Smaller ones would cost more memory, larger ones more
/// writing.
const COMPARED_BYTES: usize = 8 * 1024;

/// Secret and random: who writes the files must not know which blocks would
/// look alike.
pub(crate) type Key = [u8; DEFAULT_SECRET_LENGTH];

/// What a draft holds of one file.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// In the draft; data and padding.
    place: Range<u64>,
    hashes: Vec<u64>,
}

/// A file that is copied, and compared with what the draft holds of it.
pub(crate) struct Compared {
    key: Arc<Key>,
    /// Of its path; see [`FingerprintKeys::hashed_paths`](crate::scan::FingerprintKeys::hashed_paths).
    pub(crate) path: u128,
    /// In the archive that is written; data and padding.
    pub(crate) place: Range<u64>,
    old: Option<Arc<Blocks>>,
    /// Of what was written; empty until then.
    hashes: Mutex<Vec<u64>>,
}

impl Compared {
    pub(crate) fn new(
        key: Arc<Key>,
        path: u128,
        place: Range<u64>,
        old: Option<Arc<Blocks>>,
    ) -> Compared {
        Compared {
            key,
            path,
            place,
            old,
            hashes: Mutex::default(),
        }
    }

    /// Whether there is anything to compare with.
    pub(crate) fn has_old(&self) -> bool {
        self.old.is_some()
    }

    /// What of the draft turns out to be kept if nothing differs.
    pub(crate) fn may_be_kept(&self) -> Option<Kept> {
        let old = &self.old.as_ref()?.place;
        let bytes = |place: &Range<u64>| place.end - place.start;
        Some(Kept {
            old: old.start,
            new: self.place.start,
            bytes: bytes(old).min(bytes(&self.place)),
        })
    }

    /// Parts of it that can be hashed by themselves, each at most `bytes` long,
    /// which must be a multiple of a block.
    pub(crate) fn windows(&self, bytes: u64) -> impl Iterator<Item = Range<u64>> {
        debug_assert!(bytes.is_multiple_of(COMPARED_BYTES as u64));
        let Range { start, end } = self.place;
        let starts = (start..end).step_by(bytes as usize);
        starts.map(move |start| start..(start + bytes).min(end))
    }

    /// Takes note of `window`, which belongs at `start` in the archive. Returns
    /// the parts of it that are not in the draft.
    pub(crate) fn differing(&self, start: u64, window: &[u8]) -> Vec<Range<usize>> {
        let first = (start - self.place.start) as usize / COMPARED_BYTES;
        let blocks = window.chunks(COMPARED_BYTES);
        let hashes: Vec<u64> = blocks.map(|block| hash(&self.key, block)).collect();
        let mut differing: Vec<Range<usize>> = Vec::new();
        for (number, hash) in hashes.iter().enumerate() {
            if self.is_same(first + number, *hash) {
                continue;
            }
            let start = number * COMPARED_BYTES;
            let end = (start + COMPARED_BYTES).min(window.len());
            match differing.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => differing.push(start..end),
            }
        }
        let mut all = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = (self.place.end - self.place.start) as usize;
        all.resize(bytes.div_ceil(COMPARED_BYTES), 0);
        all[first..first + hashes.len()].copy_from_slice(&hashes);
        differing
    }

    fn is_same(&self, number: usize, hash: u64) -> bool {
        self.old.as_ref().is_some_and(|old| {
            let is_equal = old.hashes.get(number) == Some(&hash);
            #[cfg(test)]
            let is_equal = is_equal || Mutation::Blocks.is_on();
            is_equal && block_bytes(&old.place, number) == block_bytes(&self.place, number)
        })
    }

    /// What of it was in the draft, ascending.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = Vec::new();
        let Some(old) = &self.old else {
            return kept;
        };
        for (number, hash) in hashes.iter().enumerate() {
            if self.is_same(number, *hash) {
                let offset = (number * COMPARED_BYTES) as u64;
                let same = Kept {
                    old: old.place.start + offset,
                    new: self.place.start + offset,
                    bytes: block_bytes(&self.place, number),
                };
                push(&mut kept, same);
            }
        }
        kept
    }

    /// `None` if none of it was written as it is read: its blocks are shared.
    pub(crate) fn into_blocks(self) -> Option<Arc<Blocks>> {
        let hashes = self.hashes.into_inner();
        let hashes = hashes.unwrap_or_else(PoisonError::into_inner);
        let place = self.place;
        (!hashes.is_empty()).then(|| Arc::new(Blocks { place, hashes }))
    }
}

/// The last block is shorter, and there is nothing behind it.
fn block_bytes(place: &Range<u64>, number: usize) -> u64 {
    let bytes = place.end - place.start;
    let before = (number * COMPARED_BYTES) as u64;
    bytes.saturating_sub(before).min(COMPARED_BYTES as u64)
}

fn hash(key: &Key, block: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_secret(key, block).expect("a secret that is long enough")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<Key> {
        Arc::new([7; DEFAULT_SECRET_LENGTH])
    }

    fn take_in(compared: &Compared, data: &[u8]) -> Vec<Range<usize>> {
        let window_bytes = 2 * COMPARED_BYTES as u64;
        let windows = compared.windows(window_bytes);
        let differing = windows.flat_map(|window| {
            let offset = (window.start - compared.place.start) as usize;
            let part = &data[offset..offset + (window.end - window.start) as usize];
            let found = compared.differing(window.start, part);
            found
                .into_iter()
                .map(move |range| range.start + offset..range.end + offset)
        });
        // Those of neighbouring windows as one.
        differing.fold(Vec::new(), |mut all: Vec<Range<usize>>, range| {
            match all.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => all.push(range),
            }
            all
        })
    }

    #[test]
    fn only_blocks_that_differ_are_written_and_the_others_kept() {
        let mut data = vec![1; 5 * COMPARED_BYTES + 512];
        let bytes = data.len() as u64;
        let first = Compared::new(key(), 0, 4096..4096 + bytes, None);
        assert_eq!(take_in(&first, &data), vec![0..data.len()]);
        assert!(first.kept().is_empty());
        let old = first.into_blocks();
        data[COMPARED_BYTES + 3] = 2;
        let again = Compared::new(key(), 0, 8192..8192 + bytes, old.clone());
        assert_eq!(
            take_in(&again, &data),
            vec![COMPARED_BYTES..2 * COMPARED_BYTES]
        );
        let place = |number: usize| (number * COMPARED_BYTES) as u64;
        let expected = [
            Kept {
                old: 4096,
                new: 8192,
                bytes: place(1),
            },
            Kept {
                old: 4096 + place(2),
                new: 8192 + place(2),
                bytes: bytes - place(2),
            },
        ];
        assert_eq!(again.kept(), expected);
        // It ends within what was its third block.
        let short = &data[..2 * COMPARED_BYTES + 512];
        let bytes = short.len() as u64;
        let shorter = Compared::new(key(), 0, 0..bytes, old);
        assert_eq!(take_in(&shorter, short), vec![COMPARED_BYTES..short.len()]);
    }
}
