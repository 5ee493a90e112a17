//! Making again what was removed while a stack was down, for example by
//! `docker system prune`: networks, and containers with their anonymous volumes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::engine::{Existing, Network, StandIn};
use crate::stack::journal::JournalEntry;
use crate::stack::running::{WasRunning, network_names, replicas};

/// Creates containers that were removed, with the volumes and in the networks that
/// they had. Starts nothing. Returns what was lost: anonymous volumes that are gone.
pub fn remake(entry: &JournalEntry, missing: &[WasRunning]) -> Result<Vec<String>> {
    make_networks(entry, &network_names(missing))?;
    let volumes = missing.iter().flat_map(|was| &was.anonymous_volumes);
    let volumes: BTreeSet<String> = volumes.map(|volume| volume.name.clone()).collect();
    let engine = &entry.compose.engine;
    let present = engine.volumes(&volumes)?;
    let present: BTreeSet<&str> = present.iter().map(|volume| volume.name.as_str()).collect();
    let mut lost = Vec::new();
    let mut existing = Existing::Keep;
    for was in missing {
        let (kept, gone): (Vec<_>, Vec<_>) = was
            .anonymous_volumes
            .iter()
            .partition(|volume| present.contains(volume.name.as_str()));
        let name = &was.name;
        lost.extend(gone.iter().map(|volume| {
            format!(
                "{name} was removed while it was stopped, and runs with an empty volume at {}: \
                 its anonymous volume {} was removed, too; restore the data from an archive or \
                 another backup",
                volume.destination, volume.name
            )
        }));
        let volumes = kept.iter().map(|kept| (&*kept.name, &*kept.destination));
        let stand_in = StandIn {
            project: &entry.project,
            service: &was.service,
            number: was.number,
            name: &was.name,
            image_id: &was.image_id,
            volumes: volumes.collect(),
        };
        if !stand_in.volumes.is_empty() {
            stand_in.create(engine)?;
            existing = Existing::Update;
        }
    }
    let replicas_now = replicas(&entry.containers);
    let services: Vec<String> = replicas(missing).into_keys().collect();
    let replicas_now = replicas_now
        .into_iter()
        .filter(|(service, _)| services.contains(service))
        .collect();
    // Compose also creates those that they depend on, and needs them for `down`.
    entry.compose.create(&services, &replicas_now, existing)?;
    Ok(lost)
}

/// Connects a container again to those of its networks that were removed, which
/// are made again. It keeps its data, unlike a container that Compose would make
/// in its place.
pub(super) fn reconnect(entry: &JournalEntry, id: &str) -> Result<()> {
    let engine = &entry.compose.engine;
    let Some(container) = engine.containers_of(vec![id.to_owned()])?.pop() else {
        bail!("the container is gone");
    };
    let names = container.networks.keys().cloned().collect();
    make_networks(entry, &names)?;
    for network in engine.networks(&names)? {
        let endpoint = &container.networks[&network.name];
        if !endpoint.network_id.is_empty() && endpoint.network_id != network.id {
            tracing::info!(
                container = container.name,
                network = network.name,
                "connecting"
            );
            engine.connect(id, &network.name, endpoint)?;
        }
    }
    Ok(())
}

/// Makes those of these networks again that are gone and whose description the
/// entry has.
fn make_networks(entry: &JournalEntry, names: &BTreeSet<String>) -> Result<()> {
    let present = entry.compose.engine.networks(names)?;
    let gone = names
        .iter()
        .filter(|name| !present.iter().any(|network| network.name == **name));
    for name in gone {
        let recorded = entry.networks.iter().find(|network| network.name == *name);
        // Without one, Compose may be able to make it.
        let Some(network) = recorded else { continue };
        if network.scope != "local" {
            bail!("network {name} is gone, and is not of this Engine alone: make it again by hand");
        }
        tracing::info!(network = name, "was removed, making it again");
        make_network(entry, network)?;
    }
    Ok(())
}

/// Makes a network again, if possible with the addresses that it had.
fn make_network(entry: &JournalEntry, network: &Network) -> Result<()> {
    let engine = &entry.compose.engine;
    let error = match engine.create_network(network) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let addresses = entry.containers.iter().flat_map(|was| &was.addresses);
    let mut in_network = addresses.filter(|address| address.network == network.name);
    if in_network.any(|address| address.is_fixed) {
        return Err(error);
    }
    // Another network may have taken the addresses.
    let mut elsewhere = network.clone();
    elsewhere.ipam.pools.clear();
    engine
        .create_network(&elsewhere)
        .with_context(|| format!("{error:#}"))
}
