//! What a restore of a stack will do. Changes nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use super::externals::{self, Externals};
use super::images::{self, missing_images, with_dependencies};
use super::units::RestoredUnits;
use crate::archive::{Manifest, ServiceImage};
use crate::config::plan::StackPlan;
use crate::config::{DEFAULT_START_TIMEOUT, StopMethod};
use crate::engine::{ComposeProject, Container, Engine, Network, Volume};
use crate::restore::archive::Archive;
use crate::restore::facts::{ArchiveFacts, GuessedFacts};
use crate::restore::host::{self, HostVolumes};
use crate::restore::journal::RestoreEntry;
use crate::restore::parts::Parts;
use crate::restore::target::Target;
use crate::restore::trees::tree_of;
use crate::scan::Boundary;
use crate::stack::coverage;
use crate::stack::journal;
use crate::stack::neighbours::Neighbours;
use crate::stack::quiet;
use crate::stack::running::{WasRunning, network_names};
use crate::stack::unit_containers::{self, CheckedContainer};
use crate::stack::units::WasActive;
use crate::sys::format::one_line;
use crate::sys::time::{OffsetTime, zone_name};

/// What the user asked for.
#[derive(Clone, Copy)]
pub struct RestoreOptions<'a> {
    pub state_dir: &'a Path,
    pub allow_devices: bool,
    /// Whether missing volumes may have a driver and options. They can make a volume
    /// of any directory of the host.
    pub allow_volume_options: bool,
    /// Whether an archive with damaged data is restored. Otherwise nothing is
    /// replaced by it.
    pub allow_damaged: bool,
    pub keep_old: bool,
    /// Whether a running container may be able to write to a directory above what is
    /// replaced, and so to what is unpacked beside it.
    pub allow_reachable: bool,
    /// Whether the restored services are started.
    pub starts: bool,
    /// Whether the stack goes on while parts of its data are exchanged.
    pub live: bool,
    /// Whether external networks and volumes that are missing are created.
    pub create_external: bool,
    /// What is restored, and how much it is.
    pub parts: &'a Parts,
}

/// All that is known before anything is changed.
pub struct RestorePlan<'a> {
    pub(super) archive: &'a Archive,
    pub(super) facts: &'a ArchiveFacts,
    pub(super) options: RestoreOptions<'a>,
    pub(super) stop_timeout: Option<Duration>,
    pub(super) start_timeout: Duration,
    /// Containers that run now and will be stopped.
    pub(super) running: Vec<WasRunning>,
    /// The units of a stack that is no Compose project.
    pub(super) units: Option<RestoredUnits>,
    /// The networks of these containers.
    pub(super) networks: Vec<Network>,
    /// Services whose containers are all down while others run.
    pub(super) idle: BTreeSet<String>,
    /// Containers of other Engines, which may use what is replaced.
    neighbours: Vec<Container>,
    pub(super) missing_volumes: Vec<Volume>,
    /// External networks and volumes that are missing and not in the archive.
    pub(super) missing_externals: Externals,
    pub(super) warnings: Vec<String>,
    /// Running containers that can write to a directory above a target.
    pub(super) reaching: Vec<String>,
    pub(super) entry: RestoreEntry,
}

/// What a restore would do.
#[derive(Debug, Serialize)]
pub struct RestorePreview {
    pub stack: String,
    pub archive: String,
    /// Containers that run now.
    pub stops: Vec<String>,
    /// Paths, and volumes.
    pub replaces: Vec<String>,
    pub creates: Vec<String>,
    pub warnings: Vec<String>,
}

