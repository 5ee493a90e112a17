//! Proves that an archive can be restored: unpacks it into a throw-away project
//! with volumes and a directory of its own, without published ports and without
//! a route to other networks, and waits until it is healthy. The project is taken
//! down afterwards, by `recover` if the program is killed.

mod compose;
mod copy;
mod host_files;
mod literal;
mod mount;
mod resolved;
mod rules;
mod secrets;
mod service;
mod shape;
#[cfg(test)]
mod tests;
mod volumes;
mod wait;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use compose::isolated_network;
use host_files::copy_host_file;
use secrets::FileSource;
use service::Surroundings;

use crate::archive::{Manifest, ManifestDriver};
use crate::config::StopMethod;
use crate::engine::{ComposeProject, Engine, Volume};
use crate::outcome::DrillOutcome;
use crate::restore::{Archive, Destination, ExtractOptions, ExtractSummary, extract};
use crate::stack::driver;
use crate::stack::journal::{self, JournalEntry, StopProgress};
use crate::stack::running::WasRunning;
use crate::stack::unconfigured::DRILL_PREFIX;
use crate::sys::remove_tree::remove_tree;
use crate::sys::signals::Signals;
use crate::sys::time::{OffsetTime, zone_name};

/// A file that says that there is no project to take down, and there need be no Engine.
const UNPACKED_ONLY: &str = "unpacked-only";

/// A command that must succeed in a service's container.
pub struct DrillCheck<'a> {
    pub service: &'a str,
    pub argv: &'a [String],
}

pub struct DrillOptions<'a> {
    pub state_dir: &'a Path,
    /// Where the copy runs.
    pub engine: &'a Engine,
    pub signals: &'a Signals,
    pub start_timeout: Duration,
    pub check: Option<DrillCheck<'a>>,
    /// Files of this machine that may be copied as secrets and configs, or
    /// directories of them.
    pub secrets: &'a [PathBuf],
}

/// Drills one archive. The caller must hold the lock.
///
/// # Errors
/// When the throw-away project could not be taken down, or a signal ended the
/// drill early. If the stack does not come up, that is a problem in the result.
pub fn drill(
    archive: &Archive,
    manifest: &Manifest,
    options: &DrillOptions<'_>,
) -> Result<DrillOutcome> {
    let began = Instant::now();
    // A killed drill of the same stack may have left something.
    let earlier = Project::found(options.state_dir, &manifest.stack)?;
    if let Some(left) = earlier.take_down()? {
        bail!("{left}; remove it by hand");
    }
    if manifest.driver == ManifestDriver::Systemd {
        let project = Project::of(options.state_dir, &manifest.stack, options.engine);
        return unpack_only(archive, manifest, options, &project);
    }
    let reason = match () {
        () if manifest.running.is_empty() => {
            Some("nothing ran when the archive was made, so there is nothing to start")
        }
        () if options.engine.user_id().is_some() => Some(
            "its Engine is that of a user, whose containers cannot read what is unpacked in \
             stateDir",
        ),
        () => None,
    };
    if let Some(reason) = reason {
        return Ok(DrillOutcome::skipped(
            &manifest.stack,
            archive.name(),
            reason,
        ));
    }
    let project = Project::of(options.state_dir, &manifest.stack, options.engine);
    let mut notes = Vec::new();
    let result = attempt(archive, manifest, options, &project, &mut notes);
    let taken_down = project.take_down();
    let problem = match (result, taken_down) {
        (result, Ok(left)) => {
            notes.extend(left);
            result.err()
        }
        (Ok(()), Err(error)) => return Err(error),
        (Err(error), Err(second)) => return Err(second.context(format!("{error:#}"))),
    };
    if problem.is_some() {
        // A drill that was interrupted says nothing about the archive.
        options.signals.check()?;
    }
    Ok(DrillOutcome {
        stack: manifest.stack.clone(),
        archive: archive.name(),
        services: manifest.running.clone(),
        duration_ms: began.elapsed().as_millis() as u64,
        problems: problem
            .map(|error| format!("{error:#}"))
            .into_iter()
            .collect(),
        interrupted: None,
        skipped: None,
        notes,
    })
}

