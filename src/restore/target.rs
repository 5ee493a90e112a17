//! Exchanges an unpacked tree with the data on the host, and undoes that.
//!
//! A tree is unpacked into a staging directory beside its target. One rename
//! (`RENAME_EXCHANGE`, `renameat2(2)`) then swaps the two. The inode of the
//! tree's root tells at any time which of the two is in place.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, StatxAttributes, StatxFlags, mkdirat,
    openat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::stack::coverage;
use crate::sys::mounts;
use crate::sys::remove_tree::remove_tree;
use crate::sys::time::OffsetTime;

/// Length of the longest name of a file (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// A directory, or a file, that is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Member path of the tree in the archive.
    pub prefix: String,
    pub path: PathBuf,
    /// Inode of the unpacked tree's root; `None` until it is unpacked. The
    /// device number is not recorded: it may change after a power cut, and the
    /// exchanged trees are on one file system anyway.
    #[serde(rename = "new")]
    pub new_inode: Option<u64>,
    /// Inode of what is replaced, as it was right before the exchange. It tells which is which
    /// if a service has replaced what was unpacked.
    #[serde(rename = "old", default)]
    pub old_inode: Option<u64>,
    /// Whether it is within a tree that services use, and not the root of one.
    #[serde(default)]
    pub is_in_tree: bool,
}

impl Target {
    pub fn new(prefix: &str, path: &Path) -> Target {
        Target {
            prefix: prefix.to_owned(),
            path: path.to_owned(),
            new_inode: None,
            old_inode: None,
            is_in_tree: false,
        }
    }

    /// Whether it is a file that the compose file of the stack named.
    pub fn is_file_of_compose(&self, stack: &str) -> bool {
        self.prefix.starts_with(&coverage::files_prefix(stack))
    }

    /// Whether the path, or what exists of it, leads through a symlink.
    pub fn is_led_elsewhere(&self) -> bool {
        let is_there = |path: &&Path| fs::symlink_metadata(path).is_ok();
        let existing = self.path.ancestors().find(is_there);
        existing.is_some_and(|path| fs::canonicalize(path).map_or(true, |real| real != path))
    }

    /// Path that the tree is unpacked to. After the exchange, the old data is
    /// there.
    pub fn staging(&self) -> PathBuf {
        self.sibling("restore")
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let sibling = format!(".{name}.{suffix}");
        if sibling.len() <= NAME_BYTES_MAX {
            return self.path.with_file_name(sibling);
        }
        // A name for a name that leaves no room for more.
        let hash = blake3::hash(name.as_bytes()).to_hex();
        self.path
            .with_file_name(format!(".{}.{suffix}", &hash[..32]))
    }

    pub fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Checks that the target can be exchanged.
    ///
    /// # Errors
    /// When it is a mount point or contains one, or the staging path exists.
    pub fn check(&self) -> Result<()> {
        let staging = self.staging();
        if self.inode(&staging)?.is_some() {
            bail!(
                "{} already exists: check what it is (an earlier restore may not have been able to \
                 remove the data that it replaced), and move it away",
                staging.display()
            );
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statx(CWD, &self.path, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => bail!(
                "{} is a mount point and cannot be exchanged: unpack with --to and copy, or unmount it",
                self.path.display()
            ),
            Ok(stat) => {
                check_flags(&self.path, stat.stx_attributes)?;
                self.check_parent_flags()?;
                self.check_mounts()
            }
            Err(Errno::NOENT) => self.check_parent_flags(),
            Err(error) => {
                Err(error).with_context(|| format!("cannot stat {}", self.path.display()))
            }
        }
    }

    fn check_parent_flags(&self) -> Result<()> {
        let parent = self.parent();
        match rustix::fs::statx(CWD, parent, AtFlags::empty(), StatxFlags::BASIC_STATS) {
            Ok(stat) => check_flags(parent, stat.stx_attributes),
            // It is created, or another error says why not.
            Err(_) => Ok(()),
        }
    }

    /// Refuses mounts within the target. The exchange would move them along
    /// with the old data, and removing that would delete what is mounted.
    fn check_mounts(&self) -> Result<()> {
        let Some(mounted) = mounts::beneath(&self.path)?.pop() else {
            return Ok(());
        };
        bail!(
            "{} is mounted within {}, which cannot be exchanged therefore: unmount it during the \
             restore, or unpack with --to and copy",
            mounted.display(),
            self.path.display()
        )
    }

    /// Records the inode of the unpacked tree.
    ///
    /// # Errors
    /// When nothing was unpacked: the archive does not hold the tree.
    pub fn record_inode(&mut self) -> Result<()> {
        let staging = self.staging();
        self.new_inode = self.inode(&staging)?;
        match self.new_inode {
            Some(_) => Ok(()),
            None => bail!("the archive holds no data of {}", self.prefix),
        }
    }

    /// Records the inode of what will be replaced.
    pub(super) fn record_old(&mut self) -> Result<()> {
        self.old_inode = self.inode(&self.path)?;
        Ok(())
    }

    fn is_exchanged(&self) -> Result<bool> {
        let is = |path: &Path, inode: Option<u64>| -> Result<bool> {
            Ok(inode.is_some() && self.inode(path)? == inode)
        };
        Ok(is(&self.path, self.new_inode)? || is(&self.staging(), self.old_inode)?)
    }

    /// Puts the unpacked tree in place.
    pub(super) fn exchange(&self) -> Result<()> {
        // Something may have been mounted since the check before unpacking.
        self.check_mounts()?;
        self.rename(&self.staging(), &self.path)
    }

    /// Puts the old data in place again. Does nothing if it is there already.
    pub(super) fn exchange_back(&self) -> Result<()> {
        match self.is_exchanged()? {
            true => self.rename(&self.path, &self.staging()),
            false => Ok(()),
        }
    }

    /// Moves `from` to `to`, and what is at `to`, if anything, to `from`.
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let parent = self.open_parent()?;
        let flags = match inode_at(&parent, to)? {
            Some(_) => RenameFlags::EXCHANGE,
            None => RenameFlags::NOREPLACE,
        };
        rename_in(&parent, from, to, flags)
            .with_context(|| format!("cannot exchange {} with {}", to.display(), from.display()))
    }

