//! POSIX access control lists: the kernel's binary form, and the text form of
//! pax records.

use std::fmt::Write;

/// Formats an access control list in the short text form of `acl(5)`, with
/// numeric ids: `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`.
///
/// `binary` is the value of a `system.posix_acl_access` or `_default`
/// attribute: `struct posix_acl_xattr_header` and entries of
/// `linux/posix_acl_xattr.h`, little endian. `None` if it is malformed, has
/// another version than 2, or has no entries.
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

/// Parses the text form into the value of the attribute. Besides the text of
/// [`to_text`] it takes what other programs write: entries separated by commas
/// or newlines, tags in full or by their first letter, ids as numbers or as
/// names of this host, a fourth field with the number (`star`), comments after
/// `#`. `None` if the text is malformed.
pub(crate) fn to_binary(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for entry in text.split([',', '\n']) {
        let entry = entry.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            entries.push(entry_to_binary(entry)?);
        }
    }
    if entries.is_empty() {
        return None;
    }
    // The kernel requires this order (posix_acl_valid).
    entries.sort_unstable();
    let mut binary = 2_u32.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        binary.extend(tag.to_le_bytes());
        binary.extend(permissions.to_le_bytes());
        binary.extend(id.to_le_bytes());
    }
    Some(binary)
}

/// Parses one entry into its tag, id and permissions.
fn entry_to_binary(entry: &str) -> Option<(u16, u32, u16)> {
    let fields: Vec<&str> = entry.split(':').map(str::trim).collect();
    let (tag, who, permissions) = match fields[..] {
        // Some programs write `mask:r--` and `other:r--`.
        [tag, permissions] => (tag, "", permissions),
        [tag, who, permissions] => (tag, who, permissions),
        [tag, _, permissions, number] => (tag, number, permissions),
        _ => return None,
    };
    let mut bits = 0;
    for letter in permissions.chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return None,
        };
    }
    let number = |look_up: fn(&str) -> Option<u32>| who.parse().ok().or_else(|| look_up(who));
    let (tag, id) = match (tag, who) {
        ("user" | "u", "") => (0x01, u32::MAX),
        ("user" | "u", _) => (0x02, number(user_id)?),
        ("group" | "g", "") => (0x04, u32::MAX),
        ("group" | "g", _) => (0x08, number(group_id)?),
        ("mask" | "m", "") => (0x10, u32::MAX),
        ("other" | "o", "") => (0x20, u32::MAX),
        _ => return None,
    };
    Some((tag, id, bits))
}

fn user_id(name: &str) -> Option<u32> {
    let user = nix::unistd::User::from_name(name).ok()??;
    Some(user.uid.as_raw())
}

fn group_id(name: &str) -> Option<u32> {
    let group = nix::unistd::Group::from_name(name).ok()??;
    Some(group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::{to_binary, to_text};

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
    fn a_malformed_acl_is_refused() {
        assert!(to_text(&binary(2, &[(1, 7, 0)])).is_some());
        assert_eq!(to_text(&binary(3, &[(1, 7, 0)])), None);
        assert_eq!(to_text(&binary(2, &[(3, 7, 0)])), None);
        assert_eq!(to_text(&binary(2, &[])), None);
        assert_eq!(to_text(b"\x02\0"), None);
        assert_eq!(to_text(b"\x02\0\0\0\x01\0"), None);
    }

    #[test]
    fn text_is_parsed_back_also_as_other_programs_write_it() {
        let any = u32::MAX;
        let acl = binary(
            2,
            &[
                (1, 7, any),
                (2, 4, 5),
                (4, 5, any),
                (8, 2, 0),
                (0x10, 6, any),
                (0x20, 0, any),
            ],
        );
        let text = to_text(&acl).unwrap();
        assert_eq!(to_binary(text.as_bytes()), Some(acl.clone()));
        let others =
            "o::---\nu::rwx\ng::r-x #effective:r--\ngroup:root:-w-\nmask:rw-\nuser:x:r--:5\n";
        assert_eq!(to_binary(others.as_bytes()), Some(acl));
        for wrong in [
            "",
            "user",
            "user::rwz",
            "king::rwx",
            "user:no such user:r--",
            "\u{fe}",
        ] {
            assert_eq!(to_binary(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
