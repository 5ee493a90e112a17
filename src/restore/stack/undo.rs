//! Undoing a restore that failed or was killed, or finishing one that was through.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::DEFAULT_START_TIMEOUT;
use crate::engine::{self, Container};
use crate::restore::swap::{self, Entry, Step};
use crate::stack::driver;
use crate::stack::journal::Journal;

/// Ends what killed restores left: they are undone, or, if they were through,
/// finished. Their stacks are started by the ordinary journal afterwards.
pub fn recover(state_dir: &Path, journal: &Journal) -> Result<Vec<(String, Result<()>)>> {
    let mut recovered = Vec::new();
    for (stack, entry) in swap::found(state_dir)? {
        let result = entry.and_then(|entry| {
            tracing::warn!(stack, step = ?entry.step, "a restore was killed");
            match entry.step {
                Step::Committed => finish(&entry, journal, state_dir).map(drop),
                Step::Staging | Step::Swapping => undo(&entry, state_dir),
            }
        });
        recovered.push((stack, result));
    }
    Ok(recovered)
}

pub(super) fn undo(entry: &Entry, state_dir: &Path) -> Result<()> {
    let containers = match (entry.step, &entry.project) {
        (Step::Swapping, Some(project)) => engine::retry_while_unreachable(
            || engine::compose_containers(Some(project)),
            |away| away < DEFAULT_START_TIMEOUT,
        )?,
        _ => Vec::new(),
    };
    driver::stop_at_once(&containers)?;
    entry.undo()?;
    remove_new(entry, &containers)?;
    for volume in &entry.new_volumes {
        // An empty volume too many must keep no stack from being started.
        if let Err(error) = engine::remove_volume(volume) {
            tracing::warn!("{error:#}");
        }
    }
    entry.remove(state_dir)
}

/// Removes the containers that were not there before. Where one of them took
/// the place of one with anonymous volumes, it first gives its place, and the
/// volumes, to one as the file that is back describes it: once it is gone,
/// they are nobody's.
fn remove_new(entry: &Entry, containers: &[Container]) -> Result<()> {
    let (old, mut new): (Vec<&Container>, Vec<&Container>) = containers
        .iter()
        .partition(|c| entry.container_ids.contains(&c.id));
    let is_heir = |c: &&Container| {
        entry.services_to_inherit.contains(&c.service)
            && !c.one_off
            && old
                .iter()
                .all(|o| (&o.service, o.number) != (&c.service, c.number))
    };
    let mut heirs: BTreeMap<String, usize> = BTreeMap::new();
    for heir in new.iter().filter(|c| is_heir(c)) {
        *heirs.entry(heir.service.clone()).or_default() += 1;
    }
    if !heirs.is_empty() {
        let services: Vec<String> = heirs.keys().cloned().collect();
        let created = entry.compose.create(&services, &heirs);
        created.context("let the former containers' anonymous volumes be inherited")?;
    }
    new.retain(|c| !heirs.contains_key(&c.service));
    let ids: Vec<String> = new.into_iter().map(|c| c.id.clone()).collect();
    engine::remove_containers(&ids)
}

pub(super) fn finish(entry: &Entry, journal: &Journal, state_dir: &Path) -> Result<Vec<PathBuf>> {
    journal.remove(&entry.stack)?;
    let kept = entry.clean()?;
    entry.remove(state_dir)?;
    Ok(kept)
}
