//! What a restore is about to put in place, on disk before anything is
//! changed, and the changes themselves: trees are unpacked beside their targets
//! and exchanged with them in one step each (`RENAME_EXCHANGE`). By the inode
//! of a tree's root it can be told at any time which of the two is in place, so
//! that a restore killed at any point is undone, or finished.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::ZonedDateTime;
use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};

use super::mounts;
use crate::engine::{ComposeProject, Container, Mount};
use crate::sys::durable::{sync_dir, write_durably};

const FORMAT_VERSION: u32 = 2;

/// One restore under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreEntry {
    pub format_version: u32,
    pub stack: String,
    /// `None` while only the restored compose file could tell it: no container
    /// of it was made then.
    pub project: Option<String>,
    pub compose: ComposeProject,
    pub since: ZonedDateTime,
    pub step: RestoreStep,
    pub targets: Vec<Target>,
    /// Volumes that were not there before.
    pub new_volumes: Vec<String>,
    /// Containers that were there before.
    pub container_ids: Vec<String>,
    /// Services that have data in anonymous volumes: only the container that
    /// Compose makes in place of another inherits them.
    #[serde(default)]
    pub services_to_inherit: BTreeSet<String>,
    /// What was there before stays beside it.
    pub keep_old: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestoreStep {
    /// Nothing is changed yet but beside the targets.
    Staging,
    /// Any number of targets may be exchanged, and containers made.
    Swapping,
    /// What is new stays.
    Committed,
}

/// A directory, or a file, that is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Its part of the archive.
    pub prefix: String,
    pub path: PathBuf,
    /// Inode of what is to be in place; known once it is unpacked. Not its
    /// device: that number may be another one after a power cut, and what is
    /// exchanged lies on one file system anyway.
    pub new: Option<u64>,
}

impl RestoreEntry {
    pub fn new(stack: &str, compose: ComposeProject, targets: Vec<Target>) -> RestoreEntry {
        RestoreEntry {
            format_version: FORMAT_VERSION,
            stack: stack.to_owned(),
            project: compose.name.clone(),
            compose,
            since: ZonedDateTime::now(),
            step: RestoreStep::Staging,
            targets,
            new_volumes: Vec::new(),
            container_ids: Vec::new(),
            services_to_inherit: BTreeSet::new(),
            keep_old: false,
        }
    }

    /// Notes what is there of the stack's containers.
    pub fn note_containers<'a>(&mut self, containers: impl IntoIterator<Item = &'a Container>) {
        for container in containers {
            self.container_ids.push(container.id.clone());
            if !container.one_off && container.mounts.iter().any(Mount::is_anonymous) {
                self.services_to_inherit.insert(container.service.clone());
            }
        }
    }

    /// Puts it on disk, in place of an older one of the same stack.
    pub fn write(&self, state_dir: &Path) -> Result<()> {
        let path = path_of(state_dir, &self.stack);
        let dir = state_dir.join("restore");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let context = || format!("write the restore's journal {}", path.display());
        write_durably(&path, &serde_json::to_vec_pretty(self)?).with_context(context)
    }

    pub fn remove(&self, state_dir: &Path) -> Result<()> {
        let path = path_of(state_dir, &self.stack);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        sync_dir(&state_dir.join("restore"))
    }

    /// Exchanges every target with what is unpacked beside it.
    pub fn exchange(&self) -> Result<()> {
        self.targets.iter().try_for_each(Target::put_in_place)
    }

    /// Puts back every target that was exchanged, and removes what is new.
    pub fn undo(&self) -> Result<()> {
        for target in self.targets.iter().rev() {
            target.put_back()?;
        }
        self.targets.iter().try_for_each(Target::discard_new)
    }

    /// Removes what was there before, or, if it is to be kept, gives it a name
    /// that says so. Returns the paths of what is kept.
    pub fn clean(&self) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        for target in &self.targets {
            let old = target.staging();
            if self.keep_old && exists(&old)? {
                let to = target.beside(&format!("before-{}", self.since.strftime("%Y%m%d_%H%M%S")));
                let context = || format!("rename {} to {}", old.display(), to.display());
                rustix::fs::renameat_with(CWD, &old, CWD, &to, RenameFlags::NOREPLACE)
                    .with_context(context)?;
                sync_dir(target.parent())?;
                kept.push(to);
            } else {
                target.discard()?;
            }
        }
        Ok(kept)
    }
}

