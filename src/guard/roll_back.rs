//! Puts a stack back as it was before its update: the names of its images, its data, and
//! its containers. Each step may be repeated, so a roll-back that was killed is done again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::images;
use super::journal::{self, GuardEntry, GuardStep, MARK};
use super::look::with_restore;
use crate::engine::{Container, Mount};
use crate::restore::stack::RestorePlan;
use crate::stack::driver;
use crate::stack::journal::Journal;
use crate::stack::running::WasRunning;
use crate::sys::process::end_marked;
use crate::sys::signals::Signals;

/// What is to be said about a stack that was put back.
#[derive(Debug, Default)]
pub struct RolledBack {
    pub warnings: Vec<String>,
    /// Directories with the data that was replaced.
    pub kept: Vec<PathBuf>,
}

/// Ends an update that was killed. Returns `None` if the stack was as it is to be, and only
/// images were held. An Engine that is away is waited for.
///
/// # Errors
/// When the stack cannot be put back as it was. The entry stays.
pub fn recover(mut entry: GuardEntry, state_dir: &Path) -> Result<Option<RolledBack>> {
    let signals = Signals::default();
    driver::containers(&entry.stack, entry.stack.start_timeout, &signals)?;
    if entry.is_pending() {
        let rolled_back = roll_back(&mut entry, state_dir)?;
        return Ok(Some(rolled_back));
    }
    for warning in settle(&mut entry, state_dir)? {
        tracing::warn!("{warning}");
    }
    Ok(None)
}

/// Puts a stack back. Signals do not interrupt this.
///
/// # Errors
/// When it is not up as before. The entry stays.
pub fn roll_back(entry: &mut GuardEntry, state_dir: &Path) -> Result<RolledBack> {
    let mut done = RolledBack::default();
    if entry.step == GuardStep::Guarding {
        restore(entry, state_dir, &mut done)?;
        entry.step = GuardStep::Restored;
        entry.write(state_dir)?;
    }
    done.warnings.extend(start(entry)?);
    done.warnings.extend(settle(entry, state_dir)?);
    Ok(done)
}

/// Notes that the stack is as it is to be, lets go of its images, and removes the entry.
/// Returns warnings.
///
/// # Errors
/// When the journal cannot be written.
pub fn settle(entry: &mut GuardEntry, state_dir: &Path) -> Result<Vec<String>> {
    entry.step = GuardStep::Settled;
    entry.write(state_dir)?;
    let warnings = images::release(&entry.before.compose.engine, &entry.images);
    journal::remove(state_dir, &entry.stack.name)?;
    Ok(warnings)
}

/// Puts images and data back. The stack is down afterwards.
fn restore(entry: &GuardEntry, state_dir: &Path, done: &mut RolledBack) -> Result<()> {
    let engine = &entry.before.compose.engine;
    end_marked(MARK, &entry.token).context("cannot end the command")?;
    images::put_back(engine, &entry.images)?;
    // What the command ran beside the services would keep the data in use.
    let beside = new_containers(entry)?.into_iter().filter(|c| c.one_off);
    remove(entry, &beside.collect::<Vec<_>>())?;
    // This entry takes the place of one that a restore has left.
    Journal::of(state_dir).remove(&entry.stack.name)?;
    let put_back = |plan: RestorePlan<'_>| plan.run(&Signals::default());
    let restored = with_restore(state_dir, &entry.stack, &entry.archive, true, put_back)
        .with_context(|| format!("cannot put back the data in {}", entry.archive.display()))?;
    let lacks = restored.unrestored.iter();
    done.warnings
        .extend(lacks.map(|lack| format!("not restored: {lack}")));
    done.kept = restored.old_paths;
    Ok(())
}

/// Starts the containers that ran before. Those that are gone are made again, from the old
/// images, with their anonymous volumes. Returns warnings.
fn start(entry: &GuardEntry) -> Result<Vec<String>> {
    remove(entry, &new_containers(entry)?)?;
    let before = &entry.before;
    let project = Some(before.project.as_str());
    let present = before.compose.engine.compose_containers(project)?;
    let is_gone = |was: &&WasRunning| present.iter().all(|container| container.id != was.id);
    // All of them at once: Compose also creates what one of them depends on.
    let gone = before.containers.iter().chain(&entry.idle).filter(is_gone);
    let gone: Vec<WasRunning> = gone.cloned().collect();
    let mut warnings = Vec::new();
    if !gone.is_empty() {
        match driver::make_again(before, &gone) {
            Ok(lost) => warnings.extend(lost),
            // The start tries again with those that ran.
            Err(error) => warnings.push(format!("cannot make containers again: {error:#}")),
        }
    }
    let signals = Signals::default();
    let started = driver::start(before, &signals)?;
    warnings.extend(driver::confirm(before, &started, &signals)?);
    Ok(warnings)
}

/// Returns the containers of the project that did not exist before the command.
fn new_containers(entry: &GuardEntry) -> Result<Vec<Container>> {
    let before = &entry.before;
    let mut found = before
        .compose
        .engine
        .compose_containers(Some(&before.project))?;
    found.retain(|container| !entry.knows(&container.id));
    Ok(found)
}

/// Stops and removes containers with their anonymous volumes, but not with those that they have
/// inherited from the containers of before.
fn remove(entry: &GuardEntry, containers: &[Container]) -> Result<()> {
    let engine = &entry.before.compose.engine;
    driver::stop_at_once(engine, containers)?;
    let ids: Vec<String> = containers.iter().map(|c| c.id.clone()).collect();
    engine.remove_containers_alone(&ids)?;
    let before = entry.before.containers.iter().chain(&entry.idle);
    let inherited: BTreeSet<&str> = before
        .flat_map(|was| &was.anonymous_volumes)
        .map(|volume| volume.name.as_str())
        .collect();
    let mounts = containers.iter().flat_map(|container| &container.mounts);
    let own = mounts.filter(|mount| mount.is_anonymous());
    for Mount { name, .. } in own.filter(|mount| !inherited.contains(mount.name.as_str())) {
        // A superfluous volume must not keep the stack from being started.
        if let Err(error) = engine.remove_volume(name) {
            tracing::warn!("{error:#}");
        }
    }
    Ok(())
}
