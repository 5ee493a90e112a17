//! Proves that an archive can be restored: puts it into a throw-away project,
//! with volumes and a directory of its own, nothing published and no way out,
//! and waits until it is healthy. All of it is taken down again, by `recover`
//! if the program is killed.

mod compose;
mod copy;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::archive::Manifest;
use crate::engine::{self, ComposeProject};
use crate::outcome::DrillOutcome;
use crate::restore::{Archive, Destination, Options, extract};
use crate::sys::signals::Signals;

/// Begins the name of every throw-away project.
const PREFIX: &str = "dsbdrill-";

/// A command in a service's container that must succeed.
pub struct Command<'a> {
    pub service: &'a str,
    pub argv: &'a [String],
}

pub struct Wish<'a> {
    pub state_dir: &'a Path,
    pub signals: &'a Signals,
    pub start_timeout: Duration,
    pub command: Option<Command<'a>>,
}

/// Drills one archive. The lock must be held.
///
/// # Errors
/// When the throw-away project could not be taken down, or nothing could be
/// tried, or a signal came before it was up. That the stack does not come up is
/// a problem in the result.
pub fn drill(archive: &Archive, manifest: &Manifest, wish: &Wish<'_>) -> Result<DrillOutcome> {
    let began = Instant::now();
    let project = project_of(&manifest.stack);
    let scratch = scratch_of(wish.state_dir, &manifest.stack);
    // What a killed one left of the same stack.
    take_down(&project, &scratch)?;
    let mut notes = Vec::new();
    let result = attempt(archive, manifest, wish, &project, &scratch, &mut notes);
    let taken_down = take_down(&project, &scratch);
    let problems = match (result, taken_down) {
        (result, Ok(())) => result.err(),
        (Ok(()), Err(error)) => return Err(error),
        (Err(error), Err(second)) => return Err(second.context(format!("{error:#}"))),
    };
    if problems.is_some() {
        // That it ended early says nothing of the archive.
        wish.signals.check()?;
    }
    Ok(DrillOutcome {
        stack: manifest.stack.clone(),
        archive: archive.name(),
        services: manifest.running.clone(),
        duration_ms: began.elapsed().as_millis() as u64,
        problems: problems
            .map(|error| format!("{error:#}"))
            .into_iter()
            .collect(),
        interrupted: None,
        notes,
    })
}

/// Takes down what killed drills left; returns their stacks.
pub fn recover(state_dir: &Path) -> Result<Vec<(String, Result<()>)>> {
    let dir = state_dir.join("drill");
    let listing = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(|| format!("list {}", dir.display()))?,
    };
    let mut recovered = Vec::new();
    for item in listing {
        let name = item?.file_name();
        let Some(stack) = name.to_str() else { continue };
        tracing::warn!(stack, "a drill was killed, taking it down");
        let result = take_down(&project_of(stack), &scratch_of(state_dir, stack));
        recovered.push((stack.to_owned(), result));
    }
    Ok(recovered)
}

/// Compose allows lower-case letters, digits, - and _ only.
fn project_of(stack: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => c,
        _ => '-',
    };
    format!("{PREFIX}{}", stack.chars().map(plain).collect::<String>())
}

/// Its being there says that there may be something to take down.
fn scratch_of(state_dir: &Path, stack: &str) -> PathBuf {
    state_dir.join("drill").join(stack)
}

fn take_down(project: &str, scratch: &Path) -> Result<()> {
    if !scratch.exists() {
        return Ok(());
    }
    engine::remove_project(project).with_context(|| format!("take down {project}"))?;
    fs::remove_dir_all(scratch).with_context(|| format!("remove {}", scratch.display()))
}

fn attempt(
    archive: &Archive,
    manifest: &Manifest,
    wish: &Wish<'_>,
    project: &str,
    scratch: &Path,
    notes: &mut Vec<String>,
) -> Result<()> {
    ensure!(
        !manifest.running.is_empty(),
        "nothing ran when the archive was made: there is nothing to start"
    );
    let volumes = compose::volumes(manifest, project)?;
    // No name in the archive leads to what else is in the scratch directory.
    let unpacked = scratch.join("unpacked");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&unpacked)
        .with_context(|| format!("create {}", unpacked.display()))?;
    let unpacked = fs::canonicalize(unpacked)?;
    for volume in volumes.values() {
        engine::create_volume(volume)?;
    }
    let names = volumes.values().map(|volume| volume.name.clone());
    let made = engine::volumes(&names.collect())?;
    let mut destinations = Vec::new();
    for (tree, volume) in &volumes {
        let made = made
            .iter()
            .find(|made| made.name == volume.name)
            .context("a new volume is not there")?;
        let parent = made
            .mountpoint
            .parent()
            .context("a volume without a place")?;
        let name = made.mountpoint.file_name().unwrap_or_default();
        fs::remove_dir(&made.mountpoint)
            .with_context(|| format!("empty volume {}", volume.name))?;
        destinations.push(destination(tree, parent, name)?);
    }
    // After those that are part of it.
    destinations.push(destination("", &unpacked, OsStr::new(""))?);
    let options = Options {
        is_wanted: &|_| true,
        allow_devices: true,
        takes_refusals: true,
        cancel: wish.signals.flag(),
    };
    let mut reader = archive.reader()?;
    let summary = extract(&mut reader, archive.file(), &destinations, &options)
        .with_context(|| archive.name())?;
    let lacks = summary.lacks.iter();
    notes.extend(lacks.map(|lack| format!("not restored: {lack}")));
    let copy = |path: &str| copy::find(manifest, &unpacked, path);
    let (compose, lacks) = compose::compose(manifest, project, &copy)?;
    notes.extend(lacks);
    let file = scratch.join("compose.json");
    fs::write(&file, serde_json::to_vec_pretty(&compose)?)
        .with_context(|| format!("write {}", file.display()))?;
    let drilled = ComposeProject {
        dir: scratch.to_owned(),
        name: Some(project.to_owned()),
        files: vec![file],
        env_files: Vec::new(),
    };
    wish.signals.check()?;
    tracing::info!(project, services = manifest.running.join(" "), "starting");
    drilled.up_and_wait(wish.start_timeout, wish.signals)?;
    if let Some(command) = &wish.command {
        drilled
            .exec(command.service, command.argv, wish.signals)
            .context("the check command")?;
    }
    Ok(())
}

fn destination(prefix: &str, parent: &Path, name: &OsStr) -> Result<Destination> {
    let handle: OwnedFd = File::open(parent)
        .with_context(|| format!("open {}", parent.display()))?
        .into();
    Ok(Destination {
        prefix: prefix.as_bytes().to_vec(),
        parent: handle,
        name: name.as_bytes().to_vec(),
    })
}
