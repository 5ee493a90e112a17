//! ustar headers, written with the `tar` crate, and how long a name they can
//! hold.

use tar::{EntryType, Header};

use crate::archive::tar::BLOCK_BYTES;

/// Size of the fields for a name and for the target of a link: POSIX.1-2017
/// `pax`, "ustar Interchange Format".
const NAME_BYTES: usize = 100;
/// Size of the field for the directories that precede a name.
const PREFIX_BYTES: usize = 155;

/// Appends a pax extended header and its `records`.
pub(crate) fn push_pax_header(base_name: &[u8], records: &[u8], out: &mut Vec<u8>) {
    let mut header = Header::new_ustar();
    set_name(&mut header, &[b"PaxHeaders/", base_name].concat());
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(0);
        ustar.set_device_minor(0);
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(records);
    pad(out);
}

/// Where `path` is split between the prefix and name fields; 0 if it fits in the
/// name field alone. `None` if it does not fit.
fn split_at(path: &[u8]) -> Option<usize> {
    if path.len() <= NAME_BYTES {
        return Some(0);
    }
    // At a slash. The part after it must fit in the name field and must not be
    // empty.
    (path.len() - NAME_BYTES - 1..path.len() - 1)
        .find(|at| path[*at] == b'/' && *at > 0)
        .filter(|at| *at <= PREFIX_BYTES)
}

/// Whether `path` fits in the prefix and name fields.
pub(crate) fn fits_name(path: &[u8]) -> bool {
    split_at(path).is_some()
}

/// Whether `target` fits in the field for the target of a link.
pub(crate) fn fits_link(target: &[u8]) -> bool {
    target.len() <= NAME_BYTES
}

/// Writes `path` to the prefix and name fields. A path that does not fit is cut.
pub(crate) fn set_name(header: &mut Header, path: &[u8]) {
    let Some(ustar) = header.as_ustar_mut() else {
        return;
    };
    let name = match split_at(path) {
        Some(0) => path,
        Some(at) => {
            ustar.prefix[..at].copy_from_slice(&path[..at]);
            &path[at + 1..]
        }
        None => &path[..NAME_BYTES],
    };
    ustar.name[..name.len()].copy_from_slice(name);
}

/// Writes `target` to the field for the target of a link. One that does not fit
/// is cut.
pub(crate) fn set_link(header: &mut Header, target: &[u8]) {
    if let Some(ustar) = header.as_ustar_mut() {
        let fits = target.len().min(NAME_BYTES);
        ustar.linkname[..fits].copy_from_slice(&target[..fits]);
    }
}

/// Fills `out` with zeros up to a whole block. It must begin at a block.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK_BYTES as usize), 0);
}
