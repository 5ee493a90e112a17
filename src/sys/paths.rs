//! Paths as the kernel resolves them.

use std::fs;
use std::path::{Path, PathBuf};

/// Resolves every symlink in `path`. Returns the path unchanged if it cannot be
/// resolved, for example because it does not exist on this host.
pub fn without_symlinks(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
