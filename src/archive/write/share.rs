//! Shares blocks between files instead of copying them, and undoes that.

use crate::sys::progress;
use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};

/// How much is unshared at once. So much lies in the page cache for a moment, and
/// an interrupt is noticed only in between.
const UNSHARE_BYTES: usize = 64 << 20;

/// `struct file_clone_range` of `linux/fs.h`.
#[repr(C)]
struct FileCloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}

/// Makes `to` share `bytes` of its data at `to_offset` with `from` at
/// `from_offset` (`ioctl_ficlonerange(2)`). The two offsets and `bytes` must be
/// multiples of the file system's block.
///
/// # Errors
/// `EXDEV`, `EOPNOTSUPP`, `ENOTTY`: these file systems can never share blocks.
/// `EINVAL`: these files cannot, or `from` is shorter.
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
    // SAFETY: FICLONERANGE takes this structure, the kernel only reads it, and
    // both handles stay open during the call.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(to, Setter::<FICLONERANGE, FileCloneRange>::new(range))
    }
}

/// Gives ranges of `file` blocks of their own where the file system writes in
/// place, so that a write to the files that shared them is in place again.
/// Returns how many bytes were copied. Without room for more, the rest stays
/// shared.
pub(crate) fn unshare_ranges(
    file: &File,
    ranges: &[Range<u64>],
    cancel: &AtomicBool,
) -> Result<u64> {
    let mut unshared_bytes = 0;
    for range in ranges {
        for start in range.clone().step_by(UNSHARE_BYTES) {
            let bytes = (range.end - start).min(UNSHARE_BYTES as u64);
            if cancel.load(Ordering::Relaxed) {
                return Ok(unshared_bytes);
            }
            progress::step();
            match unshare_blocks(file, start, bytes) {
                Ok(()) => unshared_bytes += bytes,
                // This file system never writes in place (Btrfs).
                Err(Errno::OPNOTSUPP) => return Ok(unshared_bytes),
                Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
                    tracing::info!(%error, "no room to unshare more blocks");
                    return Ok(unshared_bytes);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(unshared_bytes)
}

/// Copies the shared blocks of a range: `FALLOC_FL_UNSHARE_RANGE` (XFS, Linux
/// 4.9). The copies are on storage when this returns (`xfs_reflink_unshare`
/// writes them), and not in the page cache.
fn unshare_blocks(file: &File, offset: u64, bytes: u64) -> rustix::io::Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::UNSHARE_RANGE, offset, bytes)?;
    rustix::fs::fadvise(file, offset, NonZeroU64::new(bytes), Advice::DontNeed)
}

/// Whether the error of [`share_blocks`] concerns all files of the two file
/// systems.
pub(crate) fn is_never_possible(error: Errno) -> bool {
    matches!(
        error,
        Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS
    )
}
