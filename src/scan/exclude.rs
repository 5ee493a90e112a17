//! Patterns for files that are left out of archives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Serialize};

/// Patterns as in `gitignore(5)`, relative to the root of each source.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Exclude {
    lines: Vec<String>,
    patterns: Gitignore,
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
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        for line in lines {
            builder
                .add_line(None, line)
                .with_context(|| format!("pattern {line:?}"))?;
        }
        let patterns = builder.build().context("cannot combine the patterns")?;
        Ok(Exclude {
            lines: lines.to_vec(),
            patterns,
        })
    }

    /// Whether the patterns match `rel`, a path relative to a source's root. The
    /// directories above it must have been checked before: their matches are not
    /// considered.
    pub fn is_excluded(&self, rel: &Path, is_dir: bool) -> bool {
        self.patterns.matched(rel, is_dir).is_ignore()
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

/// Name of the file that marks a directory as a cache.
pub(crate) const CACHEDIR_TAG: &[u8] = b"CACHEDIR.TAG";

/// The first bytes of that file: <https://bford.info/cachedir/>.
pub(crate) const CACHEDIR_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";
