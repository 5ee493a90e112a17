//! Inode numbers that are the same in every archive that has the same path, so that a
//! program that backs up the mounted directory knows the files of the night before.

use std::collections::HashMap;

use crate::archive::tree::{ArchiveTree, NodeId};

/// Bits of a number that belong to the path within an archive. Those above them tell
/// archives apart.
const PATH_BITS: u32 = 44;
const PATH_MASK: u64 = (1 << PATH_BITS) - 1;
const SLOT_MAX: u64 = (1 << (64 - PATH_BITS)) - 1;
/// The number of the root of every FUSE file system.
pub(super) const ROOT: u64 = 1;

/// The numbers of an archive's members, without those of its slot.
#[derive(Debug)]
pub(super) struct Inodes {
    numbers: Vec<u64>,
    nodes: HashMap<u64, NodeId>,
}

impl Inodes {
    /// Numbers all nodes by their paths. A file with several names has the number of
    /// the first. If two paths have the same hash, which happens by chance or in a
    /// hostile archive, the later one takes the next free number.
    pub(super) fn of(tree: &ArchiveTree) -> Inodes {
        let mut inodes = Inodes {
            numbers: vec![0; tree.node_count()],
            nodes: HashMap::with_capacity(tree.node_count()),
        };
        let mut stack = vec![(ArchiveTree::ROOT, 0, 0)];
        while let Some((directory, next, hash)) = stack.pop() {
            let Some((name, child)) = tree.children(directory).get(next) else {
                continue;
            };
            stack.push((directory, next + 1, hash));
            let hash = path_hash(hash, name);
            inodes.add(*child, hash);
            if tree.is_directory(*child) {
                stack.push((*child, 0, hash));
            }
        }
        inodes
    }

    fn add(&mut self, id: NodeId, hash: u64) {
        if self.numbers[id as usize] != 0 {
            return;
        }
        let mut number = (hash & PATH_MASK).max(1);
        while self.nodes.contains_key(&number) {
            number = (number % PATH_MASK) + 1;
        }
        self.nodes.insert(number, id);
        self.numbers[id as usize] = number;
    }
}

/// The hash of a path from that of its directory and its last component.
fn path_hash(directory: u64, name: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&directory.to_le_bytes()).update(name);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Which part of all numbers a directory of the view, and what is in it, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot(u64);

impl Slot {
    /// Chooses the slot of a directory with this name, as long as it is not taken.
    pub(super) fn choose(name: &str, is_taken: impl Fn(Slot) -> bool) -> Slot {
        let mut slot = Slot(path_hash(0, name.as_bytes()) % SLOT_MAX + 1);
        while is_taken(slot) {
            slot = Slot(slot.0 % SLOT_MAX + 1);
        }
        slot
    }

    /// The slot that a number belongs to.
    pub(super) fn of(inode: u64) -> Slot {
        Slot(inode >> PATH_BITS)
    }

    /// The number of the directory itself.
    pub(super) fn directory(self) -> u64 {
        self.0 << PATH_BITS
    }

    /// The number of a member.
    pub(super) fn member(self, inodes: &Inodes, id: NodeId) -> u64 {
        self.directory() | inodes.numbers[id as usize]
    }

    /// Whether a number is that of the directory itself.
    pub(super) fn is_directory(inode: u64) -> bool {
        inode & PATH_MASK == 0
    }
}

impl Inodes {
    /// Finds the member with a number of this archive's slot.
    pub(super) fn node(&self, inode: u64) -> Option<NodeId> {
        self.nodes.get(&(inode & PATH_MASK)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_taken_lead_to_the_next_free_one() {
        let mut inodes = Inodes {
            numbers: vec![0; 5],
            nodes: HashMap::new(),
        };
        for (id, hash) in [(1, PATH_MASK), (2, PATH_MASK), (3, 0), (4, PATH_MASK << 1)] {
            inodes.add(id, hash);
        }
        assert_eq!(inodes.numbers, [0, PATH_MASK, 1, 2, PATH_MASK - 1]);
        for id in 1..5 {
            let number = Slot(7).member(&inodes, id);
            assert_eq!(Slot::of(number), Slot(7));
            assert!(!Slot::is_directory(number));
            assert_eq!(inodes.node(number), Some(id));
        }
        // A further name does not change the number.
        inodes.add(1, 77);
        assert_eq!(inodes.numbers[1], PATH_MASK);
    }

    #[test]
    fn slots_are_never_zero_nor_taken() {
        let first = Slot::choose("web", |_| false);
        let second = Slot::choose("web", |slot| slot == first);
        assert_ne!(first, second);
        assert!(first.0 >= 1 && second.0 >= 1);
        assert!(Slot::is_directory(first.directory()));
        let last = Slot::choose("web", |slot| slot.0 != 1);
        assert_eq!(last, Slot(1));
    }
}
