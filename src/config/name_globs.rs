//! Names that are given by globs.

use anyhow::{Context, Result};
use globset::{Glob, GlobSet, GlobSetBuilder};

/// Matches names of Compose projects.
#[derive(Clone, Debug, Default)]
pub struct NameGlobs(GlobSet);

impl NameGlobs {
    /// # Errors
    /// When a glob does not parse; the message names it.
    pub fn new(globs: &[String]) -> Result<NameGlobs> {
        let mut all = GlobSetBuilder::new();
        for glob in globs {
            all.add(Glob::new(glob).with_context(|| format!("glob {glob:?}"))?);
        }
        Ok(NameGlobs(all.build()?))
    }

    /// Whether one of the globs matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_a_whole_name() {
        let globs = ["test-*", "web", "db[0-9]"].map(str::to_owned);
        let globs = NameGlobs::new(&globs).unwrap();
        for (name, expected) in [
            ("test-1", true),
            ("web", true),
            ("db7", true),
            ("web2", false),
            ("my-test-1", false),
            ("db77", false),
        ] {
            assert_eq!(globs.matches(name), expected, "{name}");
        }
        let error = NameGlobs::new(&["a[".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("a["), "{error}");
    }
}
