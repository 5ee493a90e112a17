//! Reading and writing that leaves the page cache as it is, if the kernel can.

use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, ReadWriteFlags};

/// `RWF_DONTCACHE` of `linux/fs.h`: what this call brings into the page cache
/// leaves it again at once, and what was there before stays. A write also starts
/// the writing to storage. Linux 6.14; ext4, XFS, Btrfs.
pub(crate) const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Reads a file in any order, from several threads.
pub(crate) struct UncachedReader<'a> {
    file: &'a File,
    /// Whether the kernel has not refused [`DONTCACHE`] yet.
    can: AtomicBool,
}

impl<'a> UncachedReader<'a> {
    pub(crate) fn new(file: &'a File) -> UncachedReader<'a> {
        UncachedReader {
            file,
            can: AtomicBool::new(true),
        }
    }

    /// Fills `part` from `offset` on.
    ///
    /// # Errors
    /// When the file ends before, or cannot be read.
    pub(crate) fn read_exact_at(&self, mut part: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !part.is_empty() {
            if !self.can.load(Ordering::Relaxed) {
                return self.file.read_exact_at(part, offset);
            }
            let slice = &mut [IoSliceMut::new(part)];
            match rustix::io::preadv2(self.file, slice, offset, DONTCACHE) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    part = &mut part[got..];
                    offset += got as u64;
                }
                Err(Errno::INTR) => {}
                // This kernel or this file system cannot.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    self.can.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_methods_read_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        let mut part = vec![0; 50_000];
        for can in [true, false] {
            let reader = UncachedReader::new(&file);
            reader.can.store(can, Ordering::Relaxed);
            reader.read_exact_at(&mut part, 40_001).unwrap();
            assert_eq!(part, bytes[40_001..90_001]);
            assert!(reader.read_exact_at(&mut part, 50_001).is_err());
        }
    }
}
