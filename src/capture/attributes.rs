use std::collections::HashMap;
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

/// Largest list of names and largest value the kernel gives: `xattr(7)`.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// XFS lists POSIX ACLs, which are listed anyway, a second time under the names
/// it keeps them by (`fs/xfs/libxfs/xfs_da_format.h`). Elsewhere these would be
/// restored as junk.
const XFS_ACLS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// Sets of extended attributes, each distinct one kept once. A set is a
/// sequence of `u32` name length, name, `u32` value length, value (lengths
/// little endian), sorted by name.
#[derive(Debug, Default)]
pub(crate) struct AttributeSets {
    known: Mutex<HashMap<Box<[u8]>, u32>>,
}

impl AttributeSets {
    fn intern(&self, set: &[u8]) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known.get(set) {
            return *index;
        }
        let index = known.len() as u32;
        known.insert(set.into(), index);
        index
    }

    pub(crate) fn into_sets(self) -> Vec<Box<[u8]>> {
        let known = self
            .known
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut sets = vec![Box::default(); known.len()];
        for (set, index) in known {
            sets[index as usize] = set;
        }
        sets
    }
}

/// The names and values in an encoded set.
pub(crate) fn decode(mut set: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut field = move || {
        let (len, rest) = set.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        set = rest;
        Some(field)
    };
    std::iter::from_fn(move || Some((field()?, field()?)))
}

/// Reads extended attributes; one for each thread.
pub(crate) struct AttributeReader<'a> {
    sets: &'a AttributeSets,
    names: Vec<u8>,
    value: Vec<u8>,
    path: Vec<u8>,
}

impl<'a> AttributeReader<'a> {
    pub(crate) fn new(sets: &'a AttributeSets) -> AttributeReader<'a> {
        AttributeReader {
            sets,
            names: vec![0; XATTR_BYTES_MAX],
            value: vec![0; XATTR_BYTES_MAX],
            path: Vec::new(),
        }
    }

    /// The attributes of `name` in the open directory `at`, which is not
    /// followed if it is a symlink; of `at` itself if `name` is empty. `None`
    /// if there are none. Goes by `/proc/self/fd`, because there is no
    /// `llistxattrat(2)` before Linux 6.13 and opening the file would cost
    /// more, and fail for symlinks and devices.
    pub(crate) fn read(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
    ) -> rustix::io::Result<Option<u32>> {
        self.path.clear();
        // Writing to a `Vec` cannot fail.
        let _ = write!(self.path, "/proc/self/fd/{}", at.as_raw_fd());
        let follow = name.is_empty();
        if !follow {
            self.path.push(b'/');
            self.path.extend_from_slice(name);
        }
        self.path.push(0);
        let path = CStr::from_bytes_with_nul(&self.path).map_err(|_| Errno::INVAL)?;
        let listed = if follow {
            rustix::fs::listxattr(path, &mut self.names[..])
        } else {
            rustix::fs::llistxattr(path, &mut self.names[..])
        };
        let listed = match listed {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(None),
            Ok(listed) => listed,
            Err(error) => return Err(error),
        };
        let mut names: Vec<&[u8]> = self.names[..listed]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty() && !XFS_ACLS.contains(name))
            .collect();
        names.sort_unstable();
        let mut set = Vec::new();
        for name in names {
            let value = &mut self.value[..];
            let got = if follow {
                rustix::fs::getxattr(path, name, value)
            } else {
                rustix::fs::lgetxattr(path, name, value)
            };
            match got {
                Ok(got) => {
                    push(&mut set, name);
                    push(&mut set, &self.value[..got]);
                }
                // Gone since it was listed, or listed though it cannot be read.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((!set.is_empty()).then(|| self.sets.intern(&set)))
    }
}

fn push(set: &mut Vec<u8>, field: &[u8]) {
    // At most XATTR_BYTES_MAX.
    set.extend_from_slice(&(field.len() as u32).to_le_bytes());
    set.extend_from_slice(field);
}
