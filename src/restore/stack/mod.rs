//! Restores a whole stack in place: unpacks beside it while it still runs,
//! stops it, exchanges, starts what the archive says was running; and undoes
//! all of that when anything fails on the way.

mod start;
mod undo;

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter, Write as _};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::ZonedDateTime;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::host::{
    by_name, directory, missing_images, missing_volumes, refuse_unless_exchangeable, targets,
    volume_names,
};
use super::swap::{self, Entry, Step};
use super::{Archive, Destination, Options, extract};
use crate::archive::{Manifest, ServiceImage, Sums};
use crate::config::DEFAULT_START_TIMEOUT;
use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::{self, ComposeProject, Container, Volume};
use crate::stack::driver;
use crate::stack::journal::{self, Journal};
use crate::stack::quiet;
use crate::stack::running::WasRunning;
use crate::sys::signals::Signals;
pub use undo::recover;
use undo::{finish, undo};

/// What an archive lacks that only has a stack's directory.
const STAND_IN_WARNINGS: [&str; 2] = [
    "the archive has no manifest: what ran, and from which images, is not known",
    "it holds the stack's directory only: volumes, and binds outside of it, stay as they are, and \
     those that are gone are made anew, empty",
];

const LOAD_THEM: &str = "pull or load them, or give --no-start";

/// What is known before anything is changed.
pub struct Restore<'a> {
    archive: &'a Archive,
    manifest: Manifest,
    state_dir: &'a Path,
    /// Until it is done, they are not looked at.
    signals: Signals,
    stop_timeout: Option<Duration>,
    start_timeout: Duration,
    allow_devices: bool,
    allow_damaged: bool,
    starts: bool,
    /// What runs now, and is stopped.
    running: Vec<WasRunning>,
    /// Services that have containers now of which none runs.
    idle: BTreeSet<String>,
    missing_volumes: Vec<Volume>,
    warnings: Vec<String>,
    entry: Entry,
}

pub struct Wish<'a> {
    pub state_dir: &'a Path,
    pub allow_devices: bool,
    /// Otherwise data that is not as it was written replaces nothing.
    pub allow_damaged: bool,
    pub keep_old: bool,
    /// Otherwise what is restored stays down.
    pub starts: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    pub stack: String,
    pub archive: String,
    /// Services that were started.
    pub services: Vec<String>,
    pub downtime_ms: u64,
    pub member_count: u64,
    pub file_bytes: u64,
    /// What was there before, with `--keep-old`.
    pub kept: Vec<PathBuf>,
    pub lacks: Vec<String>,
    pub warnings: Vec<String>,
}

