//! Who runs an Engine. Whoever can put another socket in the place of the Engine's is
//! trusted with the stacks of that Engine, and with nothing else.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use nix::unistd::{Uid, User, geteuid};

use crate::sys::paths::without_symlinks;

/// A user and the user's group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl PartialEq for Owner {
    fn eq(&self, other: &Owner) -> bool {
        self.uid == other.uid
    }
}

impl Owner {
    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    fn of(metadata: &Metadata) -> Owner {
        Owner {
            uid: metadata.uid(),
            gid: metadata.gid(),
        }
    }

    /// Returns the user's home directory, if the user database has it.
    pub fn home(self) -> Option<PathBuf> {
        let user = User::from_uid(Uid::from_raw(self.uid)).ok().flatten();
        user.map(|user| user.dir)
    }

    /// Returns whoever but root can put another socket in the place of this one: the
    /// owner of the first directory, or socket, on the way that is not root's.
    pub fn of_path(socket: &Path) -> Option<Owner> {
        let real = without_symlinks(socket);
        let of_way = |path: &Path| {
            let mut way: Vec<&Path> = path.ancestors().collect();
            way.reverse();
            let mut owners = way.into_iter().filter_map(|path| {
                let metadata = fs::symlink_metadata(path).ok()?;
                Some(Owner::of(&metadata))
            });
            owners.find(|owner| !owner.is_root())
        };
        of_way(socket).or_else(|| of_way(&real))
    }

    /// Fails if this is not who can replace the socket at which it answers. Then it may
    /// be a link that leads to another user's Engine.
    pub fn check_answers_at(self, socket: &Path) -> Result<()> {
        let replaceable_by = Owner::of_path(socket);
        let owners = match self.is_root() {
            true => "root".to_owned(),
            false => format!("root or {self}"),
        };
        ensure!(
            !geteuid().is_root() || replaceable_by.is_none_or(|other| other == self),
            "{self} answers at unix://{}, which another user owns: name the socket by a path \
             that leads through directories of {owners} alone",
            socket.display()
        );
        Ok(())
    }

    /// Fails if a directory is neither the user's nor in one of the user's: then an
    /// Engine of the user has no data there.
    pub fn check_owns(self, path: &Path, what: &dyn fmt::Display) -> Result<()> {
        let is_own = |path: &Path| {
            fs::symlink_metadata(path).is_ok_and(|metadata| Owner::of(&metadata) == self)
        };
        ensure!(
            self.is_root() || path.parent().is_some_and(is_own) || is_own(path),
            "the Engine of {self} says that {what} is in {}, which is not that user's",
            path.display()
        );
        Ok(())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match User::from_uid(Uid::from_raw(self.uid)) {
            _ if self.is_root() => f.write_str("root"),
            Ok(Some(user)) => write!(f, "user {}", user.name),
            _ => write!(f, "user {}", self.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const NOBODY: Owner = Owner {
        uid: 65534,
        gid: 65534,
    };

    #[test]
    fn an_engine_of_a_user_has_data_in_directories_of_that_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let here = Owner::of(&fs::metadata(dir.path()).unwrap());
        let other = Owner {
            uid: here.uid + 1,
            ..here
        };
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        here.check_owns(&data, &"v").unwrap();
        here.check_owns(&data.join("not there yet"), &"v").unwrap();
        let error = other
            .check_owns(&data, &"volume v")
            .unwrap_err()
            .to_string();
        assert!(error.contains("volume v is in"), "{error}");
        // The Engine of root may have data everywhere.
        let root = Owner { uid: 0, gid: 0 };
        root.check_owns(Path::new("/etc"), &"v").unwrap();
        NOBODY.check_owns(Path::new("/etc"), &"v").unwrap_err();
    }

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn a_socket_belongs_to_the_first_user_who_can_replace_it() {
        let dir = tempfile::tempdir().unwrap();
        let chown = |path: &Path, owner: Owner| {
            std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid)).unwrap();
        };
        let run = dir.path().join("run");
        fs::create_dir_all(run.join("podman")).unwrap();
        let socket = run.join("podman/podman.sock");
        fs::write(&socket, "").unwrap();
        let link = dir.path().join("link.sock");
        symlink(&socket, &link).unwrap();
        assert!(Owner::of_path(&socket).is_none());
        let root = Owner { uid: 0, gid: 0 };
        root.check_answers_at(&socket).unwrap();
        for owned in [run.as_path(), &run.join("podman"), &socket] {
            chown(owned, NOBODY);
            // Whichever way leads there.
            for path in [&socket, &link] {
                assert_eq!(Owner::of_path(path), Some(NOBODY), "{}", path.display());
                root.check_answers_at(path).unwrap_err();
                NOBODY.check_answers_at(path).unwrap();
            }
            chown(owned, root);
        }
        chown(&link, NOBODY);
        assert_eq!(Owner::of_path(&link), Some(NOBODY));
        assert!(Owner::of_path(&socket).is_none());
    }
}
