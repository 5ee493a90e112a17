//! What of a host an archive's parts are: where each goes, and what is missing
//! there. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::diff::Place;
use super::swap::Target;
use crate::archive::{Manifest, ServiceImage};
use crate::config::plan::StackPlan;
use crate::engine::{self, Volume};

/// What a restore would replace, and what of it there is.
pub fn places(manifest: &Manifest, stack: Option<&StackPlan>) -> Result<Vec<Place>> {
    let dir = directory(manifest, stack)?;
    let present = engine::volumes(&volume_names(manifest))?;
    let missing = missing_volumes(manifest, &present)?;
    let volumes = by_name(&present);
    let targets = targets(manifest, &dir, &volumes)?;
    let there = targets.into_iter().map(|target| Place {
        prefix: target.prefix.into_bytes(),
        path: Some(target.path).filter(|path| path.exists()),
    });
    let missing = missing.iter().map(|volume| Place {
        prefix: format!("{}{}", volume_prefix(manifest), volume.name).into_bytes(),
        path: None,
    });
    Ok(there.chain(missing).collect())
}

/// The stack's: where it is configured to be, else where it was.
pub(super) fn directory(manifest: &Manifest, stack: Option<&StackPlan>) -> Result<PathBuf> {
    let recorded = match manifest.is_stand_in {
        // Whatever it is called there.
        true => manifest.trees.values().next(),
        false => manifest.trees.get(&manifest.stack),
    };
    let recorded = recorded.context("the archive does not hold the stack's directory")?;
    Ok(stack.map_or_else(|| PathBuf::from(recorded), |stack| stack.dir().to_owned()))
}

pub(super) fn by_name(volumes: &[Volume]) -> BTreeMap<&str, &Volume> {
    let volumes = volumes.iter();
    volumes
        .map(|volume| (volume.name.as_str(), volume))
        .collect()
}

/// What is exchanged while it is not mounted would be hidden by the mount.
pub(super) fn refuse_unless_exchangeable(volume: &Volume) -> Result<()> {
    ensure!(
        volume.is_plain_local() || volume.bound().is_some() || volume.driver != "local",
        "the data of volume {} is only there while it is mounted, and cannot be exchanged: unpack \
         the archive with --to, and copy it into the running service",
        volume.name
    );
    Ok(())
}

fn volume_prefix(manifest: &Manifest) -> String {
    format!("{}.volumes/", manifest.stack)
}

pub(super) fn volume_names(manifest: &Manifest) -> BTreeSet<String> {
    let prefix = volume_prefix(manifest);
    let names = manifest
        .trees
        .keys()
        .filter_map(|tree| tree.strip_prefix(&prefix));
    names.map(str::to_owned).collect()
}

/// Those that the archive holds data of, as its manifest describes them.
pub(super) fn missing_volumes(manifest: &Manifest, present: &[Volume]) -> Result<Vec<Volume>> {
    let mut missing = Vec::new();
    for name in volume_names(manifest) {
        if present.iter().any(|volume| volume.name == name) {
            continue;
        }
        let described = manifest.volumes.iter().find(|volume| volume.name == name);
        missing.push(
            described
                .with_context(|| format!("the manifest does not describe volume {name}"))?
                .clone(),
        );
    }
    Ok(missing)
}

/// Where each tree goes; one within another, or at the same place, is part of that.
pub(super) fn targets(
    manifest: &Manifest,
    dir: &Path,
    volumes: &BTreeMap<&str, &Volume>,
) -> Result<Vec<Target>> {
    let volume_prefix = volume_prefix(manifest);
    let mut targets = Vec::new();
    for (prefix, path) in &manifest.trees {
        let path = if *prefix == manifest.stack {
            dir.to_owned()
        } else if let Some(name) = prefix.strip_prefix(&volume_prefix) {
            // One that is missing has no place yet.
            let Some(volume) = volumes.get(name) else {
                continue;
            };
            volume.bound().unwrap_or(&volume.mountpoint).to_owned()
        } else {
            PathBuf::from(path)
        };
        ensure!(
            path.is_absolute() && path.file_name().is_some(),
            "{} cannot be replaced",
            path.display()
        );
        // An administrator may have made it a symlink: what it leads to is meant.
        let path = fs::canonicalize(&path).unwrap_or(path);
        targets.push(Target::new(prefix, &path));
    }
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

/// Those that are not there.
pub(super) fn missing_images<'a>(
    images: impl IntoIterator<Item = &'a ServiceImage>,
) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for image in images {
        if engine::images(&BTreeSet::from([image.reference.clone()]))?.is_empty() {
            missing.push(described(image));
        }
    }
    missing.dedup();
    Ok(missing)
}

/// By its digests it can be pulled as it was.
fn described(image: &ServiceImage) -> String {
    let origin = match image.digests.as_slice() {
        [] if image.id.is_empty() => String::new(),
        [] => format!(" (built here, id {})", image.id),
        digests => format!(" ({})", digests.join(", ")),
    };
    format!("{} of service {}{origin}", image.reference, image.service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::pick::frozen_manifest;

    #[test]
    fn a_volume_goes_where_it_is_now_and_what_lies_in_one_place_goes_there_once() {
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
        let volume = |name: &str, options: serde_json::Value| -> Volume {
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
            volume("plain", serde_json::Value::Null),
            volume("repos", bound("/mnt/a/repos")),
        ];
        let targets = targets(&manifest, dir, &by_name(&present)).unwrap();
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

    #[test]
    fn images_are_named_with_their_digests() {
        let image = |id: &str, digests: &[&str]| ServiceImage {
            service: "db".to_owned(),
            reference: "postgres:17".to_owned(),
            id: id.to_owned(),
            digests: digests.iter().map(|text| (*text).to_owned()).collect(),
        };
        let id = "sha256:1111";
        let named = [
            (id, &["postgres@sha256:2222"][..], " (postgres@sha256:2222)"),
            (
                id,
                &["a@sha256:3", "b@sha256:3"],
                " (a@sha256:3, b@sha256:3)",
            ),
            (id, &[], " (built here, id sha256:1111)"),
            // As a compose file names it.
            ("", &[], ""),
        ];
        for (id, digests, origin) in named {
            let expected = format!("postgres:17 of service db{origin}");
            assert_eq!(described(&image(id, digests)), expected);
        }
    }
}
