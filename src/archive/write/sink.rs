//! Where an archive's bytes go: past the page cache, as far as the kernel can.

use std::env;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

/// `RWF_DONTCACHE` of `linux/fs.h`: write back at once, and keep nothing of it
/// in the page cache. Linux 6.14, ext4, XFS, Btrfs.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// What `O_DIRECT` asks of addresses, offsets and lengths; a multiple of every
/// logical block size (open(2)).
const DIRECT_BYTES: usize = 4096;
/// Shorter pieces go through the page cache: by themselves, each would have to
/// wait for the disk.
const PAST_CACHE_FROM_BYTES: usize = 64 * 1024;
/// Does as kernels before 6.14 do, for measuring.
const OLD_KERNEL: &str = "DOCKER_STACK_BACKUP_WITHOUT_DONTCACHE";

/// Ways of writing, the better ones first. What the kernel refuses once is not
/// tried again.
const WAY_DONTCACHE: u8 = 0;
const WAY_DIRECT: u8 = 1;
const WAY_CACHED: u8 = 2;

/// A file that several threads write to, each at places of its own.
///
/// An archive in the page cache would push out what the stack is about to need,
/// and writing it back would only begin when there is much to write.
pub(crate) struct Sink<'a> {
    file: &'a File,
    /// The same file, opened for writing around the page cache.
    direct: OnceLock<Option<File>>,
    way: AtomicU8,
}

impl<'a> Sink<'a> {
    pub fn new(file: &'a File) -> Sink<'a> {
        let way = match env::var_os(OLD_KERNEL) {
            Some(_) => WAY_DIRECT,
            None => WAY_DONTCACHE,
        };
        Sink {
            file,
            direct: OnceLock::new(),
            way: way.into(),
        }
    }

    /// Writes all of `part`.
    pub fn write_at(&self, mut part: &[u8], mut offset: u64) -> io::Result<()> {
        if part.len() < PAST_CACHE_FROM_BYTES {
            return self.file.write_all_at(part, offset);
        }
        while !part.is_empty() {
            let way = self.way.load(Ordering::Relaxed);
            let written = match way {
                WAY_DONTCACHE => {
                    rustix::io::pwritev2(self.file, &[IoSlice::new(part)], offset, DONTCACHE)
                }
                WAY_DIRECT => self.write_directly(part, offset),
                WAY_CACHED.. => return self.file.write_all_at(part, offset),
            };
            match written {
                Ok(written) => {
                    part = &part[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                // Neither this kernel nor this file system may know of it.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    self.way.fetch_max(way + 1, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What is not aligned is written through the page cache.
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

/// A buffer that may be written directly.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub fn new(length: usize) -> Buffer {
        let bytes = vec![0; length + DIRECT_BYTES];
        let start = bytes.as_ptr().align_offset(DIRECT_BYTES);
        Buffer { bytes, start }
    }

    /// Its first `length` bytes.
    pub fn part(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..][..length]
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_way_writes_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        for way in [WAY_DONTCACHE, WAY_DIRECT, WAY_CACHED] {
            let path = dir.path().join(way.to_string());
            let file = File::create(&path).unwrap();
            let sink = Sink::new(&file);
            sink.way.store(way, Ordering::Relaxed);
            let mut buffer = Buffer::new(100_000);
            let mut expected = Vec::new();
            // Aligned or not, at both ends.
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
            assert!(fs::read(&path).unwrap() == expected, "way {way}");
        }
    }

    #[test]
    fn what_is_refused_is_written_all_the_same() {
        // A pipe's end takes neither flags nor offsets; /dev/null no O_DIRECT.
        let null = File::options().write(true).open("/dev/null").unwrap();
        let sink = Sink::new(&null);
        sink.way.store(WAY_DIRECT, Ordering::Relaxed);
        let length = PAST_CACHE_FROM_BYTES;
        sink.write_at(Buffer::new(length).part(length), 0).unwrap();
    }
}