    /// Renames the old data so that its name tells when it was replaced.
    /// Returns its path, or `None` if there was no old data.
    pub(super) fn keep_old(&self, since: &OffsetTime) -> Result<Option<PathBuf>> {
        let old = self.staging();
        if self.inode(&old)?.is_none() {
            return Ok(None);
        }
        let to = self.sibling(&format!("before-{}", since.strftime("%Y%m%d_%H%M%S")));
        let context = || format!("cannot rename {} to {}", old.display(), to.display());
        let parent = self.open_parent()?;
        rename_in(&parent, &old, &to, RenameFlags::NOREPLACE).with_context(context)?;
        Ok(Some(to))
    }

    /// Removes the unpacked tree from the staging path.
    ///
    /// # Errors
    /// When something else is there. Somebody has moved directories by hand
    /// then, and it may be the only copy of the old data.
    pub(super) fn remove_unpacked(&self) -> Result<()> {
        let staged = self.inode(&self.staging())?;
        let is_old_in_place = self.old_inode.is_some() && self.inode(&self.path)? == self.old_inode;
        let is_other = staged.is_some() && self.new_inode.is_some() && staged != self.new_inode;
        if is_other && !is_old_in_place {
            bail!(
                "neither {} nor {} is the unpacked tree: keep the right one by hand, move the other \
                 away, then run `docker-stack-backup recover`",
                self.staging().display(),
                self.path.display()
            );
        }
        self.remove_staging()
    }

    /// Removes everything at the staging path. Follows no symlink and enters no
    /// mount. The removal is synced even if the path is gone already, because
    /// the restore's journal is removed next and must not be lost before it.
    pub(super) fn remove_staging(&self) -> Result<()> {
        let path = self.staging();
        if let Some(mounted) = mounts::beneath(&path)?.pop() {
            bail!(
                "cannot remove {}: {} is mounted within it; unmount it, then run \
                 `docker-stack-backup recover`",
                path.display(),
                mounted.display()
            );
        }
        let Some(parent) = self.existing_parent()? else {
            return Ok(());
        };
        let context = || format!("cannot remove {}", path.display());
        let name = path.file_name().with_context(context)?;
        // The magic link leads to exactly that directory.
        let itself = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        remove_tree(&itself.join(name)).with_context(context)?;
        parent.sync_all().with_context(context)
    }

    /// Opens the directory that the target is in. Its path was resolved when the
    /// restore was planned. If there is a symlink in it now, it is refused.
    ///
    /// # Errors
    /// When it does not exist or cannot be opened.
    pub fn open_parent(&self) -> Result<File> {
        let parent = self.existing_parent()?;
        parent.with_context(|| format!("{} does not exist", self.parent().display()))
    }

    /// Creates the directories above the target. Symlinks were resolved when the restore
    /// was planned; one that is there now was made since, and is not followed.
    pub(super) fn create_parent(&self) -> Result<()> {
        let context = || format!("cannot create {}", self.parent().display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |dir: BorrowedFd<'_>, name: &OsStr| openat(dir, name, flags, Mode::empty());
        let mut dir = open(CWD, OsStr::new("/")).with_context(context)?;
        for part in self.parent().iter().skip(1) {
            dir = match open(dir.as_fd(), part) {
                Err(Errno::NOENT) => {
                    mkdirat(&dir, part, Mode::from_raw_mode(0o777)).with_context(context)?;
                    open(dir.as_fd(), part)
                }
                opened => opened,
            }
            .with_context(context)?;
        }
        Ok(())
    }

    fn existing_parent(&self) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(CWD, self.parent(), flags, Mode::empty(), resolve) {
            Ok(parent) => Ok(Some(parent.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot open {}", self.parent().display()))
            }
        }
    }

    /// Returns the inode of the target itself or of something beside it.
    fn inode(&self, path: &Path) -> Result<Option<u64>> {
        match self.existing_parent()? {
            Some(parent) => inode_at(&parent, path),
            None => Ok(None),
        }
    }
}

/// Returns the inode of what has the name of `path` in `parent`, if there is any.
fn inode_at(parent: &File, path: &Path) -> Result<Option<u64>> {
    let name = path.file_name().unwrap_or_default();
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.st_ino)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot stat {}", path.display())),
    }
}

