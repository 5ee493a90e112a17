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
            tracing::warn!(stack, step = ?entry.step, "a restore did not end");
            match entry.step {
                RestoreStep::Committed | RestoreStep::Cleaning => {
                    let cleaned = finish(&entry, journal, state_dir)?;
                    if let Some(warning) = cleaned.warning {
                        tracing::warn!(stack, "{warning}");
                    }
                    Ok(())
                }
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
        // A part was exchanged while the stack ran, and it goes on.
        _ if entry.live => Vec::new(),
        (RestoreStep::Swapping, Some(project)) => engine::retry_while_unreachable(
            || entry.compose.engine.compose_containers(Some(project)),
            |away| away < DEFAULT_START_TIMEOUT,
        )?,
        _ => Vec::new(),
    };
    driver::stop_at_once(&entry.compose.engine, &containers)?;
    if entry.step == RestoreStep::Swapping {
        driver::stop_named_units(&entry.units)?;
    }
    entry.undo()?;
    remove_new_containers(entry, &containers)?;
    for volume in &entry.new_volumes {
        // A superfluous empty volume must not keep the stack from being started.
        if let Err(error) = entry.compose.engine.remove_volume(volume) {
            tracing::warn!("{error:#}");
        }
    }
    for network in &entry.new_networks {
        if let Err(error) = entry.compose.engine.remove_network(network) {
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
    entry.compose.engine.remove_containers(&ids)
}

/// What became of the old data of a restore that succeeded.
pub(super) struct Cleaned {
    /// Paths of the data that was kept.
    pub old_paths: Vec<PathBuf>,
    /// Why some of the old data is still there, although it should not.
    pub warning: Option<String>,
}

/// Removes or keeps the old data, and removes both journal entries. What cannot
/// be removed is tried again by the next run or `recover`: the stack is up with
/// the new data, so that is no reason to call it down.
///
/// # Errors
/// When a journal entry cannot be removed or written.
pub(super) fn finish(entry: &RestoreEntry, journal: &Journal, state_dir: &Path) -> Result<Cleaned> {
    if entry.step == RestoreStep::Committed {
        journal.remove(&entry.stack)?;
    }
    let error = match entry.clean() {
        Ok(old_paths) => {
            entry.remove(state_dir)?;
            return Ok(Cleaned {
                old_paths,
                warning: None,
            });
        }
        Err(error) => error,
    };
    let left = RestoreEntry {
        step: RestoreStep::Cleaning,
        ..entry.clone()
    };
    left.write(state_dir)?;
    Ok(Cleaned {
        old_paths: Vec::new(),
        warning: Some(leftover_warning(&error)),
    })
}

fn leftover_warning(error: &anyhow::Error) -> String {
    format!(
        "not all of the data that a restore replaced could be removed: {error:#}; the next run \
         tries again"
    )
}

/// Tries again to remove the old data of restores that succeeded. Returns a
/// warning for each stack of which some is still there.
///
/// # Errors
/// When the restores' journal cannot be listed.
pub fn clean_leftovers(state_dir: &Path) -> Result<Vec<(String, String)>> {
    let mut warnings = Vec::new();
    for (stack, entry) in restore_journal::found(state_dir)? {
        let Ok(entry) = entry else { continue };
        if entry.step != RestoreStep::Cleaning {
            continue;
        }
        let cleaned = entry.clean().and_then(|_| entry.remove(state_dir));
        if let Err(error) = cleaned {
            warnings.push((stack, leftover_warning(&error)));
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::journal::JournalEntry;

    #[test]
    fn what_is_left_of_a_restore_never_forgets_a_later_stop() {
        for (step, is_kept) in [
            (RestoreStep::Cleaning, true),
            (RestoreStep::Committed, false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let journal = Journal::of(dir.path());
            let stopped = serde_json::json!({
                "formatVersion": 1, "stack": "x", "project": "x",
                "compose": {"dir": "/x", "name": null, "files": [], "envFiles": []},
                "stopMethod": "stop", "stopTimeoutSecs": null, "startTimeoutSecs": 1,
                "since": "2026-11-23T03:00:00+01:00", "step": "stopped",
                "containers": [],
            });
            let stopped: JournalEntry = serde_json::from_value(stopped).unwrap();
            journal.begin(&stopped, None).unwrap();
            let entry = RestoreEntry {
                step,
                ..RestoreEntry::new("x", stopped.compose.clone(), Vec::new())
            };
            entry.write(dir.path()).unwrap();
            assert!(restore_journal::is_unfinished(dir.path(), "x").unwrap() != is_kept);
            for (_, result) in recover(dir.path(), &journal).unwrap() {
                result.unwrap();
            }
            assert_eq!(!journal.found().unwrap().is_empty(), is_kept, "{step:?}");
            assert!(restore_journal::found(dir.path()).unwrap().is_empty());
        }
    }
}
