//! The journal of restores: one file for each stack whose restore is under way,
//! on disk before anything is changed. With the inodes recorded in it, a restore
//! that was killed at any point can be undone or finished.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::target::Target;
use crate::engine::{ComposeProject, Container, Mount};
use crate::sys::durable::create_dir_durably;
use crate::sys::state_file::{self, State};
use crate::sys::time::{OffsetTime, zone_name};

const FORMAT_VERSION: u32 = 4;

/// The journal entry of one restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreEntry {
    pub format_version: u32,
    pub stack: String,
    /// `None` as long as only the compose file in the archive has the name.
    /// The restore has not created a container of the project then.
    pub project: Option<String>,
    pub compose: ComposeProject,
    pub since: OffsetTime,
    /// Name of the time zone of the machine, if it is known.
    #[serde(default)]
    pub time_zone: Option<String>,
    pub step: RestoreStep,
    pub targets: Vec<Target>,
    /// Units that the restore may start. A stack that has them has no project.
    #[serde(default)]
    pub units: Vec<String>,
    /// Names of volumes that the restore creates.
    pub new_volumes: Vec<String>,
    /// Ids of the containers that existed before the restore.
    pub container_ids: Vec<String>,
    /// Services with data in anonymous volumes. Compose hands these volumes on
    /// only to the container that replaces the one they belong to.
    #[serde(default)]
    pub services_to_inherit: BTreeSet<String>,
    /// Whether the old data is kept beside the new.
    pub keep_old: bool,
    /// Whether the stack goes on while its data is exchanged.
    #[serde(default)]
    pub live: bool,
    /// Names of networks that the restore creates.
    #[serde(default)]
    pub new_networks: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestoreStep {
    /// Only the staging directories beside the targets have been written to.
    Staging,
    /// Some targets may be exchanged, and containers created.
    Swapping,
    /// The restore succeeded: the new data stays.
    Committed,
    /// All is done, but some of the old data could not be removed. The stack's
    /// ordinary journal is no business of this entry any more: a later run may
    /// have written to it.
    Cleaning,
}

impl State for RestoreEntry {
    const NAME: &'static str = "the restore journal";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;

    /// Version 2 had no step `cleaning`. Version 3 replaced whole trees of stopped stacks
    /// only, and had no Engines and no units.
    fn upgrade(version: u32, json: Value) -> Option<Value> {
        matches!(version, 2..=4).then_some(json)
    }
}

impl RestoreEntry {
    pub fn new(stack: &str, compose: ComposeProject, targets: Vec<Target>) -> RestoreEntry {
        RestoreEntry {
            format_version: FORMAT_VERSION,
            stack: stack.to_owned(),
            project: compose.name.clone(),
            compose,
            since: OffsetTime::now(),
            time_zone: zone_name(),
            step: RestoreStep::Staging,
            targets,
            units: Vec::new(),
            new_volumes: Vec::new(),
            container_ids: Vec::new(),
            services_to_inherit: BTreeSet::new(),
            keep_old: false,
            live: false,
            new_networks: Vec::new(),
        }
    }

    /// Records the containers of the stack that exist before the restore.
    pub fn add_containers<'a>(&mut self, containers: impl IntoIterator<Item = &'a Container>) {
        for container in containers {
            self.container_ids.push(container.id.clone());
            if !container.one_off && container.mounts.iter().any(Mount::is_anonymous) {
                self.services_to_inherit.insert(container.service.clone());
            }
        }
    }

    /// Puts it on disk, in place of an older one of the same stack.
    pub fn write(&self, state_dir: &Path) -> Result<()> {
        let dir = directory(state_dir);
        create_dir_durably(&dir)?;
        state_file::write(&state_file::path(&dir, &self.stack), self)
    }

    /// Removes it from the disk. It is no error if it is not there.
    pub fn remove(&self, state_dir: &Path) -> Result<()> {
        state_file::remove(&state_file::path(&directory(state_dir), &self.stack))
    }

    /// Puts every unpacked tree in place.
    pub fn exchange(&self) -> Result<()> {
        self.targets.iter().try_for_each(Target::exchange)
    }

    /// Puts the old data in place again, and removes the unpacked trees. May be
    /// called any number of times.
    pub fn undo(&self) -> Result<()> {
        for target in self.targets.iter().rev() {
            target.exchange_back()?;
        }
        self.targets.iter().try_for_each(Target::remove_unpacked)
    }

    /// Removes the old data, or renames it if it is to be kept. Returns the
    /// paths of the data that was kept. May be called any number of times.
    ///
    /// # Errors
    /// When some of it cannot be removed or renamed. The rest is.
    pub fn clean(&self) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        let mut result = Ok(());
        for target in &self.targets {
            match self.clean_target(target) {
                Ok(old) => kept.extend(old),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| kept)
    }

    fn clean_target(&self, target: &Target) -> Result<Option<PathBuf>> {
        if self.keep_old
            && let Some(kept) = target.keep_old(&self.since)?
        {
            return Ok(Some(kept));
        }
        target.remove_staging().map(|()| None)
    }
}

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("restore")
}

