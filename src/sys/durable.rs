//! Writes that survive a power cut: afterwards a file has either its old content
//! or its new one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
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
    // What was left, or put there by somebody who may write to the directory, is not
    // written to: it may be a symlink or a pipe.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .with_context(|| format!("cannot remove {}", Path::new(&temporary).display()))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_symlink_in_the_place_of_the_temporary_file_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&other, "as it was").unwrap();
        symlink(&other, dir.path().join("file.new")).unwrap();
        write_durably_with_mode(&path, b"new", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read(&other).unwrap(), b"as it was");
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
    }
}
