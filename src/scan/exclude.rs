//! Patterns for files that are left out of archives.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Serialize};

use crate::sys::paths::open_regular;

/// Patterns as in `gitignore(5)`, relative to the root of each source.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Exclude {
    lines: Vec<String>,
    patterns: Gitignore,
    /// Matches directories of which everything is excluded, but not themselves.
    emptied: Gitignore,
}

impl TryFrom<Vec<String>> for Exclude {
    type Error = anyhow::Error;

    fn try_from(lines: Vec<String>) -> Result<Exclude> {
        Exclude::new(&lines)
    }
}

impl From<Exclude> for Vec<String> {
    fn from(exclude: Exclude) -> Vec<String> {
        exclude.lines
    }
}

impl Exclude {
    /// # Errors
    /// When a pattern does not parse; the message names it.
    pub fn new(lines: &[String]) -> Result<Exclude> {
        let patterns = combine(lines)?;
        // With a pattern like `!/data/keep`, something of the directory may stay.
        let emptied: Vec<String> = match patterns.num_whitelists() {
            0 => lines.iter().filter_map(|line| emptied(line)).collect(),
            _ => Vec::new(),
        };
        Ok(Exclude {
            lines: lines.to_vec(),
            patterns,
            emptied: combine(&emptied)?,
        })
    }

    /// Whether the patterns match `rel`, a path relative to a source's root. The
    /// directories above it must have been checked before: their matches are not
    /// considered.
    pub fn is_excluded(&self, rel: &Path, is_dir: bool) -> bool {
        self.patterns.matched(rel, is_dir).is_ignore()
    }

    /// Whether nothing is archived of what is at `inside` in a tree with this root,
    /// except possibly the directory itself. `with_caches` leaves out the content of
    /// directories with a `CACHEDIR.TAG`, too.
    pub fn leaves_out(&self, root: &Path, inside: &Path, with_caches: bool) -> bool {
        let is_dir = root.join(inside).is_dir();
        let mut parts = inside
            .ancestors()
            .filter(|part| !part.as_os_str().is_empty());
        parts.any(|part| {
            let is_dir = is_dir || part != inside;
            self.is_excluded(part, is_dir)
                || self.emptied.matched(part, is_dir).is_ignore()
                || (with_caches && is_dir && is_cache(&root.join(part)))
        })
    }

    /// Whether the patterns match the file `rel`, or a directory above it.
    pub(crate) fn matches_file(&self, rel: &[u8]) -> bool {
        let rel = Path::new(OsStr::from_bytes(rel));
        let found = self.patterns.matched_path_or_any_parents(rel, false);
        found.is_ignore()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

fn combine(lines: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    for line in lines {
        builder
            .add_line(None, line)
            .with_context(|| format!("pattern {line:?}"))?;
    }
    builder.build().context("cannot combine the patterns")
}

/// Returns a pattern for the directory of which `line` excludes everything.
fn emptied(line: &str) -> Option<String> {
    let line = line.trim_end_matches('/');
    let dir = line.strip_suffix("/**").or(line.strip_suffix("/*"))?;
    match dir.is_empty() || line.starts_with('#') {
        true => None,
        // A slash at its end anchors the whole pattern; that of the directory may
        // have none left.
        false if dir.starts_with('/') || dir.starts_with("**") => Some(format!("{dir}/")),
        false => Some(format!("/{dir}/")),
    }
}

/// Whether a directory holds a valid `CACHEDIR.TAG`.
fn is_cache(dir: &Path) -> bool {
    let tag = dir.join(OsStr::from_bytes(CACHEDIR_TAG));
    let mut start = [0; CACHEDIR_SIGNATURE.len()];
    let read = open_regular(&tag).and_then(|mut tag| tag.read_exact(&mut start));
    read.is_ok() && start == *CACHEDIR_SIGNATURE
}

/// Name of the file that marks a directory as a cache.
pub(crate) const CACHEDIR_TAG: &[u8] = b"CACHEDIR.TAG";

/// The first bytes of that file: <https://bford.info/cachedir/>.
pub(crate) const CACHEDIR_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";