/// Whether a restore of the stack was not finished, except that old data may be left.
///
/// # Errors
/// When that is not known.
pub fn is_unfinished(state_dir: &Path, stack: &str) -> Result<bool> {
    let path = state_file::path(&directory(state_dir), stack);
    match fs::symlink_metadata(&path) {
        Ok(_) => {
            let entry: Result<Option<RestoreEntry>> = state_file::read(&path);
            // Only old data is left then, and the stack is up with the new.
            let is_over = |entry: RestoreEntry| entry.step == RestoreStep::Cleaning;
            Ok(!entry.is_ok_and(|entry| entry.is_some_and(is_over)))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("cannot look for {}", path.display())),
    }
}

/// Reads the entries of restores that were not finished, by stack.
///
/// # Errors
/// When the directory cannot be listed. A file that cannot be parsed is an error
/// of its own, which says what to do.
pub fn found(state_dir: &Path) -> Result<Vec<(String, Result<RestoreEntry>)>> {
    let mut found = Vec::new();
    for (stack, path) in state_file::list(&directory(state_dir))? {
        let Some(entry) = state_file::read(&path).transpose() else {
            continue;
        };
        let entry = entry.map_err(|error| {
            anyhow!(
                "{error:#}; a restore was killed: put the stack in order by hand (its old data \
                 is beside its directory and volumes), then remove that file"
            )
        });
        found.push((stack, entry));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry with three targets. The last one has no old data.
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
            engine: Default::default(),
        };
        let mut entry = RestoreEntry::new("x", compose, targets.to_vec());
        for target in &mut entry.targets {
            target.record_inode().unwrap();
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
    fn an_exchange_that_stopped_anywhere_is_undone_any_number_of_times() {
        for exchanged in 0..=3 {
            for undone in 0..=exchanged {
                let dir = tempfile::tempdir().unwrap();
                let entry = scene(dir.path());
                for target in &entry.targets[..exchanged] {
                    target.exchange().unwrap();
                }
                // The first undo was killed as well.
                for target in entry.targets[..exchanged].iter().rev().take(undone) {
                    target.exchange_back().unwrap();
                }
                entry.undo().unwrap();
                assert_eq!(contents(&entry), ["old", "old", "none"]);
                entry.undo().unwrap();
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
            }
        }
    }

    #[test]
    fn old_data_is_removed_or_kept_after_an_exchange() {
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
    fn data_that_somebody_moved_to_the_staging_path_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let entry = scene(dir.path());
        entry.exchange().unwrap();
        // The new tree is moved away, so that only the old data is left.
        fs::rename(dir.path().join("a"), dir.path().join("elsewhere")).unwrap();
        let error = entry.undo().unwrap_err().to_string();
        assert!(error.contains("is the unpacked tree"), "{error}");
        let old = entry.targets[0].staging().join("content");
        assert_eq!(fs::read_to_string(old).unwrap(), "old");
    }

    #[test]
    fn a_damaged_entry_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(found(dir.path()).unwrap().is_empty());
        let entry = scene(dir.path());
        entry.write(dir.path()).unwrap();
        let back = found(dir.path()).unwrap().pop().unwrap().1.unwrap();
        assert_eq!(back.targets, entry.targets);
        fs::write(state_file::path(&directory(dir.path()), "x"), "{}").unwrap();
        let error = found(dir.path()).unwrap().pop().unwrap().1.unwrap_err();
        assert!(
            format!("{error:#}").contains("a restore was killed"),
            "{error:#}"
        );
        entry.remove(dir.path()).unwrap();
        assert!(found(dir.path()).unwrap().is_empty());
    }
}
