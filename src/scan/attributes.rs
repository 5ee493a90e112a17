//! Reading extended attributes.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;

use super::ATTRIBUTE_BYTES_MAX;

/// Bytes of the longest list of names, and of the longest value, that the kernel
/// returns: `xattr(7)`.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Bytes of all distinct sets of attributes that are kept in memory.
const SETS_BYTES_MAX: usize = 256 << 20;

/// Names under which XFS lists POSIX ACLs a second time: those of its own format
/// (`fs/xfs/libxfs/xfs_da_format.h`). On other file systems they would be
/// restored as meaningless attributes.
const XFS_ACLS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// The distinct sets of extended attributes, each stored once. A set is encoded
/// as a sequence of `u32` name length, name, `u32` value length, value (lengths
/// little endian), sorted by name.
#[derive(Debug, Default)]
pub(crate) struct AttributeSets {
    known: Mutex<KnownSets>,
}

#[derive(Debug, Default)]
struct KnownSets {
    by_set: HashMap<Box<[u8]>, u32>,
    bytes: usize,
}

impl AttributeSets {
    /// The index of a set, which is added if it is new.
    fn intern(&self, set: &[u8]) -> Result<u32> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known.by_set.get(set) {
            return Ok(*index);
        }
        known.bytes += set.len();
        ensure!(
            known.bytes <= SETS_BYTES_MAX,
            "with it, the extended attributes of all files have more than {} MiB: leave some out \
             by `exclude`",
            SETS_BYTES_MAX >> 20
        );
        let index = known.by_set.len() as u32;
        known.by_set.insert(set.into(), index);
        Ok(index)
    }

    pub(crate) fn into_sets(self) -> Vec<Box<[u8]>> {
        let known = self
            .known
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut sets = vec![Box::default(); known.by_set.len()];
        for (set, index) in known.by_set {
            sets[index as usize] = set;
        }
        sets
    }
}

/// Returns the names and values of an encoded set.
pub(crate) fn decode(mut set: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut field = move || {
        let (len, rest) = set.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        set = rest;
        Some(field)
    };
    std::iter::from_fn(move || Some((field()?, field()?)))
}

const TOO_MANY: &str = "it has more than 15 MiB of extended attributes, or more than 64 KiB of \
                        their names: an archive cannot hold them";

/// Enough for most files. A larger buffer would cost time, because for each call
/// the kernel allocates as much memory as the buffer has.
const XATTR_BYTES_USUAL: usize = 256;

