//! Exchanges an unpacked tree with the data on the host, and undoes that.
//!
//! A tree is unpacked into a staging directory beside its target. One rename
//! (`RENAME_EXCHANGE`, `renameat2(2)`) then swaps the two. The inode of the
//! tree's root tells at any time which of the two is in place.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};

use crate::stack::coverage;
use crate::sys::durable::sync_dir;
use crate::sys::mounts;
use crate::sys::remove_tree::remove_tree;
use crate::sys::time::OffsetTime;

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
}

impl Target {
    pub fn new(prefix: &str, path: &Path) -> Target {
        Target {
            prefix: prefix.to_owned(),
            path: path.to_owned(),
            new_inode: None,
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
        self.path.with_file_name(format!(".{name}.{suffix}"))
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
        if exists(&staging)? {
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
            Ok(_) => self.check_mounts(),
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot stat {}", self.path.display()))
            }
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
        self.new_inode = inode(&staging)?;
        match self.new_inode {
            Some(_) => Ok(()),
            None => bail!("the archive holds no data of {}", self.prefix),
        }
    }

    fn is_exchanged(&self) -> Result<bool> {
        Ok(self.new_inode.is_some() && inode(&self.path)? == self.new_inode)
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
        let flags = match exists(to)? {
            true => RenameFlags::EXCHANGE,
            false => RenameFlags::NOREPLACE,
        };
        rustix::fs::renameat_with(CWD, from, CWD, to, flags)
            .with_context(|| format!("cannot exchange {} with {}", to.display(), from.display()))?;
        sync_dir(self.parent())
    }

    /// Renames the old data so that its name tells when it was replaced.
    /// Returns its path, or `None` if there was no old data.
    pub(super) fn keep_old(&self, since: &OffsetTime) -> Result<Option<PathBuf>> {
        let old = self.staging();
        if !exists(&old)? {
            return Ok(None);
        }
        let to = self.sibling(&format!("before-{}", since.strftime("%Y%m%d_%H%M%S")));
        let context = || format!("cannot rename {} to {}", old.display(), to.display());
        rustix::fs::renameat_with(CWD, &old, CWD, &to, RenameFlags::NOREPLACE)
            .with_context(context)?;
        sync_dir(self.parent())?;
        Ok(Some(to))
    }

    /// Removes the unpacked tree from the staging path.
    ///
    /// # Errors
    /// When something else is there. Somebody has moved directories by hand
    /// then, and it may be the only copy of the old data.
    pub(super) fn remove_unpacked(&self) -> Result<()> {
        let staged = inode(&self.staging())?;
        if staged.is_some() && self.new_inode.is_some() && staged != self.new_inode {
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
        remove_tree(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        match exists(self.parent())? {
            true => sync_dir(self.parent()),
            false => Ok(()),
        }
    }
}

fn inode(path: &Path) -> Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot stat {}", path.display())),
    }
}

fn exists(path: &Path) -> Result<bool> {
    Ok(inode(path)?.is_some())
}