impl<'a> RestorePlan<'a> {
    /// Makes the plan. `stack` is the stack's configuration, if there is any.
    ///
    /// # Errors
    /// When the restore cannot succeed, as far as that can be seen before
    /// anything is changed.
    pub fn new(
        archive: &'a Archive,
        facts: &'a ArchiveFacts,
        stack: Option<&StackPlan>,
        options: &RestoreOptions<'a>,
    ) -> Result<RestorePlan<'a>> {
        let mut units = RestoredUnits::find(facts, stack)?;
        let compose = compose_project(facts, stack)?;
        let engine = compose.engine.clone();
        engine.check()?;
        let containers = match &compose.name {
            Some(project) => engine.compose_containers(Some(project))?,
            None => Vec::new(),
        };
        let mut volumes = HostVolumes::find(&engine, facts)?;
        volumes.keep_touched(facts.stack(), options.parts);
        volumes.check_exchangeable()?;
        if let ArchiveFacts::Described(manifest) = facts {
            volumes.check_ownership(manifest, stack)?;
        }
        if !options.allow_volume_options {
            volumes.check_plain()?;
        }
        let located = volumes.located();
        let boundary = host::boundary(&engine, &located)?;
        let boundary = match units {
            Some(_) => boundary.following_root_only(),
            None => boundary,
        };
        let targets = find_targets(facts, &compose.dir, &located, &boundary, options.parts)?;
        let (files, mut targets): (Vec<Target>, Vec<Target>) = targets
            .into_iter()
            .partition(|target| target.is_file_of_compose(facts.stack()));
        let mut left_alone = Vec::new();
        for file in files {
            match reason_to_leave(&file) {
                Some(warning) => left_alone.extend(warning),
                None => targets.push(file),
            }
        }
        let mut warnings = match facts {
            ArchiveFacts::Described(manifest) => described_warnings(&engine, manifest, options)?,
            ArchiveFacts::Guessed(guessed) => guessed_warnings(guessed, archive),
        };
        let missing_externals = match facts {
            ArchiveFacts::Described(manifest) if options.starts && options.parts.is_whole() => {
                Externals::missing(&engine, manifest)?
            }
            _ => Externals::default(),
        };
        warnings.extend(
            facts
                .not_archived()
                .filter(|_| options.parts.is_whole())
                .map(|mount| format!("{} is not in the archive and stays as it is", mount.name)),
        );
        warnings.extend(left_alone);
        let mut entry = RestoreEntry::new(facts.stack(), compose, targets);
        entry.keep_old = options.keep_old;
        entry.live = options.live;
        entry.new_networks = missing_externals.networks.iter().cloned().collect();
        entry.new_volumes = volumes
            .missing
            .iter()
            .map(|volume| volume.name.clone())
            .chain(missing_externals.volumes.iter().cloned())
            .collect();
        entry.add_containers(&containers);
        let (mut running, idle) = by_state(&containers);
        let mut used_by: Vec<String> = running.iter().map(|was| was.id.clone()).collect();
        if options.live {
            ensure!(
                !options.parts.is_whole(),
                "--live exchanges parts of a stack that runs: name them with --only"
            );
            ensure!(
                units.is_none(),
                "--live is for a stack of Docker Compose, and this one has `units`"
            );
            warnings.extend(live_warning(&running));
            running.clear();
        }
        if let Some(units) = &mut units {
            used_by.extend(units.container_ids.iter().cloned());
            if !options.parts.is_whole() {
                units.to_start = units.running.clone();
            }
            entry.units = units.names_to_start();
        }
        let networks = engine.networks(&network_names(&running))?;
        let neighbours = stack.map(Neighbours::of).unwrap_or_default();
        warnings.extend(neighbours.warnings);
        let mut plan = RestorePlan {
            archive,
            facts,
            options: *options,
            stop_timeout: stack.and_then(|stack| stack.stop_timeout),
            start_timeout: stack.map_or(DEFAULT_START_TIMEOUT, |stack| stack.start_timeout),
            running,
            units,
            networks,
            idle,
            neighbours: neighbours.containers,
            missing_volumes: volumes.missing,
            missing_externals,
            warnings,
            reaching: Vec::new(),
            entry,
        };
        for target in &plan.entry.targets {
            target.check()?;
        }
        plan.check_unused(&plan.own_ids())?;
        // The stack's own containers are stopped before anything is unpacked in their mounts,
        // unless they are to go on.
        let own: Vec<&str> = used_by.iter().map(String::as_str).collect();
        let stopped_first = if plan.unpacks_in_trees() {
            &own[..]
        } else {
            &[]
        };
        let filter = quiet::WriterFilter::RunningExcept(stopped_first);
        plan.reaching = plan.users(filter, |_| true)?.possible;
        Ok(plan)
    }

    /// Returns the ids of the containers that end before the data is exchanged.
    fn own_ids(&self) -> Vec<&str> {
        let containers = self.running.iter().map(|was| was.id.as_str());
        let of_units = self.units.iter().flat_map(|units| &units.container_ids);
        containers.chain(of_units.map(String::as_str)).collect()
    }

    /// Returns the names of what is stopped.
    pub(super) fn stopped_names(&self) -> Vec<&str> {
        let containers = self.running.iter().map(|was| was.name.as_str());
        let units = self.units.iter().flat_map(|units| &units.running);
        containers
            .chain(units.map(|was| was.name.as_str()))
            .collect()
    }

    /// Refuses a restore that nobody confirms after having seen that a container can
    /// reach what is unpacked.
    ///
    /// # Errors
    /// Names the first such container.
    pub fn check_reachable(&self) -> Result<()> {
        match self.reaching.first() {
            Some(found) if !self.options.allow_reachable => bail!(
                "{found}, a directory above what is to be replaced, so it could change what is \
                 unpacked there: stop it, or give --allow-reachable if you trust it; nothing was \
                 done"
            ),
            _ => Ok(()),
        }
    }

    /// Whether something is unpacked where the containers of the stack can reach it.
    pub(super) fn unpacks_in_trees(&self) -> bool {
        self.entry.targets.iter().any(|target| target.is_in_tree)
    }

    /// Whether the services that ran are started again, and not those that ran when the
    /// archive was made.
    pub(super) fn starts_what_ran(&self) -> bool {
        !self.options.parts.is_whole() && self.units.is_none()
    }

    /// Describes the plan, for the user to confirm.
    pub fn text(&self) -> String {
        let (captured, starts) = match self.facts {
            ArchiveFacts::Described(manifest) => {
                let starts = match &self.units {
                    Some(_) => &self.entry.units,
                    None => &manifest.running,
                };
                (
                    format!("captured {}", manifest.captured.strftime("%F %T")),
                    names(starts.iter().map(String::as_str)),
                )
            }
            ArchiveFacts::Guessed(guessed) => (
                format!("a file of {}", guessed.modified.strftime("%F %T")),
                self.guessed_starts(),
            ),
        };
        let mut text = format!(
            "restore {} from {} ({captured})\n",
            self.facts.stack(),
            self.archive.name()
        );
        let mut line = |label: &str, value: &dyn std::fmt::Display| {
            // A name from the archive must not look like a line of its own. Writing to a
            // `String` cannot fail.
            let value = one_line(&value.to_string());
            let _ = writeln!(text, "  {label:8}  {value}");
        };
        line("stops", &names(self.stopped_names().into_iter()));
        for target in &self.entry.targets {
            let verb = match target.path.exists() {
                true => "replaces",
                false => "creates",
            };
            let size = match self.options.parts.size_in(&target.prefix) {
                Some(size) => format!(" ({size})"),
                None => String::new(),
            };
            line(verb, &format!("{}{size}", target.path.display()));
        }
        for volume in &self.missing_volumes {
            line("creates", &format!("volume {}", volume.described()));
        }
        for external in self.missing_externals.names() {
            line("creates", &external);
        }
        let starts = match self.starts_what_ran() {
            true => names(self.running.iter().map(|was| was.name.as_str())),
            false => starts,
        };
        match self.options.starts {
            true => line("starts", &starts),
            false => line("starts", &"nothing"),
        }
        for warning in &self.warnings {
            line("warning", warning);
        }
        for found in &self.reaching {
            let reach = "a directory above what is replaced: it can change what is unpacked there";
            line("warning", &format!("{found}, {reach}"));
        }
        text
    }

    /// Returns the same for programs.
    pub fn view(&self) -> RestorePreview {
        let targets = self.entry.targets.iter();
        let (replaces, creates): (Vec<_>, Vec<_>) =
            targets.partition(|target| target.path.exists());
        let paths = |targets: Vec<&Target>| -> Vec<String> {
            let paths = targets.into_iter().map(|target| target.path.display());
            paths.map(|path| path.to_string()).collect()
        };
        let mut creates = paths(creates);
        let volumes = self.missing_volumes.iter();
        creates.extend(volumes.map(|volume| format!("volume {}", volume.described())));
        RestorePreview {
            stack: self.facts.stack().to_owned(),
            archive: self.archive.name(),
            stops: self.running.iter().map(|was| was.name.clone()).collect(),
            replaces: paths(replaces),
            creates,
            warnings: [self.warnings.clone(), self.reaching.clone()].concat(),
        }
    }

    fn guessed_starts(&self) -> String {
        let except = match self.idle.is_empty() {
            true => String::new(),
            false => format!(
                ", except for services that are down now: {}",
                names(self.idle.iter().map(String::as_str))
            ),
        };
        format!("what `docker compose up` starts with the restored compose file{except}")
    }

    /// Refuses targets that are mounted into containers other than those with
    /// the ids `own`. Such a container would go on with the old data, which the
    /// restore removes. Files that Compose reads do not count: other stacks that have
    /// the same secret would otherwise be in the way.
    pub(super) fn check_unused(&self, own: &[&str]) -> Result<()> {
        let filter = quiet::WriterFilter::HoldingExcept(own);
        let users = self.users(filter, |target| {
            !target.is_file_of_compose(self.facts.stack())
        })?;
        ensure!(
            users.busy.is_empty(),
            "the data to be replaced is in use, stop that first ({})",
            users.busy.join("; ")
        );
        Ok(())
    }

    /// Finds containers that have mounted one of the targets that count, or a directory
    /// above one.
    fn users(
        &self,
        filter: quiet::WriterFilter<'_>,
        counts: impl Fn(&Target) -> bool,
    ) -> Result<quiet::Writers> {
        let targets = self.entry.targets.iter().filter(|target| counts(target));
        let paths: Vec<PathBuf> = targets.map(|target| target.path.clone()).collect();
        let engine = &self.entry.compose.engine;
        let mut containers = match self.units {
            Some(_) => unit_containers::all(engine)?,
            None => engine.containers()?,
        };
        containers.extend(self.neighbours.iter().cloned());
        Ok(quiet::container_writers(
            &containers,
            &paths,
            filter,
            &|_, _| false,
        ))
    }

    /// Returns the containers of the units to wait for, if these are stopped or started.
    fn checked_containers(&self, units: &[WasActive]) -> Vec<CheckedContainer> {
        match &self.units {
            Some(of_stack) if !units.is_empty() => of_stack.checked.clone(),
            _ => Vec::new(),
        }
    }

    /// The entry of the ordinary journal for these containers, or units, of the stack.
    pub(super) fn journal_entry(
        &self,
        containers: Vec<WasRunning>,
        units: Vec<WasActive>,
        step: journal::StopProgress,
    ) -> journal::JournalEntry {
        journal::JournalEntry {
            format_version: journal::FORMAT_VERSION,
            stack: self.facts.stack().to_owned(),
            project: self.entry.project.clone().unwrap_or_default(),
            compose: self.entry.compose.clone(),
            stop_method: StopMethod::Stop,
            stop_timeout_secs: self.stop_timeout.map(|timeout| timeout.as_secs()),
            start_timeout_secs: self.start_timeout.as_secs(),
            since: OffsetTime::now(),
            time_zone: zone_name(),
            step,
            for_restore: true,
            containers,
            unit_containers: self.checked_containers(&units),
            units,
            networks: self.networks.clone(),
            undos: Vec::new(),
        }
    }
}

