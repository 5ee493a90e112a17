//! Undoes a restore that failed or was killed, or finishes one that succeeded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::DEFAULT_START_TIMEOUT;
use crate::engine::{self, Container, Existing};
use crate::restore::journal::{self as restore_journal, RestoreEntry, RestoreStep};
use crate::stack::driver;
use crate::stack::journal::Journal;

/// Ends restores that were killed: undoes them, or finishes those that were
/// committed. Returns the result for each stack. The caller starts the stacks
/// from the ordinary journal afterwards.
///
/// # Errors
/// When the restores' journal cannot be listed.
pub fn recover(state_dir: &Path, journal: &Journal) -> Result<Vec<(String, Result<()>)>> {
    let mut recovered = Vec::new();
    for (stack, entry) in restore_journal::found(state_dir)? {
        let result = entry.and_then(|entry| {
            tracing::warn!(stack, step = ?entry.step, "a restore was killed");
            match entry.step {
                RestoreStep::Committed => finish(&entry, journal, state_dir).map(drop),
                RestoreStep::Staging | RestoreStep::Swapping => undo(&entry, state_dir),
            }
        });
        recovered.push((stack, result));
    }
    Ok(recovered)
}

/// Puts the old data in place and removes what the restore has created.
pub(super) fn undo(entry: &RestoreEntry, state_dir: &Path) -> Result<()> {
    let containers = match (entry.step, &entry.project) {
        (RestoreStep::Swapping, Some(project)) => engine::retry_while_unreachable(
            || engine::compose_containers(Some(project)),
            |away| away < DEFAULT_START_TIMEOUT,
        )?,
        _ => Vec::new(),
    };
    driver::stop_at_once(&containers)?;
    entry.undo()?;
    remove_new_containers(entry, &containers)?;
    for volume in &entry.new_volumes {
        // A superfluous empty volume must not keep the stack from being started.
        if let Err(error) = engine::remove_volume(volume) {
            tracing::warn!("{error:#}");
        }
    }
    entry.remove(state_dir)
}

/// Removes the containers that the restore created.
///
/// A created container may have replaced one with anonymous volumes. Compose
/// then replaces it first, by one that the old compose file describes, and so
/// hands the volumes on. Removing it without a successor would orphan them.
fn remove_new_containers(entry: &RestoreEntry, containers: &[Container]) -> Result<()> {
    let (old, mut new): (Vec<&Container>, Vec<&Container>) = containers
        .iter()
        .partition(|c| entry.container_ids.contains(&c.id));
    let has_inherited = |c: &&Container| {
        entry.services_to_inherit.contains(&c.service)
            && !c.one_off
            && old
                .iter()
                .all(|o| (&o.service, o.number) != (&c.service, c.number))
    };
    let mut heirs: BTreeMap<String, usize> = BTreeMap::new();
    for heir in new.iter().filter(|c| has_inherited(c)) {
        *heirs.entry(heir.service.clone()).or_default() += 1;
    }
    if !heirs.is_empty() {
        let services: Vec<String> = heirs.keys().cloned().collect();
        let created = entry.compose.create(&services, &heirs, Existing::Update);
        created.context("cannot create containers that inherit the anonymous volumes")?;
    }
    new.retain(|c| !heirs.contains_key(&c.service));
    let ids: Vec<String> = new.into_iter().map(|c| c.id.clone()).collect();
    engine::remove_containers(&ids)
}

/// Removes or keeps the old data, and both journal entries. Returns the paths of
/// the data that was kept.
pub(super) fn finish(
    entry: &RestoreEntry,
    journal: &Journal,
    state_dir: &Path,
) -> Result<Vec<PathBuf>> {
    journal.remove(&entry.stack)?;
    let kept = entry.clean()?;
    entry.remove(state_dir)?;
    Ok(kept)
}
