//! File systems that track every change: files on them can be copied while they
//! are being written to, because a change during the copy shows in their ctime.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, SeekFrom, makedev};

#[cfg(test)]
use super::mutation::Mutation;
use super::{Inventory, Node, Source, stat_handle};

/// `f_type` of `statfs(2)` of the file systems on which every write moves ctime.
/// That includes writes through `mmap`, once the pages were written back: the
/// write-back write-protects them, and the next store to one of them is seen
/// (`page_mkwrite`).
///
/// Not in the list: tmpfs (no write-back, so no second fault), overlayfs (maps
/// the file of the lower layer), ZFS (stamps later), bcachefs (a write in
/// progress cannot be waited for, see [`await_write`]), network and FUSE file
/// systems (the server stamps).
const TRACKING: [(u64, &str); 4] = [
    (0xEF53, "ext4"), // ext2 and ext3 too: one driver serves all three
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
];

/// Which of an inventory's devices (file systems) track every change, by their
/// index in the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackedDevices(Vec<bool>);

impl TrackedDevices {
    pub(crate) fn contains(&self, dev: u16) -> bool {
        self.0.get(usize::from(dev)) == Some(&true)
    }

    /// Whether there is at least one.
    pub fn is_any(&self) -> bool {
        self.0.contains(&true)
    }

    /// Sum of the sizes of the regular files on these devices.
    pub fn content_bytes(&self, inventory: &Inventory) -> u64 {
        let files = inventory.entries.iter();
        let bytes = files.map(|entry| match entry.node {
            Node::File { bytes, .. } if self.contains(entry.dev) => bytes,
            _ => 0,
        });
        bytes.sum()
    }
}

/// Writes back all dirty pages of the inventory's file systems that track every
/// change. Each later store to a mapped page then moves ctime.
///
/// # Errors
/// When the write-back fails.
pub fn sync(sources: &[Source], inventory: &Inventory) -> rustix::io::Result<TrackedDevices> {
    let mut tracked = Vec::with_capacity(inventory.devices.len());
    for dev in 0..inventory.devices.len() {
        let handle = open_on(sources, inventory, dev).filter(|handle| tracks_changes(handle));
        tracked.push(handle.is_some());
        #[cfg(test)]
        let handle = handle.filter(|_| !Mutation::Sync.is_on());
        if let Some(handle) = handle {
            rustix::fs::syncfs(handle)?;
        }
    }
    Ok(TrackedDevices(tracked))
}

/// Waits for writes to the file that began before this call.
///
/// A write stamps ctime when it begins. It then holds the inode's lock until its
/// data has arrived, which takes seconds when the write is long or throttled or
/// its source is slow. Reads of ext4 and Btrfs do not take the lock, but
/// `SEEK_DATA` does (`ext4_llseek`, `btrfs_file_llseek`, `f2fs_seek_block`);
/// reads of XFS take it too. Direct writes hold the lock shared at most, so they
/// are not waited for.
pub(crate) fn await_write(file: &File) {
    #[cfg(test)]
    if Mutation::Wait.is_on() {
        return;
    }
    // Only the lock matters, so the result and its errors do not.
    let _ = rustix::fs::seek(file, SeekFrom::Data(0));
}

/// Opens the inventory's first entry on the device.
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

/// Whether the handle's file system tracks every change.
pub(crate) fn tracks_changes(handle: impl AsFd) -> bool {
    let Ok(statfs) = rustix::fs::fstatfs(handle.as_fd()) else {
        return false;
    };
    TRACKING
        .iter()
        .any(|(kind, _)| *kind == statfs.f_type as u64)
}