/// Returns the trees, or the parts of trees, that are exchanged.
pub(super) fn find_targets(
    facts: &ArchiveFacts,
    dir: &Path,
    present: &[Volume],
    boundary: &Boundary,
    parts: &Parts,
) -> Result<Vec<Target>> {
    match parts.is_whole() {
        true => host::targets(facts, dir, present, boundary),
        false => parts.targets(&host::all_targets(facts, dir, present, boundary)?),
    }
}

fn live_warning(running: &[WasRunning]) -> Option<String> {
    (!running.is_empty()).then(|| {
        format!(
            "{} goes on running: it keeps files open as they were, may write what it has in memory \
             over what is restored, and can change what is unpacked; files that belong together, as \
             those of a database, are not restored at one moment",
            names(running.iter().map(|was| was.name.as_str()))
        )
    })
}

fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    match names.collect::<Vec<_>>().join(" ") {
        names if names.is_empty() => "nothing".to_owned(),
        names => names,
    }
}

/// # Errors
/// When the services are to be started, and images for that are missing.
fn described_warnings(
    engine: &Engine,
    manifest: &Manifest,
    options: &RestoreOptions<'_>,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    // A part is restored into a stack that has its images and networks.
    if options.parts.is_whole() {
        warnings.extend(missing_needs(engine, manifest, options)?);
    }
    if !manifest.undos.is_empty() {
        warnings.push(format!(
            "the archive was made while hooks were in effect, such as a maintenance mode; to take \
             that back after the restore, run: {}",
            manifest.undos.join("; ")
        ));
    }
    if manifest.changed_count > 0 {
        warnings.push(format!(
            "{} files changed while they were archived: {}",
            manifest.changed_count,
            manifest.changed.join(", ")
        ));
    }
    if manifest.excluded_count > 0 {
        warnings.push(format!(
            "patterns excluded {} files and directories from the archive; those in the directories \
             to be replaced are removed (--keep-old keeps them)",
            manifest.excluded_count
        ));
    }
    Ok(warnings)
}

