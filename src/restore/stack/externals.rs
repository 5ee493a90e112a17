//! External networks and volumes that the services of a stack need. Compose makes none of
//! them: `docker compose up` fails where one is missing.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use super::images::with_dependencies;
use crate::archive::Manifest;
use crate::engine::Engine;

/// What to do about them.
pub(super) const ADVICE: &str =
    "create them as they were, or give --create-external to have them made with the usual options";

/// Names of external networks and volumes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Externals {
    pub(super) networks: BTreeSet<String>,
    pub(super) volumes: BTreeSet<String>,
}

impl Externals {
    /// Returns those that the services of an archive need, that this host does not have, and
    /// that the restore does not make of the archive.
    ///
    /// # Errors
    /// When the Engine cannot be asked.
    pub(super) fn missing(engine: &Engine, manifest: &Manifest) -> Result<Externals> {
        let services = with_dependencies(manifest.running.clone(), &manifest.compose);
        let mut needed = Externals::of(&manifest.compose, &services);
        for network in engine.networks(&needed.networks)? {
            needed.networks.remove(&network.name);
        }
        for volume in engine.volumes(&needed.volumes)? {
            needed.volumes.remove(&volume.name);
        }
        let is_archived = |name: &String| {
            let tree = format!("{}.volumes/{name}", manifest.stack);
            manifest.trees.contains_key(&tree)
        };
        needed.volumes.retain(|name| !is_archived(name));
        Ok(needed)
    }

    /// Returns the external networks and volumes of these services of a resolved compose file.
    fn of(compose: &Value, services: &BTreeSet<String>) -> Externals {
        let mut externals = Externals::default();
        for service in services {
            let Some(config) = compose.get("services").and_then(|all| all.get(service)) else {
                continue;
            };
            let networks = config.get("networks").and_then(Value::as_object);
            let networks = networks.into_iter().flat_map(|networks| networks.keys());
            externals
                .networks
                .extend(networks.filter_map(|key| external_name(compose, "networks", key)));
            let mounts = config.get("volumes").and_then(Value::as_array);
            let mounts = mounts.into_iter().flatten();
            let sources = mounts.filter_map(|mount| mount.get("source")?.as_str());
            externals
                .volumes
                .extend(sources.filter_map(|key| external_name(compose, "volumes", key)));
        }
        externals
    }

    /// Returns a message that names them; `None` if there are none.
    pub(super) fn described(&self) -> Option<String> {
        let names: Vec<String> = self.names().collect();
        (!names.is_empty()).then(|| {
            format!(
                "external networks and volumes are missing on this machine: {}",
                names.join(", ")
            )
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let networks = self
            .networks
            .iter()
            .map(|name| format!("network {name} (bridge)"));
        let volumes = self
            .volumes
            .iter()
            .map(|name| format!("volume {name} (empty)"));
        networks.chain(volumes)
    }
}

/// Returns what the Engine calls a network or volume of the compose file, if it is external.
fn external_name(compose: &Value, kind: &str, key: &str) -> Option<String> {
    let config = compose.get(kind)?.get(key)?;
    let is_external = config.get("external").and_then(Value::as_bool) == Some(true);
    let name = config.get("name").and_then(Value::as_str).unwrap_or(key);
    is_external.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_external_and_used_is_needed() {
        let compose = serde_json::json!({
            "services": {
                "app": {
                    "networks": {"proxy": null, "default": null},
                    "volumes": [
                        {"type": "volume", "source": "media", "target": "/m"},
                        {"type": "volume", "source": "own", "target": "/o"},
                        {"type": "bind", "source": "/srv", "target": "/s"},
                    ],
                },
                "other": {"networks": {"unused": null}},
            },
            "networks": {
                "default": {"name": "x_default"},
                "proxy": {"external": true, "name": "the-proxy"},
                "unused": {"external": true, "name": "unused"},
            },
            "volumes": {
                "media": {"external": true, "name": "all-media"},
                "own": {"name": "x_own"},
            },
        });
        let services = BTreeSet::from(["app".to_owned()]);
        let found = Externals::of(&compose, &services);
        assert_eq!(found.networks, BTreeSet::from(["the-proxy".to_owned()]));
        assert_eq!(found.volumes, BTreeSet::from(["all-media".to_owned()]));
        let described = found.described().unwrap();
        assert!(described.contains("network the-proxy (bridge), volume all-media"));
        assert_eq!(Externals::default().described(), None);
    }
}
