//! Where the copy of a path of the host is, symlinks and all.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::archive::Manifest;
use crate::restore::tree_of;

/// As many as Linux follows (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

#[derive(Debug, PartialEq)]
pub enum CopyLocation {
    /// No symlink is in it, so Docker, which follows them, goes nowhere else.
    Present(PathBuf),
    /// The same, but nothing is there.
    Absent(PathBuf),
    /// And why there is none.
    Outside(String),
}

/// Of `path`, in what was unpacked into `root`. Symlinks lead as they would on
/// the host, but to the copy of what they lead to there: the same symlink in
/// the copy may lead to what is live. `root` must be nobody else's.
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
        // Of what is above the trees, the path in the manifest is all that is known.
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
    // Whatever an archive made of the directories above a tree.
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

/// The last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev();
    let parts = parts.filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}
