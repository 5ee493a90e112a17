//! What is recorded of one member.

use sha2::{Digest, Sha256};

use crate::archive::hash::{DataHash, HeadHash};
use crate::archive::tar::BLOCK_BYTES;
use crate::archive::write::hashes::RenderedHashes;

/// What the sums are made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Format 1, which is only read.
    Sha256,
    /// Format 2.
    #[default]
    Blake3,
}

impl Algorithm {
    pub(super) fn digest(self, bytes: &[u8]) -> DataHash {
        match self {
            Algorithm::Sha256 => Sha256::digest(bytes).into(),
            Algorithm::Blake3 => blake3::hash(bytes).into(),
        }
    }
}

/// The hash of a member's data as stored, which tells equal data from other data if both
/// were hashed in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHash {
    algorithm: Algorithm,
    hash: DataHash,
}

impl ContentHash {
    pub(super) fn new(algorithm: Algorithm, hash: DataHash) -> ContentHash {
        ContentHash { algorithm, hash }
    }

    /// Whether the data of both is the same; `None` if that cannot be told.
    pub fn is_same(&self, other: &ContentHash) -> Option<bool> {
        (self.algorithm == other.algorithm).then_some(self.hash == other.hash)
    }

    pub fn bytes(&self) -> &DataHash {
        &self.hash
    }

    /// A hasher that tells whether data is what was hashed.
    pub fn checker(self) -> ContentChecker {
        ContentChecker {
            expected: self,
            sha256: Sha256::new(),
            blake3: blake3::Hasher::new(),
        }
    }
}

/// Compares data that is read bit by bit with its hash.
pub struct ContentChecker {
    expected: ContentHash,
    sha256: Sha256,
    blake3: blake3::Hasher,
}

impl ContentChecker {
    pub fn update(&mut self, data: &[u8]) {
        match self.expected.algorithm {
            Algorithm::Sha256 => self.sha256.update(data),
            Algorithm::Blake3 => drop(self.blake3.update(data)),
        }
    }

    /// Whether all data was the expected one.
    pub fn is_sound(self) -> bool {
        let hash: DataHash = match self.expected.algorithm {
            Algorithm::Sha256 => self.sha256.finalize().into(),
            Algorithm::Blake3 => self.blake3.finalize().into(),
        };
        hash == self.expected.hash
    }
}

/// Where a member is, and its hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberSum {
    /// Offset of its first header in the archive.
    pub(super) start: u64,
    /// Length of everything before the data.
    pub(super) head_bytes: u64,
    pub(super) data_bytes: u64,
    /// Hash of the data; zeros if there is none.
    pub(super) data: DataHash,
    /// First bytes of the hash of head and padding.
    pub(super) head: HeadHash,
    /// End of its path in the paths of all members.
    pub(super) path_end: usize,
}

impl MemberSum {
    // The numbers in a sidecar are not checked, so adding them may overflow.

    pub(super) fn data_start(&self) -> u64 {
        self.start.saturating_add(self.head_bytes)
    }

    pub(super) fn data_end(&self) -> u64 {
        self.data_start().saturating_add(self.data_bytes)
    }

    /// The hashes of head and data as they were rendered, if they are known.
    pub(super) fn rendered(
        &self,
        rendered: &RenderedHashes,
    ) -> (Option<HeadHash>, Option<DataHash>) {
        let data = match self.data_bytes {
            0 => Some([0; 32]),
            bytes => rendered.data(self.data_start(), bytes),
        };
        (rendered.head(self.start, self.head_bytes), data)
    }

    /// Offset of the end of its padding.
    pub(super) fn end(&self) -> u64 {
        let blocks = self.data_end().div_ceil(BLOCK_BYTES);
        blocks.saturating_mul(BLOCK_BYTES)
    }
}
