use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// What to leave out of an archive: patterns as in `gitignore(5)`, relative to
/// the root of every source.
#[derive(Debug)]
pub struct Exclude {
    patterns: Gitignore,
}

impl Exclude {
    /// Fails on a pattern that does not parse, and names it.
    pub fn new(patterns: &[String]) -> Result<Exclude> {
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        for pattern in patterns {
            builder
                .add_line(None, pattern)
                .with_context(|| format!("pattern {pattern:?}"))?;
        }
        let patterns = builder.build().context("patterns")?;
        Ok(Exclude { patterns })
    }

    /// Whether to leave out `rel`, a path relative to a source's root. Asked
    /// on the way down: what is under an excluded directory never is.
    pub fn is_excluded(&self, rel: &Path, is_dir: bool) -> bool {
        self.patterns.matched(rel, is_dir).is_ignore()
    }

    /// The same for a file reached by other ways than from above.
    pub(crate) fn holds_file(&self, rel: &[u8]) -> bool {
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

/// What such a file begins with: <https://bford.info/cachedir/>.
pub(crate) const CACHEDIR_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";
