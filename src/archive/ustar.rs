use tar::{EntryType, Header};

use super::BLOCK_BYTES;

/// Appends a pax extended header with `records`.
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

/// Puts `path` into the name and prefix fields. If it does not fit, as much of
/// it as does, and false.
pub(crate) fn set_name(header: &mut Header, path: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else {
        return false;
    };
    let name_max = ustar.name.len();
    if path.len() <= name_max {
        ustar.name[..path.len()].copy_from_slice(path);
        return true;
    }
    // Split at a slash; what follows must fit in `name` and not be empty.
    let split = (path.len() - name_max - 1..path.len() - 1)
        .find(|at| path[*at] == b'/' && *at > 0)
        .filter(|at| *at <= ustar.prefix.len());
    match split {
        Some(at) => {
            ustar.prefix[..at].copy_from_slice(&path[..at]);
            ustar.name[..path.len() - at - 1].copy_from_slice(&path[at + 1..]);
            true
        }
        None => {
            ustar.name.copy_from_slice(&path[..name_max]);
            false
        }
    }
}

/// The same for the target of a link.
pub(crate) fn set_link(header: &mut Header, target: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else {
        return false;
    };
    let fits = target.len().min(ustar.linkname.len());
    ustar.linkname[..fits].copy_from_slice(&target[..fits]);
    fits == target.len()
}

/// Fills up to a whole block. Everything before a member's data begins at one,
/// so the length of `out` counts from a block.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK_BYTES as usize), 0);
}
