//! One number for each entry of an inventory, to find out later which entries
//! are unchanged without keeping the inventory.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use super::inventory::{Entry, Inventory, NONE, Node};

/// A file is relied on if its ctime is at least this much older than the scan.
///
/// The kernel stamps with a clock that ticks every 1 to 10 ms, ext4 with small
/// inodes in whole seconds, so a write right after the scan may leave ctime as it
/// was. Also, a write stamps before its data has arrived. A write past the page
/// cache (`O_DIRECT`) that takes longer than this, while its file is scanned and
/// copied, is not seen; other writes are waited for, see
/// [`await_write`](super::await_write).
pub const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The fingerprint of a file that is not relied on: it equals no other, so the
/// file is read again.
pub(crate) const NEVER_EQUAL: u128 = 0;

/// Two random keys, so that nobody can construct two files with the same
/// fingerprint.
#[derive(Clone, Default)]
pub(crate) struct FingerprintKeys([RandomState; 2]);

impl FingerprintKeys {
    fn hash(&self, value: &impl Hash) -> u128 {
        let [a, b] = [0, 1].map(|i| u128::from(self.0[i].hash_one(value)));
        // The lowest bit keeps it different from NEVER_EQUAL.
        (a << 64 | b) | 1
    }

    /// Returns one fingerprint for each entry. Two inventories have the same
    /// fingerprint only for an entry with the same path, header fields, inode and
    /// ctime. A file for which `is_settled` is false gets [`NEVER_EQUAL`].
    pub(crate) fn fingerprints(
        &self,
        inventory: &Inventory,
        mut is_settled: impl FnMut(usize, &Entry) -> bool,
    ) -> Vec<u128> {
        let mut path = Vec::new();
        let fingerprint = |(index, entry, path_hash): (usize, &Entry, u128)| {
            if matches!(entry.node, Node::File { .. }) && !is_settled(index, entry) {
                return NEVER_EQUAL;
            }
            self.hash(&Fingerprinted {
                inventory,
                entry,
                path_hash,
                link: link_target(inventory, entry, &mut path),
            })
        };
        self.hashed_paths(inventory).map(fingerprint).collect()
    }

    /// Returns all entries in their order, each with its index and the hash of
    /// its path.
    pub(crate) fn hashed_paths<'a>(
        &'a self,
        inventory: &'a Inventory,
    ) -> impl Iterator<Item = (usize, &'a Entry, u128)> {
        // The directories above an entry: index and hash of the path.
        let mut above: Vec<(u32, u128)> = Vec::new();
        let entries = inventory.entries.iter().enumerate();
        entries.map(move |(index, entry)| {
            while above.last().is_some_and(|(top, _)| *top != entry.parent) {
                above.pop();
            }
            let parent = above.last().map_or(0, |(_, hash)| *hash);
            let path_hash = self.hash(&(parent, inventory.name(entry)));
            if entry.node == Node::Directory {
                above.push((index as u32, path_hash));
            }
            (index, entry, path_hash)
        })
    }

    /// Derives a secret from the keys.
    pub(crate) fn derive_secret<const BYTES: usize>(&self) -> [u8; BYTES] {
        let mut secret = [0; BYTES];
        for (number, part) in secret.chunks_mut(16).enumerate() {
            part.copy_from_slice(&self.hash(&number).to_le_bytes()[..part.len()]);
        }
        secret
    }
}

/// The target of a symlink or of a hard link; empty for other entries.
fn link_target<'a>(inventory: &'a Inventory, entry: &Entry, path: &'a mut Vec<u8>) -> &'a [u8] {
    if let Node::HardLink { first } = entry.node {
        inventory.member_path(first as usize, path);
        return path;
    }
    inventory.symlink_target(entry.node)
}

/// Everything about an entry that its fingerprint covers.
struct Fingerprinted<'a> {
    inventory: &'a Inventory,
    entry: &'a Entry,
    path_hash: u128,
    link: &'a [u8],
}

impl Hash for Fingerprinted<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let entry = self.entry;
        let times = (entry.mtime_s, entry.mtime_ns);
        (self.path_hash, entry.mode, entry.uid, entry.gid, times).hash(state);
        std::mem::discriminant(&entry.node).hash(state);
        match entry.node {
            Node::File { bytes, .. } => {
                let dev = self.inventory.devices[usize::from(entry.dev)];
                (dev, entry.ino, entry.ctime_s, entry.ctime_ns, bytes).hash(state);
                if let Some(extents) = self.inventory.extents(entry.node) {
                    for extent in extents {
                        (extent.offset, extent.bytes).hash(state);
                    }
                }
            }
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                (major, minor).hash(state);
            }
            Node::HardLink { .. } | Node::Symlink { .. } => self.link.hash(state),
            Node::Directory | Node::Fifo => {}
        }
        if entry.attributes != NONE {
            self.inventory.attributes[entry.attributes as usize].hash(state);
        }
    }
}
