//! What stat(2) says of a member.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::archive::tree::{FileData, NodeKind, TreeNode};

const BLOCK_BYTES: u64 = 512;
const OPTIMAL_BYTES: u32 = 4096;

pub(super) fn file_type(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::Directory(_) => FileType::Directory,
        NodeKind::File(_) => FileType::RegularFile,
        NodeKind::Symlink(_) => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::CharDevice(..) => FileType::CharDevice,
        NodeKind::BlockDevice(..) => FileType::BlockDevice,
    }
}

/// `archive_changed` is when the archive was written.
pub(super) fn of_node(node: &TreeNode, inode: u64, archive_changed: (i64, u32)) -> FileAttr {
    let (bytes, stored_bytes, rdev) = match &node.kind {
        NodeKind::File(data) => (data.file_bytes, data.stored_bytes, 0),
        NodeKind::Symlink(target) => (target.len() as u64, 0, 0),
        NodeKind::CharDevice(major, minor) | NodeKind::BlockDevice(major, minor) => {
            (0, 0, encoded_device(*major, *minor))
        }
        _ => (0, 0, 0),
    };
    let mtime = system_time(node.mtime_s, node.mtime_ns);
    let (ctime_s, ctime_ns) = change_time(node, archive_changed);
    FileAttr {
        ino: INodeNo(inode),
        size: bytes,
        blocks: stored_bytes.div_ceil(BLOCK_BYTES),
        atime: mtime,
        mtime,
        ctime: system_time(ctime_s, ctime_ns),
        crtime: mtime,
        kind: file_type(&node.kind),
        perm: node.mode as u16,
        // For programs that count the directories in a directory by its links, one link
        // means that they cannot.
        nlink: node.link_count,
        uid: node.uid,
        gid: node.gid,
        rdev,
        blksize: OPTIMAL_BYTES,
        flags: 0,
    }
}

/// A directory of the view itself.
pub(super) fn of_directory(inode: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0o700,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: OPTIMAL_BYTES,
        flags: 0,
    }
}

/// The time by which backup programs notice that a file was written even if its size and
/// its modification time are as before. An archive does not keep the real one. So it is
/// made of the hash of the content: it is another one if the content is another one, and
/// the same in the next archive if it is not. Without a hash, each archive has another.
fn change_time(node: &TreeNode, archive_changed: (i64, u32)) -> (i64, u32) {
    match &node.kind {
        NodeKind::File(data) if data.stored_bytes > 0 => match &data.hash {
            Some(hash) => (node.mtime_s, content_ns(data, hash.bytes())),
            None => archive_changed,
        },
        NodeKind::File(data) if data.file_bytes > 0 => (node.mtime_s, content_ns(data, &[])),
        _ => (node.mtime_s, node.mtime_ns),
    }
}

fn content_ns(data: &FileData, hash: &[u8]) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash);
    for extent in data.extents.as_deref().unwrap_or_default() {
        hasher.update(&extent.offset.to_le_bytes());
        hasher.update(&extent.bytes.to_le_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    (u64::from_le_bytes(first) % 1_000_000_000) as u32
}

/// Times that the kernel's calls cannot express are the epoch.
fn system_time(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    let time = time.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into())));
    time.unwrap_or(UNIX_EPOCH)
}

/// A device number as FUSE passes it on (`new_encode_dev` of `linux/kdev_t.h`).
fn encoded_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Extent;

    #[test]
    fn times_far_away_are_no_panic() {
        for seconds in [i64::MIN, i64::MAX, -1, 0, 1] {
            system_time(seconds, 999_999_999);
        }
        let before = system_time(-2, 500_000_000);
        assert_eq!(UNIX_EPOCH.duration_since(before).unwrap().as_millis(), 1500);
    }

    #[test]
    fn the_change_time_tells_other_content_and_nothing_else() {
        let data = |hash: u8, extents: Option<[u64; 2]>| {
            let extents = extents.map(|[offset, bytes]| Extent {
                offset,
                bytes,
                stored: 0,
            });
            let data = FileData {
                file_bytes: 10,
                stored_bytes: 5,
                offset: 0,
                extents: extents.map(|extent| Box::from([extent])),
                hash: None,
            };
            content_ns(&data, &[hash; 32])
        };
        assert_eq!(data(1, None), data(1, None));
        assert_ne!(data(1, None), data(2, None));
        // The same data at another place of a sparse file is other content.
        assert_eq!(data(1, Some([0, 5])), data(1, Some([0, 5])));
        assert_ne!(data(1, Some([0, 5])), data(1, Some([5, 5])));
    }
}
