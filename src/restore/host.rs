//! Maps the trees of an archive to paths on this host. Changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::diff::HostTree;
use super::facts::ArchiveFacts;
use super::parts::Parts;
use super::target::Target;
use crate::archive::Manifest;
use crate::config::plan::StackPlan;
use crate::engine::{Engine, Volume};
use crate::scan::Boundary;
use crate::stack::coverage;
use crate::stack::unit_containers;

/// Returns the trees that a restore would replace or create.
///
/// # Errors
/// When the Engine cannot be asked, or the archive lacks a description.
pub fn host_trees(facts: &ArchiveFacts, stack: Option<&StackPlan>) -> Result<Vec<HostTree>> {
    let dir = directory(facts, stack)?;
    let engine = engine_of(facts, stack);
    let volumes = HostVolumes::find(engine, facts)?;
    let boundary = boundary(engine, &volumes.present)?;
    let targets = targets(facts, &dir, &volumes.present, &boundary)?;
    let replaced = targets.into_iter().map(|target| HostTree {
        prefix: target.prefix.into_bytes(),
        path: Some(target.path).filter(|path| path.exists()),
    });
    let created = volumes.missing.iter().map(|volume| HostTree {
        prefix: format!("{}{}", volume_prefix(facts.stack()), volume.name).into_bytes(),
        path: None,
    });
    Ok(replaced.chain(created).collect())
}

/// Returns the Engine of the stack: the configured one. An archive does not name one,
/// because it may be of another machine.
pub(super) fn engine_of<'e>(facts: &'e ArchiveFacts, stack: Option<&'e StackPlan>) -> &'e Engine {
    static DEFAULT: Engine = Engine::DEFAULT;
    match (facts, stack) {
        (_, Some(stack)) => &stack.compose.engine,
        (ArchiveFacts::Guessed(guessed), None) => &guessed.compose.engine,
        (ArchiveFacts::Described(_), None) => &DEFAULT,
    }
}

/// Returns the path of the stack's directory: the configured one, or, if the
/// stack is not configured, the one that the manifest has.
pub(super) fn directory(facts: &ArchiveFacts, stack: Option<&StackPlan>) -> Result<PathBuf> {
    let manifest = match facts {
        ArchiveFacts::Described(manifest) => manifest,
        ArchiveFacts::Guessed(guessed) => return Ok(guessed.compose.dir.clone()),
    };
    let recorded = manifest
        .trees
        .get(&manifest.stack)
        .context("the archive does not hold the stack's directory")?;
    Ok(stack.map_or_else(|| PathBuf::from(recorded), |stack| stack.dir().to_owned()))
}

/// The volumes that the archive has data of.
pub(super) struct HostVolumes {
    pub(super) present: Vec<Volume>,
    /// Volumes that do not exist, as the manifest describes them.
    pub(super) missing: Vec<Volume>,
}

impl HostVolumes {
    pub(super) fn find(engine: &Engine, facts: &ArchiveFacts) -> Result<HostVolumes> {
        let (names, described) = match facts {
            ArchiveFacts::Described(manifest) => (volume_names(manifest), &manifest.volumes[..]),
            ArchiveFacts::Guessed(_) => (BTreeSet::new(), &[][..]),
        };
        let present = engine.volumes(&names)?;
        let mut missing = Vec::new();
        for name in names {
            if present.iter().any(|volume| volume.name == name) {
                continue;
            }
            let volume = described.iter().find(|volume| volume.name == name);
            let context = || format!("the manifest does not describe volume {name}");
            missing.push(volume.with_context(context)?.clone());
        }
        Ok(HostVolumes { present, missing })
    }

    /// Leaves out the volumes of which nothing is restored.
    pub(super) fn keep_touched(&mut self, stack: &str, parts: &Parts) {
        let prefix = volume_prefix(stack);
        let is_touched = |volume: &Volume| parts.touches(&format!("{prefix}{}", volume.name));
        self.present.retain(is_touched);
        self.missing.retain(is_touched);
    }

