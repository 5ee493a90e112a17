//! Resolves the path of a tree without following a symlink that a container may
//! have made. The paths come from the configuration and from the Engine, but what
//! is at a path below a directory that a container writes to is its choice: it can
//! replace a directory by a symlink to any directory of the host.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, makedev};
use rustix::io::Errno;

/// The number of symlinks that Linux follows in a path (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The directories that containers write to, by device and inode.
#[derive(Clone, Debug, Default)]
pub struct Boundary {
    written: BTreeSet<(u64, u64)>,
    /// A user who writes to all directories that are the user's.
    user: Option<u32>,
    /// Whether symlinks of other users than root are not followed anywhere.
    follows_root_only: bool,
}

/// What is at a path.
#[derive(Debug)]
pub struct Resolved {
    /// The path without symlinks.
    pub path: PathBuf,
    /// A handle by `O_PATH`; `None` if nothing is there.
    pub handle: Option<OwnedFd>,
}

impl Boundary {
    /// `written` are the directories that containers mount writable. The root
    /// directory does not count: a container that may write to it is root of the
    /// host anyway. Neither does what does not exist.
    pub fn new<'p>(written: impl Iterator<Item = &'p Path>) -> Boundary {
        let written = written.filter(|path| *path != Path::new("/"));
        let look = |path: &Path| look(CWD, path, AtFlags::empty()).ok();
        let found = written.filter_map(look).map(|stat| identity(&stat));
        Boundary {
            written: found.collect(),
            user: None,
            follows_root_only: false,
        }
    }

    /// Has only symlinks of root followed, or of the user that runs this program. Services
    /// that are no containers write to directories that are known to nobody but them.
    pub fn following_root_only(self) -> Boundary {
        Boundary {
            follows_root_only: true,
            ..self
        }
    }

    /// Adds all directories of a user.
    pub fn and_of_user(self, uid: u32) -> Boundary {
        Boundary {
            user: Some(uid),
            ..self
        }
    }

    fn is_written(&self, stat: &Statx) -> bool {
        self.written.contains(&identity(stat)) || self.user == Some(stat.stx_uid)
    }

    /// Resolves an absolute path. Symlinks are followed, except those that are in,
    /// or below, a directory that containers write to. Each component is opened
    /// once, so nothing that is renamed meanwhile leads elsewhere.
    ///
    /// # Errors
    /// When such a symlink is on the way or at the end, or the path cannot be
    /// resolved for another reason than that nothing is there.
    pub fn resolve(&self, path: &Path) -> Result<Resolved> {
        self.walk(path)
            .with_context(|| format!("cannot resolve {}", path.display()))
    }

    fn walk(&self, path: &Path) -> Result<Resolved> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The handles of the real path, and whether containers write there.
        let root = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
        let mut handles = vec![(root, false)];
        let mut real = PathBuf::from("/");
        let mut to_go = parts(path);
        let mut link_count = 0;
        while let Some(part) = to_go.pop() {
            if part == "/" {
                handles.truncate(1);
                real = PathBuf::from("/");
                continue;
            }
            if part == ".." {
                if handles.len() > 1 {
                    handles.pop();
                    real.pop();
                }
                continue;
            }
            let (at, is_written) = handles.last().context("the root stays")?;
            let is_written = *is_written;
            let opened = rustix::fs::openat(at, &part, flags, Mode::empty());
            real.push(&part);
            let opened = match opened {
                Err(Errno::NOENT) => {
                    ensure!(
                        to_go.iter().all(|part| part != ".."),
                        "{} does not exist",
                        real.display()
                    );
                    real.extend(to_go.iter().rev());
                    return Ok(Resolved {
                        path: real,
                        handle: None,
                    });
                }
                opened => opened.with_context(|| real.display().to_string())?,
            };
            let stat = look(&opened, Path::new(""), AtFlags::EMPTY_PATH)?;
            if FileType::from_raw_mode(stat.stx_mode.into()).is_symlink() {
                let target = rustix::fs::readlinkat(&opened, "", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if is_written {
                    bail!(
                        "{} is a symlink to {}, and a container that can write there may have \
                         made it: replace it by what it leads to, or configure that path",
                        real.display(),
                        target.display()
                    );
                }
                let owner = stat.stx_uid;
                let is_trusted = owner == 0 || owner == geteuid().as_raw();
                ensure!(
                    is_trusted || !self.follows_root_only,
                    "{} is a symlink to {} of the user {owner}, who may have it lead anywhere: \
                     replace it by what it leads to, or configure that path",
                    real.display(),
                    target.display()
                );
                link_count += 1;
                ensure!(
                    link_count <= LINKS_MAX,
                    "it leads through too many symlinks"
                );
                real.pop();
                to_go.extend(parts(&target));
                continue;
            }
            let is_written = is_written || self.is_written(&stat);
            handles.push((opened, is_written));
        }
        Ok(Resolved {
            path: real,
            handle: handles.pop().map(|(handle, _)| handle),
        })
    }
}