/// Returns what is missing on this host of what the services of an archive need.
///
/// # Errors
/// When they are to be started, and could not be. Everything that is missing is named at once.
fn missing_needs(
    engine: &Engine,
    manifest: &Manifest,
    options: &RestoreOptions<'_>,
) -> Result<Option<String>> {
    let services = with_dependencies(manifest.running.clone(), &manifest.compose);
    let is_needed = |image: &&ServiceImage| services.contains(&image.service);
    let images = missing_images(engine, manifest.images.iter().filter(is_needed))?;
    let externals = match options.create_external {
        true => None,
        false => Externals::missing(engine, manifest)?.described(),
    };
    let is_startable = images.is_none() && externals.is_none();
    let advice = [
        images.as_ref().map(|_| images::ADVICE),
        externals.as_ref().map(|_| externals::ADVICE),
    ];
    let missing: Vec<String> = images.into_iter().chain(externals).collect();
    let advice: Vec<&str> = advice.into_iter().flatten().collect();
    ensure!(
        is_startable || !options.starts,
        "{}; {}",
        missing.join("; "),
        advice.join("; ")
    );
    Ok((!missing.is_empty()).then(|| missing.join("; ")))
}

fn guessed_warnings(guessed: &GuessedFacts, archive: &Archive) -> Vec<String> {
    let mut warnings = vec![
        "the archive has no manifest: which services ran, and from which images, is not known"
            .to_owned(),
        "the archive holds the stack's directory only: volumes, and binds outside of it, stay as \
         they are; those that do not exist are created empty"
            .to_owned(),
    ];
    warnings.extend(guessed.other_name().map(|name| {
        format!(
            "in the archive the directory is called {}: is it this stack's?",
            name.display()
        )
    }));
    if archive.sums().is_none() {
        warnings.push("there is no sums file beside the archive: damage goes unnoticed".to_owned());
    }
    warnings
}

