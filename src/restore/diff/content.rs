//! Compares the data of a member with a file on the host.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::archive::{Member, Reader};
use crate::restore::extract::data_extents;
use crate::scan::{Source, is_gone};

const READ_BYTES: usize = 256 << 10;

/// Compares the data that `reader` has for `member` with the file at `rel` in
/// `source`. A file that was removed or truncated since the scan differs.
pub(super) fn is_same(
    member: &Member,
    reader: &mut Reader<'_>,
    source: &Source,
    rel: &[u8],
    cancel: &AtomicBool,
) -> Result<bool> {
    let context = || format!("cannot read {}", source.display(rel));
    let file = match source.open_regular(rel) {
        Err(error) if is_gone(error) => return Ok(false),
        file => file.with_context(context)?,
    };
    let mut archived = vec![0; READ_BYTES];
    let mut present = vec![0; READ_BYTES];
    let mut position = 0;
    for extent in data_extents(member) {
        if !is_zero(&file, position, extent.offset, &mut present, cancel).with_context(context)? {
            return Ok(false);
        }
        let mut done = 0;
        while done < extent.bytes {
            if cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let wanted = (extent.bytes - done).min(READ_BYTES as u64) as usize;
            let got = reader.read_data(&mut archived[..wanted])?;
            let read =
                read_at(&file, &mut present[..got], extent.offset + done).with_context(context)?;
            if read < got || archived[..got] != present[..got] {
                return Ok(false);
            }
            done += got as u64;
        }
        position = extent.offset + extent.bytes;
    }
    let end = member.file_bytes;
    is_zero(&file, position, end, &mut present, cancel).with_context(context)
}

/// Fills the buffer as far as the file goes. Returns the number of bytes read.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Whether a file contains only zeros from `start` to `end`. Holes are not read.
fn is_zero(
    file: &File,
    start: u64,
    end: u64,
    buffer: &mut [u8],
    cancel: &AtomicBool,
) -> Result<bool> {
    let mut position = start;
    while position < end {
        if cancel.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        position = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(data) => data,
            // Only a hole follows.
            Err(Errno::NXIO) => return Ok(true),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
            Err(error) => return Err(error.into()),
        };
        if position >= end {
            break;
        }
        let part = (end - position).min(buffer.len() as u64) as usize;
        let got = read_at(file, &mut buffer[..part], position)?;
        if got < part || buffer[..part].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position += part as u64;
    }
    Ok(true)
}
