//! Writes an archive past the page cache, if the kernel can.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::archive::uncached::DONTCACHE;

/// Alignment that `O_DIRECT` requires of addresses, offsets and lengths: a
/// multiple of every logical block size (open(2)).
const DIRECT_BYTES: usize = 4096;
/// Shorter parts go through the page cache. Otherwise each of them would wait for
/// the disk.
const PAST_CACHE_FROM_BYTES: usize = 64 * 1024;

/// Methods of writing, best first. A method that the kernel refuses once is not
/// tried again.
const METHOD_DONTCACHE: u8 = 0;
const METHOD_DIRECT: u8 = 1;
const METHOD_CACHED: u8 = 2;

/// A file that several threads write to, each at places of its own.
///
/// In the page cache, an archive would displace what the stack is about to read,
/// and the kernel would start writing it to storage only when much has
/// accumulated.
pub(crate) struct Sink<'a> {
    file: &'a File,
    /// The same file, opened with `O_DIRECT`; `None` if that failed.
    direct: OnceLock<Option<File>>,
    method: AtomicU8,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(file: &'a File) -> Sink<'a> {
        Sink {
            file,
            direct: OnceLock::new(),
            method: METHOD_DONTCACHE.into(),
        }
    }

    /// Writes all of `part`.
    pub(crate) fn write_at(&self, mut part: &[u8], mut offset: u64) -> io::Result<()> {
        if part.len() < PAST_CACHE_FROM_BYTES {
            return self.file.write_all_at(part, offset);
        }
        while !part.is_empty() {
            let method = self.method.load(Ordering::Relaxed);
            let written = match method {
                METHOD_DONTCACHE => {
                    rustix::io::pwritev2(self.file, &[IoSlice::new(part)], offset, DONTCACHE)
                }
                METHOD_DIRECT => self.write_directly(part, offset),
                METHOD_CACHED.. => return self.file.write_all_at(part, offset),
            };
            match written {
                Ok(written) => {
                    part = &part[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                // This kernel or this file system does not support the method.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    self.method.fetch_max(method + 1, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes at least one byte, past the page cache if `part` is aligned.
    fn write_directly(&self, part: &[u8], offset: u64) -> Result<usize, Errno> {
        let is_aligned = part.as_ptr().addr().is_multiple_of(DIRECT_BYTES)
            && offset.is_multiple_of(DIRECT_BYTES as u64);
        let length = part.len() - part.len() % DIRECT_BYTES;
        if !is_aligned || length == 0 {
            return rustix::io::pwrite(self.file, part, offset);
        }
        let direct = self.direct.get_or_init(|| open_direct(self.file).ok());
        let direct = direct.as_ref().ok_or(Errno::OPNOTSUPP)?;
        rustix::io::pwrite(direct, &part[..length], offset)
    }
}

fn open_direct(file: &File) -> io::Result<File> {
    File::options()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A buffer with the alignment that `O_DIRECT` requires.
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    pub(crate) fn new(length: usize) -> AlignedBuffer {
        let bytes = vec![0; length + DIRECT_BYTES];
        let start = bytes.as_ptr().align_offset(DIRECT_BYTES);
        AlignedBuffer { bytes, start }
    }

    /// Its first `length` bytes.
    pub(crate) fn part(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..][..length]
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_method_writes_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        for method in [METHOD_DONTCACHE, METHOD_DIRECT, METHOD_CACHED] {
            let path = dir.path().join(method.to_string());
            let file = File::create(&path).unwrap();
            let sink = Sink::new(&file);
            sink.method.store(method, Ordering::Relaxed);
            let mut buffer = AlignedBuffer::new(100_000);
            let mut expected = Vec::new();
            // Beginnings and ends are aligned in some cases and not in others.
            for (i, length) in [
                PAST_CACHE_FROM_BYTES,
                5000,
                PAST_CACHE_FROM_BYTES + 3000,
                100,
                3000,
                100_000,
            ]
            .into_iter()
            .enumerate()
            {
                let part = buffer.part(length);
                part.fill(i as u8 + 1);
                sink.write_at(part, expected.len() as u64).unwrap();
                expected.extend_from_slice(part);
            }
            assert!(fs::read(&path).unwrap() == expected, "method {method}");
        }
    }

    #[test]
    fn a_refused_method_is_replaced_by_the_next() {
        // /dev/null refuses O_DIRECT.
        let null = File::options().write(true).open("/dev/null").unwrap();
        let sink = Sink::new(&null);
        sink.method.store(METHOD_DIRECT, Ordering::Relaxed);
        let length = PAST_CACHE_FROM_BYTES;
        sink.write_at(AlignedBuffer::new(length).part(length), 0)
            .unwrap();
    }
}