/// Returns whether a file that the compose file named is left as it is on this host, and
/// a warning if that needs one.
fn reason_to_leave(file: &Target) -> Option<Option<String>> {
    let path = file.path.display();
    if coverage::is_made_by_system(&file.path) {
        let missing = format!(
            "{path} does not exist, and is made by the system: build the system first; without \
             it the stack may not start"
        );
        return Some((!file.path.exists()).then_some(missing));
    }
    file.is_led_elsewhere().then(|| {
        Some(format!(
            "{path} stays as it is, because a symlink leads elsewhere from there: unpack it with \
             --to"
        ))
    })
}

/// The Compose project as it is configured, or, if the stack is not configured,
/// as the manifest has it.
fn compose_project(facts: &ArchiveFacts, stack: Option<&StackPlan>) -> Result<ComposeProject> {
    let recorded = |paths: &[String]| paths.iter().map(PathBuf::from).collect();
    let dir = host::directory(facts, stack)?;
    let compose = match (facts, stack) {
        (ArchiveFacts::Guessed(guessed), _) => guessed.compose.clone(),
        (ArchiveFacts::Described(manifest), stack) => ComposeProject {
            name: Some(manifest.project.clone()).filter(|name| !name.is_empty()),
            files: stack.map_or_else(
                || recorded(&manifest.files),
                |stack| stack.compose.files.clone(),
            ),
            env_files: stack.map_or_else(
                || recorded(&manifest.env_files),
                |stack| stack.compose.env_files.clone(),
            ),
            dir,
            engine: host::engine_of(facts, stack).clone(),
        },
    };
    let holds = |path: &Path| match facts {
        ArchiveFacts::Described(manifest) => path
            .to_str()
            .is_some_and(|path| tree_of(manifest, path).is_some()),
        ArchiveFacts::Guessed(_) => false,
    };
    for file in compose.files.iter().chain(&compose.env_files) {
        let path = compose.dir.join(file);
        ensure!(
            path.starts_with(&compose.dir) || path.exists() || holds(&path),
            "{} does not exist, and is not in the archive: put it there first, or unpack with --to",
            path.display()
        );
    }
    Ok(compose)
}

/// Returns the running containers, and the services that have none of them. If
/// nothing runs, no service is idle: none is to be treated differently.
fn by_state(containers: &[Container]) -> (Vec<WasRunning>, BTreeSet<String>) {
    let running = WasRunning::all(containers);
    let is_idle = |c: &&Container| running.iter().all(|was| was.service != c.service);
    let own = containers.iter().filter(|c| !c.one_off);
    let idle = own.filter(is_idle).map(|c| c.service.clone());
    let idle = match running.is_empty() {
        true => BTreeSet::new(),
        false => idle.collect(),
    };
    (running, idle)
}