impl<'a> Restore<'a> {
    /// Looks at everything and changes nothing. `stack` is what the
    /// configuration says of it, if it does.
    pub fn plan(
        archive: &'a Archive,
        manifest: &Manifest,
        stack: Option<&StackPlan>,
        wish: &Wish<'a>,
    ) -> Result<Restore<'a>> {
        let compose = compose_project(manifest, stack)?;
        let containers = match &compose.name {
            Some(project) => engine::compose_containers(Some(project))?,
            None => Vec::new(),
        };
        let present = engine::volumes(&volume_names(manifest))?;
        let missing_volumes = missing_volumes(manifest, &present)?;
        for volume in present.iter().chain(&missing_volumes) {
            refuse_unless_exchangeable(volume)?;
        }
        let volumes = by_name(&present);
        let targets = targets(manifest, &compose.dir, &volumes)?;
        let mut warnings = Vec::new();
        if manifest.is_stand_in {
            warnings.extend(STAND_IN_WARNINGS.map(str::to_owned));
            warnings.extend(other_name(manifest, &compose.dir));
            if archive.path().and_then(Sums::read_sidecar).is_none() {
                let said = "it has no sums: damaged data in it would not be noticed";
                warnings.push(said.to_owned());
            }
        }
        let made = start::with_dependencies(manifest.running.clone(), &manifest.compose);
        let of_made = |image: &&ServiceImage| made.contains(&image.service);
        let missing = missing_images(manifest.images.iter().filter(of_made))?;
        if !missing.is_empty() {
            let said = images_are_missing(&missing);
            ensure!(!wish.starts, "{said}; {LOAD_THEM}");
            warnings.push(said);
        }
        if let Some(mark) = (manifest.changed_count > 0).then_some(manifest.changed_count) {
            warnings.push(format!(
                "{mark} files changed while they were archived: {}",
                manifest.changed.join(", ")
            ));
        }
        if manifest.excluded_count > 0 {
            warnings.push(format!(
                "{} were left out of the archive by patterns: what there is of them in these \
                 directories goes (--keep-old keeps it)",
                manifest.excluded_count
            ));
        }
        let not_held = manifest
            .coverage
            .iter()
            .filter(|coverage| !coverage.archived);
        warnings.extend(
            not_held.map(|coverage| {
                format!("{} is not in the archive and stays as it is", coverage.name)
            }),
        );
        let mut entry = Entry::new(&manifest.stack, compose, targets);
        entry.keep_old = wish.keep_old;
        entry.new_volumes = missing_volumes
            .iter()
            .map(|volume| volume.name.clone())
            .collect();
        entry.note_containers(&containers);
        let (running, idle) = by_state(&containers);
        let restore = Restore {
            archive,
            manifest: manifest.clone(),
            state_dir: wish.state_dir,
            signals: Signals::default(),
            stop_timeout: stack.and_then(|stack| stack.stop_timeout),
            start_timeout: stack.map_or(DEFAULT_START_TIMEOUT, |stack| stack.start_timeout),
            allow_devices: wish.allow_devices,
            allow_damaged: wish.allow_damaged,
            starts: wish.starts,
            running,
            idle,
            missing_volumes,
            warnings,
            entry,
        };
        for target in &restore.entry.targets {
            target.check()?;
        }
        let own: Vec<&str> = restore.running.iter().map(|was| was.id.as_str()).collect();
        restore.refuse_what_is_held(&own)?;
        Ok(restore)
    }

    /// What will be done, for the question whether it is to be.
    pub fn text(&self) -> String {
        let mut text = format!(
            "restore {} from {} ({} {})\n",
            self.manifest.stack,
            self.archive.name(),
            match self.manifest.is_stand_in {
                true => "a file of",
                false => "captured",
            },
            self.manifest.captured.strftime("%F %T")
        );
        let list = |names: Vec<&str>| {
            if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(" ")
            }
        };
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "  stops     {}",
            list(self.running.iter().map(|was| was.name.as_str()).collect())
        );
        for target in &self.entry.targets {
            let verb = if target.path.exists() {
                "replaces"
            } else {
                "creates "
            };
            let _ = writeln!(text, "  {verb}  {}", target.path.display());
        }
        for volume in &self.missing_volumes {
            let _ = writeln!(text, "  creates   volume {}", volume.name);
        }
        let _ = match (self.starts, self.manifest.is_stand_in) {
            (true, true) => writeln!(text, "  starts    {}", self.starts_of_stand_in()),
            (true, false) => {
                let services = self.manifest.running.iter().map(String::as_str);
                writeln!(text, "  starts    {}", list(services.collect()))
            }
            (false, _) => writeln!(text, "  starts    nothing"),
        };
        for warning in &self.warnings {
            let _ = writeln!(text, "  warning   {warning}");
        }
        text
    }

    /// Does it. The lock must be held.
    ///
    /// # Errors
    /// When it could not be done; all is as it was then, unless the message
    /// says otherwise.
    pub fn run(mut self, signals: &Signals) -> Result<Restored> {
        self.signals = signals.clone();
        let journal = Journal::open(self.state_dir)?;
        self.refuse_leftovers(&journal)?;
        if !self.allow_damaged {
            self.refuse_damaged()?;
        }
        self.entry.write(self.state_dir)?;
        let (summary, services, downtime) = match self.attempt(&journal) {
            Ok(done) => done,
            Err(error) => return Err(self.give_up(&journal, error)),
        };
        let kept = finish(&self.entry, &journal, self.state_dir)?;
        Ok(Restored {
            stack: self.manifest.stack.clone(),
            archive: self.archive.name(),
            services,
            downtime_ms: downtime.as_millis() as u64,
            member_count: summary.member_count,
            file_bytes: summary.file_bytes,
            kept,
            lacks: summary.lacks,
            warnings: self.warnings,
        })
    }

    fn refuse_leftovers(&self, journal: &Journal) -> Result<()> {
        let stack = &self.manifest.stack;
        let of_run = journal.found()?.iter().any(|found| found.stack == *stack);
        let of_restore = swap::found(self.state_dir)?
            .iter()
            .any(|(found, _)| found == stack);
        if of_run || of_restore {
            bail!(
                "an interrupted run left {stack} stopped: run `docker-stack-backup recover` first"
            );
        }
        Ok(())
    }

    /// Only sums tell of damaged data; none lie beside archives that were not
    /// verified, nor beside standard input.
    fn refuse_damaged(&self) -> Result<()> {
        let Archive::File { file, path } = self.archive else {
            return Ok(());
        };
        let damaged = match Sums::read_sidecar(path) {
            None => return Ok(()),
            Some(Ok(sums)) => sums.find_damage(file, self.signals.flag())?,
            Some(Err(error)) => {
                tracing::warn!("the sums beside the archive cannot be used: {error:#}");
                return Ok(());
            }
        };
        let Some(first) = damaged.first() else {
            return Ok(());
        };
        bail!(
            "{} is damaged, and nothing was done: {first}{} (`verify` says all and marks it, so that \
             the newest good one is taken; --allow-damaged restores it all the same)",
            path.display(),
            match damaged.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            }
        )
    }

    fn attempt(&mut self, journal: &Journal) -> Result<(super::Summary, Vec<String>, Duration)> {
        self.create_volumes()?;
        let summary = self.unpack()?;
        if self.manifest.is_stand_in && self.starts {
            self.refuse_unstartable()?;
        }
        self.signals.check()?;
        let down_since = Instant::now();
        self.stop(journal)?;
        self.refuse_what_is_held(&[])?;
        self.signals.check()?;
        self.entry.step = Step::Swapping;
        self.entry.write(self.state_dir)?;
        self.entry.exchange()?;
        tracing::info!("exchanged");
        let services = if self.starts {
            self.start()?
        } else {
            Vec::new()
        };
        let downtime = down_since.elapsed();
        let committed = Entry {
            step: Step::Committed,
            ..self.entry.clone()
        };
        committed.write(self.state_dir)?;
        // From here on what is new stays.
        self.entry = committed;
        Ok((summary, services, downtime))
    }

    /// Only when it is made is it known where the Engine has it: the manifest
    /// may be of another one.
    fn create_volumes(&mut self) -> Result<()> {
        if self.missing_volumes.is_empty() {
            return Ok(());
        }
        for volume in &self.missing_volumes {
            engine::create_volume(volume)?;
        }
        let present = engine::volumes(&volume_names(&self.manifest))?;
        let volumes = by_name(&present);
        let made = |missing: &Volume| volumes.contains_key(missing.name.as_str());
        ensure!(
            self.missing_volumes.iter().all(made),
            "a new volume is not there"
        );
        self.entry.targets = targets(&self.manifest, &self.entry.compose.dir, &volumes)?;
        for target in &self.entry.targets {
            target.check()?;
        }
        self.entry.write(self.state_dir)
    }

    fn unpack(&mut self) -> Result<super::Summary> {
        tracing::info!("unpacking beside what is there");
        let mut destinations = Vec::new();
        for target in &self.entry.targets {
            let parent = target.parent();
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
            destinations.push(Destination {
                prefix: target.prefix.clone().into_bytes(),
                parent: open_dir(parent)?,
                name: target
                    .staging()
                    .file_name()
                    .unwrap_or_default()
                    .as_bytes()
                    .to_vec(),
            });
        }
        let options = Options {
            is_wanted: &|_| true,
            allow_devices: self.allow_devices,
            // What was there goes: nothing may get lost.
            takes_refusals: false,
            cancel: self.signals.flag(),
        };
        let mut reader = self.archive.reader()?;
        let summary = extract(&mut reader, self.archive.file(), &destinations, &options)
            .with_context(|| self.archive.name())?;
        // Several archives, of which the first need not be the one that is meant.
        ensure!(
            super::is_at_the_end(&mut reader, self.archive)? || self.allow_damaged,
            "data follows the end of {}: give one archive alone (of `borg extract --stdout`, name \
             the path of one file)",
            self.archive.name()
        );
        for (target, destination) in self.entry.targets.iter_mut().zip(&destinations) {
            target.note_new()?;
            rustix::fs::syncfs(&destination.parent).context("sync what was unpacked")?;
        }
        Ok(summary)
    }

    fn stop(&self, journal: &Journal) -> Result<()> {
        if self.running.is_empty() {
            return Ok(());
        }
        let mut entry = self.journal_entry(self.running.clone(), journal::StopProgress::Stopping);
        journal.write(&entry)?;
        tracing::info!(services = entry.services().join(" "), "stopping");
        driver::stop_in_order(&self.running, self.stop_timeout, &self.signals)?;
        entry.step = journal::StopProgress::Stopped;
        journal.write(&entry)
    }

    /// A container that goes on would have what was there before, and that is
    /// to be removed. `own` are the ids of those that are to be stopped.
    fn refuse_what_is_held(&self, own: &[&str]) -> Result<()> {
        let paths: Vec<PathBuf> = self
            .entry
            .targets
            .iter()
            .map(|target| target.path.clone())
            .collect();
        let filter = quiet::WriterFilter::HoldingExcept(own);
        let holders = quiet::container_writers(&engine::containers()?, &paths, filter);
        ensure!(
            holders.busy.is_empty(),
            "what is to be replaced is in use, stop that first ({})",
            holders.busy.join("; ")
        );
        Ok(())
    }

    fn starts_of_stand_in(&self) -> String {
        let idle: Vec<&str> = self.idle.iter().map(String::as_str).collect();
        let but = match idle.is_empty() {
            true => String::new(),
            false => format!(", but for what is down now: {}", idle.join(" ")),
        };
        format!("what `up` starts of the restored compose file{but}")
    }

    fn journal_entry(
        &self,
        containers: Vec<WasRunning>,
        step: journal::StopProgress,
    ) -> journal::JournalEntry {
        journal::JournalEntry {
            format_version: journal::FORMAT_VERSION,
            stack: self.manifest.stack.clone(),
            project: self.manifest.project.clone(),
            compose: self.entry.compose.clone(),
            stop_method: StopMethod::Stop,
            stop_timeout_secs: self.stop_timeout.map(|timeout| timeout.as_secs()),
            start_timeout_secs: self.start_timeout.as_secs(),
            since: ZonedDateTime::now(),
            step,
            containers,
        }
    }

    /// Undoes everything; what fails of that is added to why it was needed.
    fn give_up(&self, journal: &Journal, error: anyhow::Error) -> anyhow::Error {
        tracing::error!("{error:#}");
        tracing::warn!("putting back what was there");
        let undone = undo(&self.entry, self.state_dir).and_then(|()| {
            let left = journal
                .found()?
                .into_iter()
                .find(|found| found.stack == self.manifest.stack);
            let Some(left) = left else { return Ok(()) };
            driver::start(&left.entry?, &self.signals)?;
            journal.remove(&self.manifest.stack)
        });
        let Err(undo) = undone else {
            return error.context("nothing was restored, all is as it was");
        };
        let said = format!(
            "not all could be put back ({undo:#}; run `docker-stack-backup recover` when the cause \
             is gone)"
        );
        match self.running.is_empty() {
            true => error.context(said),
            false => error.context(StillDown(said)),
        }
    }
}

