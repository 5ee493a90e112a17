//! Which file systems can be copied from while they are being written to.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, SeekFrom, makedev};

use super::{Inventory, Node, Source, stat_handle};
use crate::scan::mutation::mutated;

/// File systems on which every write moves ctime, those through `mmap`, too,
/// once the pages were written back: their pages are write-protected then, and
/// the next store to one of them is seen (`page_mkwrite`). `f_type` of
/// `statfs(2)`.
///
/// Not among them: tmpfs (no write-back, so no second fault), overlayfs (maps
/// the file below), ZFS (stamps later), bcachefs (a write under way cannot be
/// waited for, see [`await_write`]), network and FUSE file systems (stamps are
/// the server's).
const TRUSTED: [(u64, &str); 4] = [
    (0xEF53, "ext4"), // ext2 and ext3, too: the driver is one
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
];

/// Of each of an inventory's file systems, by the index of its device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(Vec<bool>);

impl Trust {
    pub(crate) fn of_device(&self, dev: u16) -> bool {
        self.0.get(usize::from(dev)) == Some(&true)
    }

    /// Whether it can be said of any of them.
    pub fn is_of_any(&self) -> bool {
        self.0.contains(&true)
    }

    /// Bytes in files whose ctime can be relied on.
    pub fn trusted_bytes(&self, inventory: &Inventory) -> u64 {
        let files = inventory.entries.iter();
        let bytes = files.map(|entry| match entry.node {
            Node::File { bytes, .. } if self.of_device(entry.dev) => bytes,
            _ => 0,
        });
        bytes.sum()
    }
}

/// Writes back what is dirty on the inventory's file systems, as far as they
/// are trusted. What is stored to a mapped page after this moves ctime.
///
/// Fails if writing back does.
pub fn sync(sources: &[Source], inventory: &Inventory) -> rustix::io::Result<Trust> {
    let mut trusted = Vec::with_capacity(inventory.devices.len());
    for dev in 0..inventory.devices.len() {
        let handle = open_on(sources, inventory, dev);
        let is_trusted = handle.as_ref().is_some_and(is_trusted);
        if let Some(handle) = handle.filter(|_| is_trusted && !mutated("sync")) {
            rustix::fs::syncfs(handle)?;
        }
        trusted.push(is_trusted);
    }
    Ok(Trust(trusted))
}

/// Waits until no write to the file is under way that began before this call.
///
/// A write stamps ctime when it begins, and then holds the inode's lock until
/// its data has arrived, which may take seconds: it is long, or throttled, or
/// what it writes is slow to come. Reads of ext4 and Btrfs do not take the
/// lock, but `SEEK_DATA` does (`ext4_llseek`, `btrfs_file_llseek`,
/// `f2fs_seek_block`); those of XFS do. Direct writes hold it shared, at most,
/// and are not waited for.
pub(crate) fn await_write(file: &File) {
    if !mutated("wait") {
        // Where it leads is not asked, so neither is why it might fail.
        let _ = rustix::fs::seek(file, SeekFrom::Data(0));
    }
}

/// Opens the first thing of the inventory that is on the file system.
fn open_on(sources: &[Source], inventory: &Inventory, dev: usize) -> Option<OwnedFd> {
    let mut entries = inventory.entries.iter();
    let index = entries.position(|entry| usize::from(entry.dev) == dev)?;
    let source = &sources[inventory.source_of(index)];
    let mut path = Vec::new();
    inventory.relative_path(index, &mut path);
    let handle = match inventory.entries[index].node {
        Node::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
            source.open_beneath(&path, flags).ok()?
        }
        Node::File { .. } => source.open_regular(&path).ok()?.into(),
        _ => return None,
    };
    let stat = stat_handle(&handle).ok()?;
    let found = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    (found == inventory.devices[dev]).then_some(handle)
}

/// Whether the file system of this is one that tells of every change.
pub(crate) fn is_trusted(handle: impl AsFd) -> bool {
    let Ok(statfs) = rustix::fs::fstatfs(handle.as_fd()) else {
        return false;
    };
    TRUSTED
        .iter()
        .any(|(kind, _)| *kind == statfs.f_type as u64)
}
