//! Everything that a scan found.

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use rustix::fs::{FileType, Statx};

use super::Extent;
use super::attributes::decode;
use crate::sys::format::display_path;

/// Stands for "none" in fields that hold an index.
pub(crate) const NONE: u32 = u32::MAX;

/// A file, directory or other node that becomes a member of the archive. It takes
/// 80 bytes, because its path is rebuilt from its parents.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(crate) parent: u32,
    pub(crate) name_start: u32,
    pub(crate) name_len: u16,
    /// Permission bits, including setuid, setgid and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub node: Node,
    /// Whole seconds since 1970, rounded down; nanoseconds are separate.
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub(crate) ctime_ns: u32,
    pub(crate) ctime_s: i64,
    pub(crate) ino: u64,
    /// Index into the inventory's devices.
    pub(crate) dev: u16,
    /// It has hard links, here or elsewhere.
    pub(crate) has_links: bool,
    /// It changed while it was scanned.
    pub(crate) changed: bool,
    /// Index into the inventory's sets of attributes, or [`NONE`].
    pub(crate) attributes: u32,
}

/// The kind of an entry, with the fields that only this kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Directory,
    /// A regular file: its size, and an index into the inventory's extent lists
    /// ([`NONE`] if it is stored whole).
    File {
        bytes: u64,
        sparse: u32,
    },
    /// A hard link to an earlier entry of the same source.
    HardLink {
        first: u32,
    },
    /// The span of the target in the inventory's names.
    Symlink {
        start: u32,
        len: u16,
    },
    Fifo,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

impl Entry {
    /// Makes an entry that has no name yet. `None` for a socket.
    pub(crate) fn new(stat: &Statx, dev: u16) -> Option<Entry> {
        let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let node = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => Node::File {
                bytes: stat.stx_size,
                sparse: NONE,
            },
            FileType::Directory => Node::Directory,
            FileType::Symlink => Node::Symlink { start: 0, len: 0 },
            FileType::Fifo => Node::Fifo,
            FileType::CharacterDevice => Node::CharDevice { major, minor },
            FileType::BlockDevice => Node::BlockDevice { major, minor },
            FileType::Socket | FileType::Unknown => return None,
        };
        Some(Entry {
            parent: NONE,
            name_start: 0,
            name_len: 0,
            mode: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            node,
            mtime_s: stat.stx_mtime.tv_sec,
            mtime_ns: stat.stx_mtime.tv_nsec,
            ctime_s: stat.stx_ctime.tv_sec,
            ctime_ns: stat.stx_ctime.tv_nsec,
            ino: stat.stx_ino,
            dev,
            has_links: node != Node::Directory && stat.stx_nlink > 1,
            changed: false,
            attributes: NONE,
        })
    }

    /// False for the root of a source.
    pub(crate) fn has_parent(&self) -> bool {
        self.parent != NONE
    }

    /// Whether size and ctime in `stat` (of the same inode) are still those of the
    /// scan.
    pub(crate) fn is_unchanged(&self, stat: &Statx) -> bool {
        let bytes = match self.node {
            Node::File { bytes, .. } => bytes,
            _ => stat.stx_size,
        };
        stat.stx_size == bytes
            && stat.stx_ctime.tv_sec == self.ctime_s
            && stat.stx_ctime.tv_nsec == self.ctime_ns
    }

    /// Whether its last change was before `time`.
    pub(crate) fn is_older(&self, time: SystemTime) -> bool {
        let Ok(since_1970) = time.duration_since(SystemTime::UNIX_EPOCH) else {
            return false;
        };
        (self.ctime_s, self.ctime_ns) < (since_1970.as_secs() as i64, since_1970.subsec_nanos())
    }
}

