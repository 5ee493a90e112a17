use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use super::inventory::{Entry, Inventory, NONE, Node};

/// How much older than a scan a file's ctime must be to be relied on.
///
/// The kernel stamps with a clock that ticks every 1 to 10 ms, ext4 with small
/// inodes in whole seconds: a write right after the scan may leave ctime as it
/// was. And a write stamps before its data has arrived: one that goes past the
/// page cache (`O_DIRECT`) and is under way for longer than this, while its file
/// is scanned and copied, is not seen. Others are waited for, see
/// [`await_write`](super::await_write).
pub const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Means: whatever this file is found to be later, it is not what it was.
pub(crate) const UNSETTLED: u128 = 0;

/// Two random keys, so that nobody can make two files look alike.
#[derive(Clone, Default)]
pub(crate) struct Keys([RandomState; 2]);

impl Keys {
    fn hash(&self, value: &impl Hash) -> u128 {
        let [a, b] = [0, 1].map(|i| u128::from(self.0[i].hash_one(value)));
        // Never UNSETTLED.
        (a << 64 | b) | 1
    }

    /// One number for each entry: the same in two inventories only if its
    /// path, all that its header says, inode and ctime are the same. Of files
    /// for which `is_settled` is false it is [`UNSETTLED`].
    pub(crate) fn fingerprints(
        &self,
        inventory: &Inventory,
        mut is_settled: impl FnMut(usize, &Entry) -> bool,
    ) -> Vec<u128> {
        let mut path = Vec::new();
        let fingerprint = |(index, entry, path_hash): (usize, &Entry, u128)| {
            if matches!(entry.node, Node::File { .. }) && !is_settled(index, entry) {
                return UNSETTLED;
            }
            self.hash(&Facts {
                inventory,
                entry,
                path_hash,
                link: link_of(inventory, entry, &mut path),
            })
        };
        self.paths(inventory).map(fingerprint).collect()
    }

    /// All entries, in their order, with their indexes and hashes of their paths.
    pub(crate) fn paths<'a>(
        &'a self,
        inventory: &'a Inventory,
    ) -> impl Iterator<Item = (usize, &'a Entry, u128)> {
        // Of the directories above an entry: index and hash of the path.
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

    /// As secret as they are.
    pub(crate) fn secret<const BYTES: usize>(&self) -> [u8; BYTES] {
        let mut secret = [0; BYTES];
        for (number, part) in secret.chunks_mut(16).enumerate() {
            part.copy_from_slice(&self.hash(&number).to_le_bytes()[..part.len()]);
        }
        secret
    }
}

/// The target of a symlink or of a hard link.
fn link_of<'a>(inventory: &'a Inventory, entry: &Entry, path: &'a mut Vec<u8>) -> &'a [u8] {
    if let Node::HardLink { first } = entry.node {
        inventory.member_path(first as usize, path);
        return path;
    }
    inventory.symlink_target(entry.node)
}

/// All that a fingerprint is of.
struct Facts<'a> {
    inventory: &'a Inventory,
    entry: &'a Entry,
    path_hash: u128,
    link: &'a [u8],
}

impl Hash for Facts<'_> {
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