fn path_of(state_dir: &Path, stack: &str) -> PathBuf {
    state_dir.join("restore").join(format!("{stack}.json"))
}

/// Restores that were not finished, as far as they can be understood.
pub fn found(state_dir: &Path) -> Result<Vec<(String, Result<RestoreEntry>)>> {
    let dir = state_dir.join("restore");
    let context = || format!("list {}", dir.display());
    let listing = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(context)?,
    };
    let mut found = Vec::new();
    for item in listing {
        let path = item.with_context(context)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(stack) = name.strip_suffix(".json") else {
            continue;
        };
        let entry = read(&path).with_context(|| {
            format!(
                "understand the restore's journal {}: a restore was killed; see to the stack by \
                 hand (what was there is beside its directory and volumes), then remove the file",
                path.display()
            )
        });
        found.push((stack.to_owned(), entry));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn read(path: &Path) -> Result<RestoreEntry> {
    let entry: RestoreEntry = serde_json::from_slice(&fs::read(path)?)?;
    if entry.format_version != FORMAT_VERSION {
        bail!(
            "its format is version {}, this program knows {FORMAT_VERSION}",
            entry.format_version
        );
    }
    Ok(entry)
}

impl Target {
    pub fn new(prefix: &str, path: &Path) -> Target {
        Target {
            prefix: prefix.to_owned(),
            path: path.to_owned(),
            new: None,
        }
    }

    /// Where it is unpacked; later, what was there before.
    pub fn staging(&self) -> PathBuf {
        self.beside("restore")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.{suffix}"))
    }

    pub fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// # Errors
    /// When it cannot be exchanged: it is a mount point or holds some, or a
    /// former restore left something beside it.
    pub fn check(&self) -> Result<()> {
        let staging = self.staging();
        if exists(&staging)? {
            bail!(
                "{} is there already: see what it is, and move it away",
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
            Err(error) => Err(error).with_context(|| format!("look at {}", self.path.display())),
        }
    }

    /// A mount goes along with the directory that it is in, and what is on it
    /// would be removed as what was there before.
    fn check_mounts(&self) -> Result<()> {
        let Some(mounted) = mounts::beneath(&self.path)?.pop() else {
            return Ok(());
        };
        bail!(
            "{} is mounted within {}, which is to be exchanged: unmount it for that time, or \
             unpack with --to and copy",
            mounted.display(),
            self.path.display()
        )
    }

    /// Notes what is unpacked.
    ///
    /// # Errors
    /// When nothing is: the archive does not hold it.
    pub fn note_new(&mut self) -> Result<()> {
        let staging = self.staging();
        self.new = inode(&staging)?;
        match self.new {
            Some(_) => Ok(()),
            None => bail!("the archive holds nothing of {}", self.prefix),
        }
    }

    fn is_in_place(&self) -> Result<bool> {
        Ok(self.new.is_some() && inode(&self.path)? == self.new)
    }

    fn put_in_place(&self) -> Result<()> {
        // It was checked before all was unpacked.
        self.check_mounts()?;
        self.exchange(&self.staging(), &self.path)
    }

    /// Does nothing if it is not in place.
    fn put_back(&self) -> Result<()> {
        match self.is_in_place()? {
            true => self.exchange(&self.path, &self.staging()),
            false => Ok(()),
        }
    }

    /// Moves `from` to `to`, and what is there to `from`.
    fn exchange(&self, from: &Path, to: &Path) -> Result<()> {
        let flags = match exists(to)? {
            true => RenameFlags::EXCHANGE,
            false => RenameFlags::NOREPLACE,
        };
        rustix::fs::renameat_with(CWD, from, CWD, to, flags)
            .with_context(|| format!("exchange {} with {}", to.display(), from.display()))?;
        sync_dir(self.parent())
    }

    /// Removes what was unpacked.
    ///
    /// # Errors
    /// When something else is there: since somebody has moved things, it may be
    /// all that is left of what was there before.
    fn discard_new(&self) -> Result<()> {
        let staged = inode(&self.staging())?;
        if staged.is_some() && self.new.is_some() && staged != self.new {
            bail!(
                "{} is not what was unpacked there, and neither is {}: see which is to stay, and \
                 move the other away",
                self.staging().display(),
                self.path.display()
            );
        }
        self.discard()
    }

    /// Removes what lies beside it, for good before the journal that tells of
    /// it is, also when it had been removed already. Follows no symlink, and
    /// enters no mount.
    fn discard(&self) -> Result<()> {
        let path = self.staging();
        if let Some(mounted) = mounts::beneath(&path)?.pop() {
            bail!(
                "{} is mounted within {}, which is to be removed: unmount it, then run \
                 `docker-stack-backup recover`",
                mounted.display(),
                path.display()
            );
        }
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("remove {}", path.display()))?,
        }
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
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

fn exists(path: &Path) -> Result<bool> {
    Ok(inode(path)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three targets, the last of which was not there before.
    fn scene(dir: &Path) -> RestoreEntry {
        let targets = ["a", "b", "c"].map(|name| Target::new(name, &dir.join(name)));
        for target in &targets {
            if target.prefix != "c" {
                fs::create_dir(&target.path).unwrap();
                fs::write(target.path.join("content"), "old").unwrap();
            }
            target.check().unwrap();
            fs::create_dir(target.staging()).unwrap();
            fs::write(target.staging().join("content"), "new").unwrap();
        }
        let compose = ComposeProject {
            dir: dir.to_owned(),
            name: None,
            files: vec![],
            env_files: vec![],
        };
        let mut entry = RestoreEntry::new("x", compose, targets.to_vec());
        for target in &mut entry.targets {
            target.note_new().unwrap();
        }
        entry
    }

    fn contents(entry: &RestoreEntry) -> Vec<String> {
        let read = |target: &Target| fs::read_to_string(target.path.join("content"));
        entry
            .targets
            .iter()
            .map(|target| read(target).unwrap_or_else(|_| "none".to_owned()))
            .collect()
    }

    #[test]
    fn however_far_the_exchange_came_it_is_undone_wholly_and_as_often_as_asked() {
        for exchanged in 0..=3 {
            for undone in 0..=exchanged {
                let dir = tempfile::tempdir().unwrap();
                let entry = scene(dir.path());
                for target in &entry.targets[..exchanged] {
                    target.put_in_place().unwrap();
                }
                // The first undo was killed, too.
                for target in entry.targets[..exchanged].iter().rev().take(undone) {
                    target.put_back().unwrap();
                }
                entry.undo().unwrap();
                assert_eq!(contents(&entry), ["old", "old", "none"]);
                entry.undo().unwrap();
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
            }
        }
    }

    #[test]
    fn an_exchange_is_whole_and_what_was_there_is_removed_or_kept() {
        for keep_old in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let entry = RestoreEntry {
                keep_old,
                ..scene(dir.path())
            };
            entry.exchange().unwrap();
            assert_eq!(contents(&entry), ["new"; 3]);
            let kept = entry.clean().unwrap();
            assert_eq!(kept.len(), if keep_old { 2 } else { 0 });
            for old in kept {
                assert_eq!(fs::read_to_string(old.join("content")).unwrap(), "old");
            }
            assert_eq!(entry.clean().unwrap(), [""; 0].map(PathBuf::from));
            assert_eq!(contents(&entry), ["new"; 3]);
        }
    }

    #[test]
    fn what_somebody_put_beside_a_target_is_not_taken_for_what_was_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let entry = scene(dir.path());
        entry.exchange().unwrap();
        // The new one is moved away; what was there before lies beside it.
        fs::rename(dir.path().join("a"), dir.path().join("elsewhere")).unwrap();
        let error = entry.undo().unwrap_err().to_string();
        assert!(error.contains("is not what was unpacked"), "{error}");
        let old = entry.targets[0].staging().join("content");
        assert_eq!(fs::read_to_string(old).unwrap(), "old");
    }

    #[test]
    fn entries_are_read_back_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(found(dir.path()).unwrap().is_empty());
        let entry = scene(dir.path());
        entry.write(dir.path()).unwrap();
        let back = found(dir.path()).unwrap().pop().unwrap().1.unwrap();
        assert_eq!(back.targets, entry.targets);
        fs::write(path_of(dir.path(), "x"), "{}").unwrap();
        let error = found(dir.path()).unwrap().pop().unwrap().1.unwrap_err();
        assert!(
            format!("{error:#}").contains("a restore was killed"),
            "{error:#}"
        );
        entry.remove(dir.path()).unwrap();
        assert!(found(dir.path()).unwrap().is_empty());
    }
}
