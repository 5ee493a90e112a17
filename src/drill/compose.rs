//! The compose file of a throw-away project: the services that ran, from local
//! images, with the data from the archive and nothing else. Pure.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::literal::{escaped, unescaped};
use super::mount::MountSource;
use super::resolved::service_of;
use super::secrets::{FileSource, files};
use super::service::{Rewriting, Surroundings};
use crate::archive::Manifest;

/// Returns the compose file, and notes on what it lacks.
///
/// # Errors
/// When the manifest does not describe a service.
pub fn compose(
    manifest: &Manifest,
    project: &str,
    source: &FileSource<'_>,
    surroundings: &Surroundings,
) -> Result<(Value, Vec<String>)> {
    let manifest = &Manifest {
        compose: unescaped(&manifest.compose),
        ..manifest.clone()
    };
    let mut notes = Vec::new();
    let secrets = files(manifest, "secrets", source, &mut notes);
    let configs = files(manifest, "configs", source, &mut notes);
    let mut rewriting = Rewriting {
        manifest,
        mounts: MountSource {
            manifest,
            project,
            copy: source.copy,
        },
        secrets: &secrets,
        configs: &configs,
        surroundings,
        networks: Map::from_iter([("default".to_owned(), surroundings.network.clone())]),
        volumes: Map::new(),
        notes,
    };
    let mut services = Map::new();
    for name in &manifest.running {
        let config = service_of(manifest, name)?;
        services.insert(name.clone(), rewriting.service(name, config).into());
    }
    let compose = json!({
        "name": project,
        "services": services,
        "networks": rewriting.networks,
        "volumes": rewriting.volumes,
        "secrets": secrets,
        "configs": configs,
    });
    Ok((escaped(compose), rewriting.notes))
}

/// A network in which no container reaches the host or another network. `options`
/// are those that keep the host out of it.
pub fn isolated_network(options: &BTreeMap<String, String>) -> Value {
    json!({
        "driver": "bridge", "internal": true, "enable_ipv6": false, "driver_opts": options,
    })
}
