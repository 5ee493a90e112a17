//! The volumes of a throw-away project. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use super::resolved::{service_of, text, volume_tree};
use crate::archive::Manifest;
use crate::engine::Volume;

/// Returns the volumes to fill from the archive, by the member path of the tree
/// that goes into each.
///
/// # Errors
/// When the manifest does not describe a service.
pub fn volumes(manifest: &Manifest, project: &str) -> Result<BTreeMap<String, Volume>> {
    let mut volumes = BTreeMap::new();
    for service in &manifest.running {
        let mounts = service_of(manifest, service)?.get("volumes");
        let mounts = mounts.and_then(Value::as_array).into_iter().flatten();
        for mount in mounts.filter(|mount| text(mount, "type") == "volume") {
            let key = text(mount, "source");
            let tree = volume_tree(manifest, key);
            if key.is_empty() || !manifest.trees.contains_key(&tree) {
                continue;
            }
            let labels = [
                ("com.docker.compose.project", project),
                ("com.docker.compose.volume", key),
            ];
            let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
            let volume = Volume {
                name: volume_name(project, key),
                driver: "local".to_owned(),
                mountpoint: PathBuf::new(),
                labels: labels.into(),
                options: BTreeMap::new(),
            };
            volumes.insert(tree, volume);
        }
    }
    Ok(volumes)
}

/// The Engine's name for a volume of the throw-away project.
pub fn volume_name(project: &str, key: &str) -> String {
    format!("{project}_{key}")
}