/// Reads extended attributes. Each thread has its own.
///
/// There is no `llistxattrat(2)` before Linux 6.13. Opening each file would cost
/// more, and fail for symlinks and devices. So the file's directory becomes the
/// working directory of this thread alone, where the kernel permits that. Without
/// it, names are looked up below `/proc/self/fd`, which takes as long as all the
/// rest of a scan.
pub(crate) struct AttributeReader<'a> {
    sets: &'a AttributeSets,
    /// Whether the working directory is this thread's own.
    has_own_directory: bool,
    /// The prefix for the directory, and then the name of a file.
    path: Vec<u8>,
    prefix_bytes: usize,
    names: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> AttributeReader<'a> {
    pub(crate) fn new(sets: &'a AttributeSets) -> AttributeReader<'a> {
        AttributeReader {
            sets,
            has_own_directory: false,
            path: Vec::new(),
            prefix_bytes: 0,
            names: vec![0; XATTR_BYTES_USUAL],
            value: vec![0; XATTR_BYTES_USUAL],
        }
    }

    /// Gives this thread a working directory of its own, until it ends.
    pub(crate) fn unshare_working_directory(&mut self) {
        self.has_own_directory = unshare(CloneFlags::CLONE_FS).is_ok();
    }

    /// Makes [`read`](AttributeReader::read) look up names in `directory`, which
    /// must stay open meanwhile.
    pub(crate) fn enter(&mut self, directory: BorrowedFd<'_>) {
        self.path.clear();
        if !(self.has_own_directory && rustix::process::fchdir(directory).is_ok()) {
            // Writing to a `Vec` cannot fail.
            let _ = write!(self.path, "/proc/self/fd/{}/", directory.as_raw_fd());
        }
        self.prefix_bytes = self.path.len();
    }

    /// Returns the set of attributes of `name` in the directory that was entered;
    /// a symlink is not followed. `None` if there are none.
    ///
    /// # Errors
    /// When they cannot be read, or are more than an archive can hold.
    pub(crate) fn read(&mut self, name: &[u8]) -> Result<Option<u32>> {
        self.path.truncate(self.prefix_bytes);
        self.path.extend_from_slice(name);
        self.read_path(Follow::No)
    }

    /// Returns the set of attributes of the file behind an open handle.
    ///
    /// # Errors
    /// As of [`read`](AttributeReader::read).
    pub(crate) fn read_handle(&mut self, handle: BorrowedFd<'_>) -> Result<Option<u32>> {
        self.path.clear();
        let _ = write!(self.path, "/proc/self/fd/{}", handle.as_raw_fd());
        self.prefix_bytes = 0;
        self.read_path(Follow::Yes)
    }

    fn read_path(&mut self, follow: Follow) -> Result<Option<u32>> {
        self.path.push(0);
        let path = CStr::from_bytes_with_nul(&self.path).map_err(|_| Errno::INVAL)?;
        let listed = read_into(&mut self.names, |names| match follow {
            Follow::Yes => rustix::fs::listxattr(path, names),
            Follow::No => rustix::fs::llistxattr(path, names),
        });
        let listed = match listed {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(None),
            Ok(listed) => listed,
            // The kernel can return no longer list of names (xattr(7)).
            Err(Errno::TOOBIG) => bail!(TOO_MANY),
            Err(error) => return Err(error.into()),
        };
        let mut names: Vec<&[u8]> = self.names[..listed]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty() && !XFS_ACLS.contains(name))
            .collect();
        names.sort_unstable();
        let mut set = Vec::new();
        for name in names {
            let got = read_into(&mut self.value, |value| match follow {
                Follow::Yes => rustix::fs::getxattr(path, name, value),
                Follow::No => rustix::fs::lgetxattr(path, name, value),
            });
            match got {
                Ok(got) => {
                    push(&mut set, name);
                    push(&mut set, &self.value[..got]);
                    ensure!(set.len() <= ATTRIBUTE_BYTES_MAX, TOO_MANY);
                }
                // It was removed since it was listed, or is listed but not readable.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match set.is_empty() {
            true => Ok(None),
            false => self.sets.intern(&set).map(Some),
        }
    }
}

#[derive(Clone, Copy)]
enum Follow {
    Yes,
    No,
}

/// Reads into the usual buffer first, and into one of the greatest length if that
/// is too short.
fn read_into(
    buffer: &mut Vec<u8>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<usize> {
    let usual = buffer.len().min(XATTR_BYTES_USUAL);
    match read(&mut buffer[..usual]) {
        Err(Errno::RANGE) => {
            buffer.resize(XATTR_BYTES_MAX, 0);
            read(buffer)
        }
        result => result,
    }
}

fn push(set: &mut Vec<u8>, field: &[u8]) {
    // A field has at most XATTR_BYTES_MAX bytes.
    set.extend_from_slice(&(field.len() as u32).to_le_bytes());
    set.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_of_all_files_are_bounded() {
        let sets = AttributeSets::default();
        let mut set = vec![0; 64 << 20];
        for at in 0..4 {
            set[at] = 1;
            sets.intern(&set).unwrap();
            // The control: one that is known takes no room.
            sets.intern(&set).unwrap();
        }
        set[4] = 1;
        let error = sets.intern(&set).unwrap_err();
        assert!(error.to_string().contains("more than 256 MiB"), "{error}");
    }
}