/// Everything in the sources, in the order of the archive: source by source, each
/// directory before its children, children sorted bytewise by name.
#[derive(Debug)]
pub struct Inventory {
    /// When the scan began, by the clock that stamps files and by the monotonic
    /// clock, which nobody can set.
    pub(crate) began: (SystemTime, Instant),
    pub(crate) entries: Vec<Entry>,
    pub(crate) names: Vec<u8>,
    /// `st_dev` of each file system.
    pub(crate) devices: Vec<u64>,
    pub(crate) sparse: Vec<Box<[Extent]>>,
    pub(crate) attributes: Vec<Box<[u8]>>,
    /// Index of the first entry of each source.
    pub(crate) sources: Vec<u32>,
    pub(crate) content_bytes: u64,
    pub(crate) socket_count: u64,
    pub(crate) excluded_count: u64,
}

impl Default for Inventory {
    fn default() -> Inventory {
        Inventory {
            began: (SystemTime::now(), Instant::now()),
            entries: Vec::new(),
            names: Vec::new(),
            devices: Vec::new(),
            sparse: Vec::new(),
            attributes: Vec::new(),
            sources: Vec::new(),
            content_bytes: 0,
            socket_count: 0,
            excluded_count: 0,
        }
    }
}

impl Inventory {
    /// Sum of the sizes of the regular files. Holes count; hard links count once.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Number of members in the archive, without the manifest.
    pub fn member_count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Number of sockets, which no archive can hold.
    pub fn socket_count(&self) -> u64 {
        self.socket_count
    }

    /// Number of entries left out by patterns or `CACHEDIR.TAG`. A directory and
    /// everything in it count as one.
    pub fn excluded_count(&self) -> u64 {
        self.excluded_count
    }

    /// Finds regular files by `st_dev` and `st_ino`. Returns both numbers and the
    /// member's path, for messages; only the first of several hard links.
    pub fn find_files(&self, wanted: &HashSet<(u64, u64)>) -> Vec<(u64, u64, String)> {
        let mut path = Vec::new();
        let mut found = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let key = (self.devices[usize::from(entry.dev)], entry.ino);
            if matches!(entry.node, Node::File { .. }) && wanted.contains(&key) {
                self.member_path(index, &mut path);
                found.push((key.0, key.1, display_path(&path)));
            }
        }
        found
    }

    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        let start = entry.name_start as usize;
        &self.names[start..start + usize::from(entry.name_len)]
    }

    /// Sets `path` to the path in the archive; a directory's ends with a slash.
    pub(crate) fn member_path(&self, index: usize, path: &mut Vec<u8>) {
        self.path_from(index, true, path);
        if self.entries[index].node == Node::Directory {
            path.push(b'/');
        }
    }

    /// Sets `path` to the path relative to the source's root, which is empty for
    /// the root itself.
    pub(crate) fn relative_path(&self, index: usize, path: &mut Vec<u8>) {
        self.path_from(index, false, path);
    }

    fn path_from(&self, mut index: usize, with_root: bool, path: &mut Vec<u8>) {
        // Filled from the end, so that one pass over the parents is enough.
        path.clear();
        loop {
            let entry = &self.entries[index];
            if entry.parent == NONE && !with_root {
                break;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(self.name(entry).iter().rev());
            if entry.parent == NONE {
                break;
            }
            index = entry.parent as usize;
        }
        path.reverse();
    }

    /// Index of the source that holds an entry.
    pub(crate) fn source_of(&self, index: usize) -> usize {
        self.sources
            .partition_point(|first| *first as usize <= index)
            - 1
    }

    /// Returns the target of a symlink; empty for other entries.
    pub(crate) fn symlink_target(&self, node: Node) -> &[u8] {
        match node {
            Node::Symlink { start, len } => {
                &self.names[start as usize..start as usize + usize::from(len)]
            }
            _ => &[],
        }
    }

    /// Returns the names and values of its extended attributes, sorted by name.
    pub(crate) fn attributes(&self, entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
        let set = self.attributes.get(entry.attributes as usize);
        decode(set.map_or(&[], |set| set))
    }

    /// Returns the extents of a sparse file; `None` if it is stored whole.
    pub(crate) fn extents(&self, node: Node) -> Option<&[Extent]> {
        match node {
            Node::File { sparse, .. } => self.sparse.get(sparse as usize).map(|list| &list[..]),
            _ => None,
        }
    }
}
