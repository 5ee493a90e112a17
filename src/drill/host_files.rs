//! Copies secrets of this machine, which an archive names but does not hold, for
//! a throw-away project. The configuration lists where they may be.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

/// The size of the largest file that is copied. The Engine's own secrets have at
/// most 500 KiB.
const BYTES_MAX: u64 = 1 << 20;

/// Copies `path`, a regular file at or below one of the paths in `allowed`, into
/// the directory `dir`. The copy has the same owner and mode, because the service
/// may run as a user other than root. Returns the path of the copy.
///
/// # Errors
/// When the file is not allowed, is not regular, or cannot be read.
pub fn copy_host_file(path: &Path, allowed: &[PathBuf], dir: &Path) -> Result<PathBuf> {
    let handle = open_allowed(path, allowed)?;
    // A handle by `O_PATH` opens no device. Only a regular file is opened to be
    // read.
    let status = rustix::fs::fstat(&handle)?;
    ensure!(
        rustix::fs::FileType::from_raw_mode(status.st_mode).is_file(),
        "{} is not a regular file",
        path.display()
    );
    let context = || format!("cannot copy {}", path.display());
    let mut source =
        File::open(format!("/proc/self/fd/{}", handle.as_raw_fd())).with_context(context)?;
    let mut bytes = Vec::new();
    let read = (&mut source).take(BYTES_MAX + 1).read_to_end(&mut bytes);
    ensure!(
        read.with_context(context)? as u64 <= BYTES_MAX,
        "{} is larger than {BYTES_MAX} bytes",
        path.display()
    );
    write_copy(&source.metadata().with_context(context)?, &bytes, dir).with_context(context)
}

/// Opens a file that one of the paths in `allowed` permits, by `O_PATH`. A path in
/// the list may be a symlink; what is below it may not lead out of it.
fn open_allowed(path: &Path, allowed: &[PathBuf]) -> Result<OwnedFd> {
    let refused = || {
        format!(
            "the archive does not hold {}, and `drillSecrets` does not allow it",
            path.display()
        )
    };
    let is_plain = !path.components().any(|part| part == Component::ParentDir);
    let permitting = allowed.iter().find(|allowed| path.starts_with(allowed));
    let permitting = permitting.filter(|_| is_plain).with_context(refused)?;
    let open = |at: &dyn AsFd, path: &Path, resolve: ResolveFlags| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(at.as_fd(), path, flags, Mode::empty(), resolve)
            .with_context(|| format!("cannot open {}", path.display()))
    };
    let top = open(&CWD, permitting, ResolveFlags::empty())?;
    match path.strip_prefix(permitting) {
        Ok(below) if below != Path::new("") => open(&top, below, ResolveFlags::BENEATH),
        _ => Ok(top),
    }
}

fn write_copy(source: &fs::Metadata, bytes: &[u8], dir: &Path) -> Result<PathBuf> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let number = fs::read_dir(dir)?.count();
    let copy = dir.join(number.to_string());
    let file = File::create_new(&copy)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    std::io::Write::write_all(&mut &file, bytes)?;
    fchown(&file, Some(source.uid()), Some(source.gid()))?;
    // After the owner, because a new owner drops bits of the mode.
    file.set_permissions(fs::Permissions::from_mode(source.mode() & 0o777))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_regular_files_below_allowed_paths_are_copied() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let at = |name: &str| dir.join(name);
        fs::create_dir_all(at("secrets.d/1/sub")).unwrap();
        fs::create_dir(at("other")).unwrap();
        for file in ["secrets.d/1/key", "secrets.d/1/sub/key", "other/key"] {
            fs::write(at(file), file).unwrap();
        }
        fs::set_permissions(at("secrets.d/1/key"), fs::Permissions::from_mode(0o440)).unwrap();
        // The list may name a symlink, as that of sops-nix is.
        symlink("secrets.d/1", at("secrets")).unwrap();
        symlink("sub/key", at("secrets.d/1/link")).unwrap();
        symlink("../../other/key", at("secrets.d/1/out")).unwrap();
        symlink(at("other/key"), at("secrets.d/1/absolute")).unwrap();
        let _socket = UnixListener::bind(at("secrets.d/1/socket")).unwrap();
        fs::write(at("secrets.d/1/large"), vec![0; BYTES_MAX as usize + 1]).unwrap();
        let allowed = [at("secrets"), at("other/key")];
        let copy = |name: &str| copy_host_file(&at(name), &allowed, &at("copies"));
        for (name, text) in [
            ("secrets/key", "secrets.d/1/key"),
            ("secrets/sub/key", "secrets.d/1/sub/key"),
            ("secrets/link", "secrets.d/1/sub/key"),
            ("other/key", "other/key"),
        ] {
            let copy = copy(name).unwrap();
            assert!(copy.starts_with(at("copies")), "{copy:?}");
            assert_eq!(fs::read_to_string(&copy).unwrap(), text);
            let mode = |path: &Path| fs::metadata(path).unwrap().mode();
            assert_eq!(mode(&copy), mode(&at(name)), "{name}");
        }
        for (name, why) in [
            ("secrets.d/1/key", "`drillSecrets` does not allow it"),
            ("secrets-2/key", "`drillSecrets` does not allow it"),
            ("secrets/../other/key", "`drillSecrets` does not allow it"),
            ("other", "`drillSecrets` does not allow it"),
            ("secrets/out", "cannot open out"),
            ("secrets/absolute", "cannot open absolute"),
            ("secrets/none", "cannot open none"),
            ("secrets/sub", "is not a regular file"),
            ("secrets", "is not a regular file"),
            ("secrets/socket", "is not a regular file"),
            ("secrets/large", "is larger than"),
        ] {
            let error = format!("{:#}", copy(name).unwrap_err());
            assert!(error.contains(why), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(at("copies")).unwrap().count(), 4);
    }
}
