//! Finds the copy of a path of the host in an unpacked archive, and resolves
//! symlinks on the way.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::archive::Manifest;
use crate::restore::tree_of;

/// The number of symlinks that Linux follows in a path (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// Where the copy of a path is.
#[derive(Debug, PartialEq)]
pub enum CopyLocation {
    /// The copy, as a path without symlinks. Docker follows symlinks in the
    /// source of a bind, so with one it could mount something else.
    Present(PathBuf),
    /// The path that the copy would have; the archive does not have the file.
    Absent(PathBuf),
    /// The archive cannot have a copy, for this reason.
    Outside(String),
}

/// Finds the copy of `path` in the archive that was unpacked into `root`.
///
/// A symlink leads to the copy of its target on the host. It must not be followed
/// as it is: an absolute one leads to the live data. Nobody else may write to
/// `root`.
pub fn find(manifest: &Manifest, root: &Path, path: &str) -> CopyLocation {
    let outside = |at: &Path| {
        let at = at.display().to_string();
        CopyLocation::Outside(match at == path {
            true => format!("the archive does not hold {path}"),
            false => {
                format!("a symlink leads from {path} to {at}, which the archive does not hold")
            }
        })
    };
    let copy_of = |at: &Path| Some(root.join(tree_of(manifest, at.to_str()?)?));
    let mut at = PathBuf::from("/");
    let mut to_go = parts(Path::new(path));
    let mut link_count = 0;
    while let Some(part) = to_go.pop() {
        match part.to_str() {
            Some("/") => at = PathBuf::from("/"),
            Some("..") => drop(at.pop()),
            _ => at.push(part),
        }
        // Above the trees, nothing is in the copy. The paths in the manifest are
        // right there.
        let Some(Ok(target)) = copy_of(&at).map(fs::read_link) else {
            continue;
        };
        link_count += 1;
        if link_count > LINKS_MAX {
            return CopyLocation::Outside(format!("{path} leads through too many symlinks"));
        }
        at.pop();
        to_go.extend(parts(&target));
    }
    let Some(copy) = copy_of(&at) else {
        return outside(&at);
    };
    // The archive may have a symlink in place of a directory above a tree.
    let is_there = |path: &&Path| fs::symlink_metadata(path).is_ok();
    let there = copy.ancestors().find(is_there).unwrap_or(root);
    match fs::canonicalize(there) {
        Ok(real) if real == there && there.starts_with(root) => match there == copy {
            true => CopyLocation::Present(copy),
            false => CopyLocation::Absent(copy),
        },
        _ => outside(&at),
    }
}

/// Returns the components of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev();
    let parts = parts.filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}