/// Calls `statx(2)`, without asking the server of a network file system, which may not
/// answer, and without mounting anything.
fn look(at: impl AsFd, path: &Path, flags: AtFlags) -> rustix::io::Result<Statx> {
    let flags = flags | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::UID;
    rustix::fs::statx(at, path, flags, wanted)
}

/// Returns device and inode.
fn identity(stat: &Statx) -> (u64, u64) {
    let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    (device, stat.stx_ino)
}

/// Returns the components of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev();
    let parts = parts.filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, lchown, symlink};

    use super::*;

    #[test]
    fn symlinks_below_what_containers_write_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| dir.join(name);
        for made in [
            "host/secret",
            "disk/web/data/sub",
            "written/data",
            "written/deep/er",
        ] {
            fs::create_dir_all(at(made)).unwrap();
        }
        // Those of the administrator.
        symlink("disk/web", at("web")).unwrap();
        symlink(at("written"), at("linked")).unwrap();
        // Those that a container may have made.
        symlink(at("host"), at("written/absolute")).unwrap();
        symlink("../host", at("written/relative")).unwrap();
        symlink("er", at("written/deep/within")).unwrap();
        let boundary = Boundary::new([at("written").as_path(), Path::new("/")].into_iter());
        let followed = [
            ("web", "disk/web"),
            ("web/data/sub", "disk/web/data/sub"),
            ("written/data", "written/data"),
            ("linked/data", "written/data"),
            ("web/../../host", "host"),
            ("written/../host/secret", "host/secret"),
        ];
        for (path, real) in followed {
            let resolved = boundary.resolve(&at(path)).unwrap();
            assert_eq!(resolved.path, at(real), "{path}");
            let stat = rustix::fs::fstat(resolved.handle.unwrap()).unwrap();
            assert_eq!(stat.st_ino, fs::metadata(at(real)).unwrap().ino());
        }
        let missing = boundary.resolve(&at("linked/none/below")).unwrap();
        assert_eq!(missing.path, at("written/none/below"));
        assert!(missing.handle.is_none());
        for path in [
            "written/absolute",
            "written/absolute/secret",
            "written/relative",
            "linked/absolute/none",
            "written/deep/within",
        ] {
            let error = format!("{:#}", boundary.resolve(&at(path)).unwrap_err());
            assert!(
                error.contains("a container that can write there"),
                "{path}: {error}"
            );
            // The control: without a container there, it is followed.
            Boundary::default().resolve(&at(path)).unwrap();
        }
    }

    #[test]
    fn beside_services_only_symlinks_of_root_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(dir.join("data")).unwrap();
        let link = dir.join("link");
        symlink("data", &link).unwrap();
        let boundary = Boundary::default().following_root_only();
        // The control: it is followed as long as it belongs to this user.
        assert_eq!(boundary.resolve(&link).unwrap().path, dir.join("data"));
        if !geteuid().is_root() {
            return;
        }
        lchown(&link, Some(12_345), None).unwrap();
        let error = format!("{:#}", boundary.resolve(&link).unwrap_err());
        assert!(error.contains("of the user 12345"), "{error}");
        Boundary::default().resolve(&link).unwrap();
    }
}