    /// Returns the volumes whose paths are known: those that exist, and those that
    /// will be bound to a directory.
    pub(super) fn located(&self) -> Vec<Volume> {
        let bound = self
            .missing
            .iter()
            .filter(|volume| volume.bound().is_some());
        self.present.iter().chain(bound).cloned().collect()
    }

    /// Refuses volumes that exist and were made for another project. Their names in
    /// the archive are the choice of whoever wrote the compose file.
    pub(super) fn check_ownership(
        &self,
        manifest: &Manifest,
        stack: Option<&StackPlan>,
    ) -> Result<()> {
        let included = stack.map_or(&[][..], |stack| &stack.include_volumes);
        for volume in &self.present {
            let Some(other) = volume.project().filter(|other| *other != manifest.project) else {
                continue;
            };
            let keys = manifest.compose.get("volumes").and_then(Value::as_object);
            let is_asked_for = included.iter().any(|name| {
                let config = keys.and_then(|keys| keys.get(name));
                let real = config.and_then(|config| config.get("name")?.as_str());
                *name == volume.name || real == Some(&volume.name)
            });
            ensure!(
                is_asked_for,
                "volume {} is one of the project {other}, and nothing was done: add it to \
                 `includeVolumes` of the stack to have it replaced, or unpack with --to",
                volume.name
            );
        }
        Ok(())
    }

    /// Refuses missing volumes with a driver or options.
    pub(super) fn check_plain(&self) -> Result<()> {
        let mut unusual = self.missing.iter().filter(|volume| !volume.is_usual());
        match unusual.next() {
            None => Ok(()),
            Some(volume) => bail!(
                "the archive is not from the store, and asks for the volume {}: give \
                 --allow-volume-options if you trust it, or create the volume first",
                volume.described()
            ),
        }
    }

    pub(super) fn check_exchangeable(&self) -> Result<()> {
        let mut volumes = self.present.iter().chain(&self.missing);
        volumes.try_for_each(check_exchangeable)
    }
}

/// Refuses volumes whose data is mounted by their driver. While such a volume is
/// not mounted, the mount point is an empty directory; data that is put there
/// would be hidden by the next mount.
fn check_exchangeable(volume: &Volume) -> Result<()> {
    ensure!(
        volume.is_plain_local() || volume.bound().is_some() || volume.driver != "local",
        "the data of volume {} can be reached only while it is mounted, and cannot be exchanged: \
         unpack the archive with --to, and copy the data into the running service",
        volume.name
    );
    Ok(())
}

fn volume_prefix(stack: &str) -> String {
    format!("{stack}.volumes/")
}

fn volume_names(manifest: &Manifest) -> BTreeSet<String> {
    let prefix = volume_prefix(&manifest.stack);
    let names = manifest
        .trees
        .keys()
        .filter_map(|tree| tree.strip_prefix(&prefix));
    names.map(str::to_owned).collect()
}

/// Returns what containers write to. Symlinks in there are not followed.
///
/// # Errors
/// When the Engine cannot be asked.
pub(super) fn boundary(engine: &Engine, present: &[Volume]) -> Result<Boundary> {
    Ok(coverage::boundary(
        engine,
        &unit_containers::all(engine)?,
        present,
    ))
}

/// Returns the path that each tree of the archive goes to. A tree within another
/// one, or with the same path as another one, is left out: the other one
/// contains its data. So are volumes that do not exist yet.
pub(super) fn targets(
    facts: &ArchiveFacts,
    dir: &Path,
    present: &[Volume],
    boundary: &Boundary,
) -> Result<Vec<Target>> {
    let mut targets = all_targets(facts, dir, present, boundary)?;
    let paths: Vec<PathBuf> = targets.iter().map(|target| target.path.clone()).collect();
    let mut at = 0;
    targets.retain(|target| {
        let is_part = |(other, path): (usize, &PathBuf)| {
            target.path.starts_with(path) && (*path != target.path || other < at)
        };
        let is_part = paths.iter().enumerate().any(is_part);
        at += 1;
        !is_part
    });
    Ok(targets)
}