/// Says of a failed restore that what ran before does not run.
#[derive(Debug)]
pub struct StillDown(String);

impl Display for StillDown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As the configuration says, else as it was.
fn compose_project(manifest: &Manifest, stack: Option<&StackPlan>) -> Result<ComposeProject> {
    let recorded = |paths: &[String]| paths.iter().map(PathBuf::from).collect();
    let (files, env_files) = match stack {
        Some(stack) => (stack.compose.files.clone(), stack.compose.env_files.clone()),
        None => (recorded(&manifest.files), recorded(&manifest.env_files)),
    };
    let dir = directory(manifest, stack)?;
    for file in files.iter().chain(&env_files) {
        let path = dir.join(file);
        ensure!(
            path.starts_with(&dir) || path.exists(),
            "{} is not there, and not in the archive: put it there first, or unpack with --to",
            path.display()
        );
    }
    Ok(ComposeProject {
        name: Some(manifest.project.clone()).filter(|name| !name.is_empty()),
        dir,
        files,
        env_files,
    })
}

fn images_are_missing(images: &[String]) -> String {
    format!("images are missing on this machine: {}", images.join("; "))
}

/// A directory that is called otherwise in the archive may be another stack's.
fn other_name(manifest: &Manifest, dir: &Path) -> Option<String> {
    let root = Path::new(manifest.trees.keys().next()?);
    let name = root
        .file_name()
        .filter(|name| Some(*name) != dir.file_name())?;
    Some(format!(
        "in the archive the directory is called {}: is it this stack's?",
        name.display()
    ))
}

/// What runs, and the services of which nothing does. If all are down, none is
/// more so than another.
fn by_state(containers: &[Container]) -> (Vec<WasRunning>, BTreeSet<String>) {
    let own = || containers.iter().filter(|c| !c.one_off);
    let running: Vec<WasRunning> = own().filter_map(WasRunning::of).collect();
    let is_idle = |c: &&Container| running.iter().all(|was| was.service != c.service);
    let idle = own().filter(is_idle).map(|c| c.service.clone());
    let idle = match running.is_empty() {
        true => BTreeSet::new(),
        false => idle.collect(),
    };
    (running, idle)
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    // Not O_PATH: it is synced through this handle.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}
