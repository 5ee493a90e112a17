//! Copies the data of a member into a file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;

use crate::archive::{Member, Reader};
use crate::scan::Extent;

const COPY_BYTES: usize = 1 << 20;
/// Bytes that the kernel is asked to copy in one call. A signal is noticed in between.
const KERNEL_COPY_BYTES: usize = 128 << 20;

/// Returns the extents of a member's stored data, with their offsets in the
/// file. Between them, the file is zero.
pub fn data_extents(member: &Member) -> impl Iterator<Item = Extent> + '_ {
    let whole = Extent {
        offset: 0,
        bytes: member.stored_bytes,
        stored: 0,
    };
    let extents = member.extents.as_deref();
    extents
        .unwrap_or(&[])
        .iter()
        .copied()
        .chain(Some(whole).filter(|_| extents.is_none()))
}

/// Writes data that was read before.
pub fn write_stored(member: &Member, data: &[u8], file: &File) -> Result<()> {
    for extent in data_extents(member) {
        let start = extent.stored as usize;
        file.write_all_at(&data[start..start + extent.bytes as usize], extent.offset)
            .context("cannot write it")?;
    }
    Ok(())
}

/// Copies data from a reader, which need not be able to seek.
pub fn copy_from_reader(
    reader: &mut Reader<'_>,
    member: &Member,
    file: &File,
    cancel: &AtomicBool,
) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    for extent in data_extents(member) {
        let mut done = 0;
        while done < extent.bytes {
            ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
            let wanted = (extent.bytes - done).min(COPY_BYTES as u64) as usize;
            let got = reader.read_data(&mut buffer[..wanted])?;
            file.write_all_at(&buffer[..got], extent.offset + done)
                .context("cannot write it")?;
            done += got as u64;
        }
    }
    Ok(())
}

/// Copies data from the archive's file. The kernel does it, and shares whole
/// blocks where the file system can (`copy_file_range(2)`).
pub fn copy_from_file(
    archive: &File,
    member: &Member,
    file: &File,
    cancel: &AtomicBool,
) -> Result<()> {
    let mut can_copy = true;
    let mut buffer = Vec::new();
    for extent in data_extents(member) {
        let mut done = 0;
        while done < extent.bytes {
            ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
            let left = usize::try_from(extent.bytes - done)
                .unwrap_or(usize::MAX)
                .min(KERNEL_COPY_BYTES);
            let (mut from, mut to) = (member.data + extent.stored + done, extent.offset + done);
            if can_copy {
                match rustix::fs::copy_file_range(
                    archive,
                    Some(&mut from),
                    file,
                    Some(&mut to),
                    left,
                ) {
                    Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
                        can_copy = false
                    }
                    Ok(copied) => done += copied as u64,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error).context("cannot write it"),
                }
                continue;
            }
            buffer.resize(COPY_BYTES, 0);
            let part = &mut buffer[..left.min(COPY_BYTES)];
            archive
                .read_exact_at(part, from)
                .context("cannot read its data")?;
            file.write_all_at(part, to).context("cannot write it")?;
            done += part.len() as u64;
        }
    }
    Ok(())
}