/// Refuses what the kernel lets nobody rename (`chattr +i`, `chattr +a`). Whoever has set that
/// has to take it back, before anything is stopped.
fn check_flags(path: &Path, attributes: StatxAttributes) -> Result<()> {
    let found = [
        (StatxAttributes::IMMUTABLE, "immutable", "-i"),
        (StatxAttributes::APPEND, "append-only", "-a"),
    ];
    let mut found = found.into_iter();
    match found.find(|(flag, ..)| attributes.contains(*flag)) {
        None => Ok(()),
        Some((_, name, option)) => bail!(
            "{} is {name}, so nothing can be exchanged there: run `chattr {option}` on it",
            path.display()
        ),
    }
}

/// Renames something in `parent`, by the names of two paths, and syncs that.
fn rename_in(parent: &File, from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    rustix::fs::renameat_with(parent, name(from), parent, name(to), flags)?;
    parent.sync_all().context("cannot sync the directory")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_service_put_in_the_place_of_new_data_is_undone() {
        for is_recorded in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let dir = fs::canonicalize(dir.path()).unwrap();
            let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
            write("file", "old");
            write(".file.restore", "new");
            let mut target = Target::new("x/file", &dir.join("file"));
            target.record_inode().unwrap();
            if is_recorded {
                target.record_old().unwrap();
            }
            target.exchange().unwrap();
            // As editors and many services save a file.
            write("saved", "rewritten");
            fs::rename(dir.join("saved"), dir.join("file")).unwrap();
            for _ in 0..2 {
                target.exchange_back().unwrap();
                assert_eq!(target.remove_unpacked().is_ok(), is_recorded);
            }
            let text = fs::read_to_string(dir.join("file")).unwrap();
            let expected = if is_recorded { "old" } else { "rewritten" };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_nobody_may_rename_is_refused_before_anything_is_stopped() {
        let path = Path::new("/srv/web");
        check_flags(path, StatxAttributes::MOUNT_ROOT).unwrap();
        let both = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        for (flags, expected) in [
            (both, "/srv/web is immutable"),
            (StatxAttributes::APPEND, "run `chattr -a` on it"),
        ] {
            let error = check_flags(path, flags).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_name_that_leaves_no_room_for_more_is_exchanged_too() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        for name in [
            "n".repeat(NAME_BYTES_MAX),
            "é".repeat(123),
            "short".to_owned(),
        ] {
            let mut target = Target::new("x", &dir.join(&name));
            fs::write(&target.path, "old").unwrap();
            fs::write(target.staging(), "new").unwrap();
            target.record_inode().unwrap();
            target.record_old().unwrap();
            target.exchange().unwrap();
            assert_eq!(fs::read_to_string(&target.path).unwrap(), "new");
            let kept = target.keep_old(&OffsetTime::now()).unwrap().unwrap();
            assert_eq!(fs::read_to_string(kept).unwrap(), "old");
        }
    }

    #[test]
    fn a_directory_above_that_became_a_symlink_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let tree = |path: &str, text: &str| {
            fs::create_dir_all(dir.join(path)).unwrap();
            fs::write(dir.join(path).join("file"), text).unwrap();
        };
        let read = |path: &str| fs::read_to_string(dir.join(path).join("file")).unwrap();
        tree("stack/data", "old");
        tree("stack/.data.restore", "new");
        let mut target = Target::new("stack", &dir.join("stack/data"));
        target.record_inode().unwrap();
        // What a container would have exchanged and removed.
        tree("host/data", "host");
        tree("host/.data.restore", "prepared");
        fs::rename(dir.join("stack"), dir.join("moved")).unwrap();
        symlink("host", dir.join("stack")).unwrap();
        target.exchange().unwrap_err();
        target.exchange_back().unwrap_err();
        target.keep_old(&OffsetTime::now()).unwrap_err();
        target.remove_staging().unwrap_err();
        assert_eq!(read("host/data"), "host");
        assert_eq!(read("host/.data.restore"), "prepared");
        // The control: in its place, it is exchanged and removed.
        fs::remove_file(dir.join("stack")).unwrap();
        fs::rename(dir.join("moved"), dir.join("stack")).unwrap();
        target.exchange().unwrap();
        assert_eq!(read("stack/data"), "new");
        target.remove_staging().unwrap();
        assert!(!dir.join("stack/.data.restore").exists());
    }
}
