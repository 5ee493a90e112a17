//! Paths of members, as bytes.

use anyhow::{Result, ensure};

/// Joins the components of a member's path, without `./` and doubled slashes.
///
/// # Errors
/// When the path is absolute, or contains `..` or a NUL.
pub fn normalise(path: &[u8]) -> Result<Vec<u8>> {
    ensure!(!path.starts_with(b"/"), "its name is absolute");
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<&[u8]> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    ensure!(!parts.contains(&&b".."[..]), "its name has .. in it");
    ensure!(!path.contains(&0), "its name has a NUL in it");
    Ok(parts.join(&b'/'))
}

/// Returns the part of `path` after `prefix`, or `None` if `path` is neither
/// `prefix` nor beneath it. Both are normalised; every path is beneath the
/// empty prefix.
pub fn within<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(prefix)?;
    match prefix.is_empty() || rest.is_empty() {
        true => Some(rest),
        false => rest.strip_prefix(b"/"),
    }
}

/// Splits a normalised path into its parent, empty if it has none, and its last
/// component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Splits a normalised path into its first component and the rest, empty if there is
/// none.
pub fn split_first(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn paths_that_lead_out_of_the_archive_are_refused() {
        assert_eq!(normalise(b"./a//b/").unwrap(), b"a/b");
        assert_eq!(normalise(b"./").unwrap(), b"");
        assert_eq!(normalise(b"a/..b").unwrap(), b"a/..b");
        for wrong in [&b"/a"[..], b"..", b"a/../b", b"../a", b"a/..", b"a\0b"] {
            assert!(normalise(wrong).is_err(), "{wrong:?}");
        }
    }
}
