//! Undoing a restore that failed or was killed, or finishing one that was through.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::docker::{self, Container, Status};
use crate::journal::Journal;
use crate::restore::swap::{self, Entry, Step};

/// So long an Engine that is away is waited for, as it is for a start.
const ENGINE_LIMIT: Duration = Duration::from_secs(180);

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
    if let (Step::Swapping, Some(project)) = (entry.step, &entry.project) {
        let containers = docker::patiently(
            || docker::compose_containers(Some(project)),
            |away| away < ENGINE_LIMIT,
        )?;
        let running: Vec<&Container> = containers
            .iter()
            .filter(|c| c.status != Status::Stopped)
            .collect();
        let longest = running
            .iter()
            .map(|c| c.stop_timeout)
            .max()
            .unwrap_or_default();
        let ids: Vec<String> = running.iter().map(|c| c.id.clone()).collect();
        if !ids.is_empty() {
            docker::stop(&ids, None, longest)?;
        }
        let is_new = |c: &&Container| !entry.container_ids.contains(&c.id);
        let new: Vec<String> = containers
            .iter()
            .filter(is_new)
            .map(|c| c.id.clone())
            .collect();
        docker::remove_containers(&new)?;
    }
    entry.undo()?;
    for volume in &entry.new_volumes {
        // An empty volume too many must keep no stack from being started.
        if let Err(error) = docker::remove_volume(volume) {
            tracing::warn!("{error:#}");
        }
    }
    entry.remove(state_dir)
}

pub(super) fn finish(entry: &Entry, journal: &Journal, state_dir: &Path) -> Result<Vec<PathBuf>> {
    journal.remove(&entry.stack)?;
    let kept = entry.clean()?;
    entry.remove(state_dir)?;
    Ok(kept)
}
