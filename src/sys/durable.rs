//! Writes that survive a power cut: afterwards a file has either its old content
//! or its new one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Replaces a file in one step: writes a temporary file in the same directory
/// (mode 0600), fsyncs it, renames it and fsyncs the directory.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    write_durably_with_mode(path, bytes, 0o600)
}

/// Like [`write_durably`], with another mode, whatever the umask is.
pub fn write_durably_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let dir = path
        .parent()
        .with_context(|| format!("{} names no file", path.display()))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()
        })
        .with_context(|| format!("cannot write {}", Path::new(&temporary).display()))?;
    fs::rename(&temporary, path).with_context(|| format!("cannot replace {}", path.display()))?;
    sync_dir(dir)
}

/// Fsyncs a directory, so that files created, renamed or removed in it stay so.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot sync {}", dir.display()))
}

/// Creates a directory (mode 0700) and its parents, if it does not exist, and
/// fsyncs its parent, so that what is fsynced in it can be found after a power cut.
pub fn create_dir_durably(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create {}", dir.display()))?;
    dir.parent().map_or(Ok(()), sync_dir)
}
