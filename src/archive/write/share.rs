//! Sharing blocks between files instead of copying them.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};

/// `struct file_clone_range` of `linux/fs.h`.
#[repr(C)]
struct FileCloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}

/// Makes `bytes` of `to` at `to_offset` the very blocks that `from` has at
/// `from_offset`: `ioctl_ficlonerange(2)`. All three must be multiples of the
/// file system's block.
///
/// # Errors
/// `EXDEV`, `EOPNOTSUPP`, `ENOTTY`: never between these file systems; `EINVAL`:
/// not these files, or `from` is shorter.
pub(crate) fn share_blocks(
    from: &File,
    from_offset: u64,
    to: &File,
    to_offset: u64,
    bytes: u64,
) -> rustix::io::Result<()> {
    const FICLONERANGE: rustix::ioctl::Opcode = opcode::write::<FileCloneRange>(0x94, 13);
    let range = FileCloneRange {
        src_fd: from.as_raw_fd().into(),
        src_offset: from_offset,
        src_length: bytes,
        dest_offset: to_offset,
    };
    // SAFETY: the structure is what this number is for; the kernel only reads
    // it, and both handles are open as long as the call lasts.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(to, Setter::<FICLONERANGE, FileCloneRange>::new(range))
    }
}

/// Copies the blocks that a stretch of `file` shares with others, so that a write
/// to theirs is one in place again: `FALLOC_FL_UNSHARE_RANGE` (XFS, Linux 4.9).
/// They are written when it returns (as `xfs_reflink_unshare` does it), and
/// leave the page cache.
///
/// # Errors
/// `EOPNOTSUPP` where writes are never in place (Btrfs); `ENOSPC`, `EDQUOT`:
/// what was not copied is shared as before.
pub(crate) fn unshare_blocks(file: &File, offset: u64, bytes: u64) -> rustix::io::Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::UNSHARE_RANGE, offset, bytes)?;
    rustix::fs::fadvise(file, offset, NonZeroU64::new(bytes), Advice::DontNeed)
}

/// Whether no other file of the two file systems will fare better.
pub(crate) fn is_never_possible(error: Errno) -> bool {
    matches!(
        error,
        Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS
    )
}