/// Returns the path that each tree of the archive goes to, also of those that are within
/// another one.
pub(super) fn all_targets(
    facts: &ArchiveFacts,
    dir: &Path,
    present: &[Volume],
    boundary: &Boundary,
) -> Result<Vec<Target>> {
    let trees = match facts {
        ArchiveFacts::Described(manifest) => described_trees(manifest, dir, present),
        ArchiveFacts::Guessed(guessed) => vec![(&*guessed.root, dir.to_owned())],
    };
    let files_prefix = coverage::files_prefix(facts.stack());
    let mut targets = Vec::new();
    for (prefix, path) in trees {
        ensure!(
            path.is_absolute() && path.file_name().is_some(),
            "{} cannot be replaced",
            path.display()
        );
        // An administrator may have replaced the directory by a symlink to it. So may
        // a container, to have a directory of the host replaced. A file that the compose
        // file named was recorded without symlinks; what leads elsewhere now is not
        // followed.
        let path = match prefix.starts_with(&files_prefix) {
            true => path,
            false => boundary.resolve(&path)?.path,
        };
        targets.push(Target::new(prefix, &path));
    }
    Ok(targets)
}

/// Member paths and paths on this host of the trees in a manifest.
fn described_trees<'a>(
    manifest: &'a Manifest,
    dir: &Path,
    present: &[Volume],
) -> Vec<(&'a str, PathBuf)> {
    let volume_prefix = volume_prefix(&manifest.stack);
    let mut trees = Vec::new();
    for (prefix, recorded) in &manifest.trees {
        let path = if *prefix == manifest.stack {
            dir.to_owned()
        } else if let Some(name) = prefix.strip_prefix(&volume_prefix) {
            let Some(volume) = present.iter().find(|volume| volume.name == name) else {
                continue;
            };
            volume.bound().unwrap_or(&volume.mountpoint).to_owned()
        } else {
            PathBuf::from(recorded)
        };
        trees.push((&**prefix, path));
    }
    trees
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::trees::tests::frozen_manifest;

    #[test]
    fn a_volume_goes_to_its_present_path_and_each_path_is_a_target_once() {
        let mut manifest = frozen_manifest();
        let dir = Path::new("/srv/frozen");
        manifest.trees = [
            ("frozen", "/old/frozen"),
            ("frozen.binds/mnt/a/repos", "/mnt/a/repos"),
            ("frozen.binds/srv/frozen/within", "/srv/frozen/within"),
            ("frozen.volumes/moved", "/mnt/old"),
            (
                "frozen.volumes/plain",
                "/var/lib/docker/volumes/plain/_data",
            ),
            ("frozen.volumes/repos", "/mnt/a/repos"),
        ]
        .map(|(tree, path)| (tree.to_owned(), path.to_owned()))
        .into();
        let volume = |name: &str, options: Value| -> Volume {
            serde_json::from_value(serde_json::json!({
                "Name": name, "Driver": "local", "Mountpoint": format!("/data/{name}/_data"),
                "Labels": null, "Options": options,
            }))
            .unwrap()
        };
        let bound =
            |device: &str| serde_json::json!({"o": "bind", "type": "none", "device": device});
        let present = [
            volume("moved", bound("/mnt/new")),
            volume("plain", Value::Null),
            volume("repos", bound("/mnt/a/repos")),
        ];
        let facts = ArchiveFacts::Described(Box::new(manifest));
        let targets = targets(&facts, dir, &present, &Boundary::default()).unwrap();
        let targets: Vec<(&str, &str)> = targets
            .iter()
            .map(|target| (&*target.prefix, target.path.to_str().unwrap()))
            .collect();
        let expected = [
            ("frozen", "/srv/frozen"),
            ("frozen.binds/mnt/a/repos", "/mnt/a/repos"),
            ("frozen.volumes/moved", "/mnt/new"),
            ("frozen.volumes/plain", "/data/plain/_data"),
        ];
        assert_eq!(targets, expected);
    }
}
