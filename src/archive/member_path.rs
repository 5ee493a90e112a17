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

/// Returns the first one of `paths` that is `path` or a directory above it, except the empty
/// one. All are normalised, and `paths` are sorted.
pub fn enclosing<'p>(paths: &'p [Vec<u8>], path: &[u8]) -> Option<&'p Vec<u8>> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let ends = slashes.map(|(at, _)| at).chain([path.len()]);
    let found = |end| {
        let found = paths.binary_search_by(|known| known[..].cmp(&path[..end]));
        found.ok().filter(|_| end > 0)
    };
    ends.filter_map(found).next().map(|at| &paths[at])
}

/// Returns whether one of the sorted `paths` is within the directory `path`.
pub fn encloses_any(path: &[u8], paths: &[Vec<u8>]) -> bool {
    let inside = [path, b"/"].concat();
    let first = paths.partition_point(|known| *known < inside);
    let next = paths.get(first);
    path.is_empty() && !paths.is_empty() || next.is_some_and(|next| next.starts_with(&inside))
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
    use super::*;

    #[test]
    fn paths_that_lead_out_of_the_archive_are_refused() {
        assert_eq!(normalise(b"./a//b/").unwrap(), b"a/b");
        assert_eq!(normalise(b"./").unwrap(), b"");
        assert_eq!(normalise(b"a/..b").unwrap(), b"a/..b");
        for wrong in [&b"/a"[..], b"..", b"a/../b", b"../a", b"a/..", b"a\0b"] {
            assert!(normalise(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sorted_paths_are_searched_for_those_around_and_within_a_path() {
        let paths = ["a", "a.b", "a/x", "c/d", "c/d-e/f"].map(|path| path.as_bytes().to_vec());
        assert!(paths.is_sorted());
        let all = [
            "a",
            "a.b",
            "a.b/c",
            "a/x/y",
            "ab",
            "c",
            "c/d",
            "c/d/e",
            "c/d-",
            "c/d-e",
            "c/d-e/f/g",
            "z",
            "",
        ];
        for path in all.map(str::as_bytes) {
            let around = paths.iter().find(|known| within(path, known).is_some());
            assert_eq!(enclosing(&paths, path), around, "{path:?}");
            let mut within_it = paths.iter().filter(|known| *known != path);
            let is_around = within_it.any(|known| within(known, path).is_some());
            assert_eq!(encloses_any(path, &paths), is_around, "{path:?}");
        }
        let empty = [Vec::new()];
        assert_eq!(enclosing(&empty, b"a"), None);
        assert!(!encloses_any(b"a", &empty));
    }
}
