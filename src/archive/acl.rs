use std::fmt::Write;

/// The text of an access control list as in `acl(5)`, short form, with numeric
/// ids: `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`.
///
/// `binary` is the value of a `system.posix_acl_access` or `_default`
/// attribute: `struct posix_acl_xattr_header` and entries of
/// `linux/posix_acl_xattr.h`, little endian. `None` if it is none of version 2
/// or has no entries.
pub(crate) fn to_text(binary: &[u8]) -> Option<String> {
    const VERSION: [u8; 4] = 2_u32.to_le_bytes();
    let entries = binary.strip_prefix(&VERSION)?;
    if entries.is_empty() || entries.len() % 8 != 0 {
        return None;
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a `String` cannot fail.
        let _ = match tag {
            0x01 => write!(text, "user::"),
            0x02 => write!(text, "user:{id}:"),
            0x04 => write!(text, "group::"),
            0x08 => write!(text, "group:{id}:"),
            0x10 => write!(text, "mask::"),
            0x20 => write!(text, "other::"),
            _ => return None,
        };
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if permissions & bit == 0 { '-' } else { letter });
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::to_text;

    fn binary(version: u32, entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut binary = version.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            binary.extend(tag.to_le_bytes());
            binary.extend(permissions.to_le_bytes());
            binary.extend(id.to_le_bytes());
        }
        binary
    }

    #[test]
    fn every_kind_of_entry_becomes_text() {
        let any = u32::MAX;
        let acl = [
            (1, 7, any),
            (2, 4, 3_000_000),
            (4, 5, any),
            (8, 2, 0),
            (0x10, 6, any),
            (0x20, 0, any),
        ];
        assert_eq!(
            to_text(&binary(2, &acl)).as_deref(),
            Some("user::rwx,user:3000000:r--,group::r-x,group:0:-w-,mask::rw-,other::---")
        );
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        assert!(to_text(&binary(2, &[(1, 7, 0)])).is_some());
        assert_eq!(to_text(&binary(3, &[(1, 7, 0)])), None);
        assert_eq!(to_text(&binary(2, &[(3, 7, 0)])), None);
        assert_eq!(to_text(&binary(2, &[])), None);
        assert_eq!(to_text(b"\x02\0"), None);
        assert_eq!(to_text(b"\x02\0\0\0\x01\0"), None);
    }
}