/// Takes down the projects of killed drills. Returns the result for each stack.
///
/// # Errors
/// When the directory of drills cannot be listed.
pub fn recover(state_dir: &Path) -> Result<Vec<(String, Result<()>)>> {
    let dir = state_dir.join("drill");
    let context = || format!("cannot list {}", dir.display());
    let listing = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(context)?,
    };
    let mut recovered = Vec::new();
    for item in listing {
        let name = item.with_context(context)?.file_name();
        let Some(stack) = name.to_str() else { continue };
        tracing::warn!(stack, "a drill was killed, taking it down");
        let result = Project::found(state_dir, stack).and_then(|project| project.take_down());
        if let Ok(Some(left)) = &result {
            tracing::warn!(stack, "{left}");
        }
        recovered.push((stack.to_owned(), result.map(drop)));
    }
    Ok(recovered)
}

/// The throw-away project of a stack.
struct Project {
    /// Compose's name for it.
    name: String,
    /// Directory of its files. It exists as long as there may be something to
    /// take down.
    scratch: PathBuf,
    engine: Engine,
}

impl Project {
    fn of(state_dir: &Path, stack: &str, engine: &Engine) -> Project {
        // Compose allows only lower-case letters, digits, - and _.
        let allowed = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => c,
            _ => '-',
        };
        let stack_part: String = stack.chars().map(allowed).collect();
        Project {
            name: format!("{DRILL_PREFIX}{stack_part}"),
            scratch: state_dir.join("drill").join(stack),
            engine: engine.clone(),
        }
    }

    /// The project that a killed drill of a stack has left, on the Engine that it noted.
    fn found(state_dir: &Path, stack: &str) -> Result<Project> {
        let project = Project::of(state_dir, stack, &Engine::DEFAULT);
        let path = project.engine_file();
        let engine = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .with_context(|| format!("cannot parse {}", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(project),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Project { engine, ..project })
    }

    /// Where it is noted on which Engine the project is, if that is not the default one.
    fn engine_file(&self) -> PathBuf {
        self.scratch.join("engine.json")
    }

    /// Notes on which Engine the project will be, before it has anything there.
    fn note_engine(&self) -> Result<()> {
        if self.engine.is_default() {
            return Ok(());
        }
        let path = self.engine_file();
        fs::write(&path, serde_json::to_vec(&self.engine)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes containers, networks, volumes and files. Does nothing if there are
    /// none. Returns why files are left, if some are: nothing runs any more, so
    /// that is no failure. The next drill, run or `recover` tries again.
    fn take_down(&self) -> Result<Option<String>> {
        let scratch = &self.scratch;
        if !scratch.exists() {
            return Ok(None);
        }
        if !scratch.join(UNPACKED_ONLY).exists() {
            self.engine
                .remove_project(&self.name)
                .with_context(|| format!("cannot take down {}", self.name))?;
        }
        let left = remove_tree(scratch).err();
        Ok(left.map(|error| left_message(scratch, &error)))
    }
}

fn left_message(scratch: &Path, error: &std::io::Error) -> String {
    format!(
        "cannot remove the files of a drill, {}: {error}",
        scratch.display()
    )
}

/// Tries again to remove the files of a stack's drill. Returns why some are left,
/// if some are. The lock must be held.
pub fn clean_leftovers(state_dir: &Path, stack: &str) -> Option<String> {
    let scratch = Project::of(state_dir, stack, &Engine::DEFAULT).scratch;
    let error = remove_tree(&scratch).err()?;
    Some(left_message(&scratch, &error))
}

fn attempt(
    archive: &Archive,
    manifest: &Manifest,
    options: &DrillOptions<'_>,
    project: &Project,
    notes: &mut Vec<String>,
) -> Result<()> {
    let engine = options.engine;
    engine.check()?;
    let volumes = volumes::volumes(manifest, &project.name)?;
    let unpacked = create_unpack_dir(project)?;
    project.note_engine()?;
    let mut destinations = create_volumes(engine, &volumes)?;
    // The first matching destination counts, and this one matches all members.
    destinations.push(destination("", &unpacked, OsStr::new(""))?);
    let summary = unpack(archive, &destinations, options)?;
    let unrestored = summary.unrestored.iter();
    notes.extend(unrestored.map(|message| format!("not restored: {message}")));
    let copy = |path: &str| copy::find(manifest, &unpacked, path);
    let secrets_dir = project.scratch.join("secrets");
    let source = FileSource {
        copy: &copy,
        copy_host_file: &|path| copy_host_file(Path::new(path), options.secrets, &secrets_dir),
    };
    let surroundings = Surroundings {
        network: isolated_network(&engine.isolating_options()?),
        log_driver: engine.local_log_driver(),
        host_names: engine.host_names(),
    };
    let (compose, lacking) = compose::compose(manifest, &project.name, &source, &surroundings)?;
    notes.extend(lacking);
    let file = project.scratch.join("compose.json");
    fs::write(&file, serde_json::to_vec_pretty(&compose)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let compose = ComposeProject {
        dir: project.scratch.clone(),
        name: Some(project.name.clone()),
        files: vec![file],
        env_files: Vec::new(),
        engine: engine.clone(),
    };
    options.signals.check()?;
    tracing::info!(
        project = project.name,
        services = manifest.running.join(" "),
        "starting"
    );
    let deadline = Instant::now() + options.start_timeout;
    engine.checking_health(&project.name, || {
        compose.up_all(options.start_timeout, options.signals)
    })?;
    wait::wait_until_up(
        engine,
        &project.name,
        &manifest.running,
        deadline,
        options.signals,
    )?;
    notes.extend(look_again(manifest, options, project, &compose)?);
    if let Some(check) = &options.check {
        compose
            .exec(check.service, check.argv, options.signals)
            .context("the check command")?;
    }
    Ok(())
}

fn unpack(
    archive: &Archive,
    destinations: &[Destination],
    options: &DrillOptions<'_>,
) -> Result<ExtractSummary> {
    let extract_options = ExtractOptions {
        is_wanted: &|_| true,
        allow_devices: true,
        tolerates_refusals: true,
        cancel: options.signals.flag(),
    };
    let mut reader = archive.reader()?;
    extract(&mut reader, archive.file(), destinations, &extract_options)
        .with_context(|| archive.name())
}

/// Unpacks and checks an archive whose stack cannot be started beside itself: units have
/// one name, one address and one directory on a machine. The result says so.
fn unpack_only(
    archive: &Archive,
    manifest: &Manifest,
    options: &DrillOptions<'_>,
    project: &Project,
) -> Result<DrillOutcome> {
    let attempt = || {
        let unpacked = create_unpack_dir(project)?;
        let mark = project.scratch.join(UNPACKED_ONLY);
        File::create(&mark).with_context(|| format!("cannot create {}", mark.display()))?;
        let destination = destination("", &unpacked, OsStr::new(""))?;
        let summary = unpack(archive, &[destination], options)?;
        Ok((summary, is_checked(archive, options)?))
    };
    let result: Result<(ExtractSummary, bool)> = attempt();
    let left = project.take_down()?;
    let stack = &manifest.stack;
    let (summary, is_checked) = match result {
        Ok(done) => done,
        Err(error) => {
            options.signals.check()?;
            let problem = format!("{error:#}");
            return Ok(DrillOutcome::failed(stack, archive.name(), problem));
        }
    };
    let done = match is_checked {
        true => "unpacked, and compared with its sums",
        false => "unpacked; it has no sums to compare it with",
    };
    let reason = format!(
        "not started, because a drill does not start units of systemd; the archive was {done}"
    );
    let unrestored = summary.unrestored.iter();
    let notes = unrestored.map(|message| format!("not restored: {message}"));
    Ok(DrillOutcome {
        notes: notes.chain(left).collect(),
        ..DrillOutcome::skipped(stack, archive.name(), &reason)
    })
}

/// Compares an archive with its sums. Returns whether it has any.
///
/// # Errors
/// When it is damaged.
fn is_checked(archive: &Archive, options: &DrillOptions<'_>) -> Result<bool> {
    let (Some(sums), Some(file)) = (archive.sums(), archive.file()) else {
        return Ok(false);
    };
    let damaged = sums?.find_damage(file, options.signals.flag())?;
    match damaged.first() {
        None => Ok(true),
        Some(first) => bail!("{} is damaged: {first}", archive.name()),
    }
}

/// Checks that what was started does not end soon after. Returns notes.
fn look_again(
    manifest: &Manifest,
    options: &DrillOptions<'_>,
    project: &Project,
    compose: &ComposeProject,
) -> Result<Vec<String>> {
    let containers = options.engine.compose_containers(Some(&project.name))?;
    let entry = JournalEntry {
        format_version: journal::FORMAT_VERSION,
        stack: manifest.stack.clone(),
        project: project.name.clone(),
        compose: compose.clone(),
        stop_method: StopMethod::Stop,
        stop_timeout_secs: None,
        start_timeout_secs: options.start_timeout.as_secs(),
        since: OffsetTime::now(),
        time_zone: zone_name(),
        step: StopProgress::Stopped,
        for_restore: false,
        containers: WasRunning::expected(&containers),
        units: Vec::new(),
        unit_containers: Vec::new(),
        networks: Vec::new(),
        undos: Vec::new(),
    };
    driver::stays_up(&entry, options.signals)
}

/// Creates the directory that the archive is unpacked into. It is beneath the
/// scratch directory, so that no member has the path of another file in there.
fn create_unpack_dir(project: &Project) -> Result<PathBuf> {
    let dir = project.scratch.join("unpacked");
    let context = || format!("cannot create {}", dir.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(context)?;
    fs::canonicalize(&dir).with_context(context)
}

/// Creates volumes, by the member path of the tree that each is for. Returns them
/// as destinations: the tree is unpacked in place of the volume's directory,
/// which is removed for that.
fn create_volumes(engine: &Engine, volumes: &BTreeMap<String, Volume>) -> Result<Vec<Destination>> {
    for volume in volumes.values() {
        engine.create_volume(volume)?;
    }
    let names = volumes.values().map(|volume| volume.name.clone());
    let created = engine.volumes(&names.collect())?;
    let mut destinations = Vec::new();
    for (tree, volume) in volumes {
        let mountpoint = created
            .iter()
            .find(|created| created.name == volume.name)
            .map(|created| &created.mountpoint)
            .with_context(|| format!("the Engine does not have the new volume {}", volume.name))?;
        let parent = mountpoint
            .parent()
            .with_context(|| format!("volume {} has no directory", volume.name))?;
        let name = mountpoint.file_name().unwrap_or_default();
        fs::remove_dir(mountpoint)
            .with_context(|| format!("cannot remove the empty {}", mountpoint.display()))?;
        destinations.push(destination(tree, parent, name)?);
    }
    Ok(destinations)
}

fn destination(prefix: &str, parent: &Path, name: &OsStr) -> Result<Destination> {
    let handle: OwnedFd = File::open(parent)
        .with_context(|| format!("cannot open {}", parent.display()))?
        .into();
    Ok(Destination {
        prefix: prefix.as_bytes().to_vec(),
        parent: handle,
        name: name.as_bytes().to_vec(),
    })
}
