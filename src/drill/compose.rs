//! The compose file of a throw-away project: the services that ran, from local
//! images, with the data from the archive and nothing else. Pure.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::copy::CopyLocation;
use super::resolved::service_of;
use super::secrets::files;
use super::service::{Rewriting, internal_network};
use crate::archive::Manifest;

/// Returns the compose file, and notes on what it lacks. `copy` finds the copy
/// of a path of the host.
///
/// # Errors
/// When the manifest does not describe a service.
pub fn compose(
    manifest: &Manifest,
    project: &str,
    copy: &dyn Fn(&str) -> CopyLocation,
) -> Result<(Value, Vec<String>)> {
    let mut notes = Vec::new();
    let secrets = files(manifest, "secrets", copy, &mut notes);
    let configs = files(manifest, "configs", copy, &mut notes);
    let mut rewriting = Rewriting {
        manifest,
        project,
        copy,
        secrets: &secrets,
        configs: &configs,
        networks: Map::from_iter([("default".to_owned(), internal_network())]),
        volumes: Map::new(),
        notes,
    };
    let mut services = Map::new();
    for name in &manifest.running {
        let config = service_of(manifest, name)?;
        services.insert(name.clone(), rewriting.service(name, config).into());
    }
    // The resolved configuration has $$ for every $, so Compose substitutes no
    // variable a second time.
    let compose = json!({
        "name": project,
        "services": services,
        "networks": rewriting.networks,
        "volumes": rewriting.volumes,
        "secrets": secrets,
        "configs": configs,
    });
    Ok((compose, rewriting.notes))
}
