//! Looks at a stack and changes nothing: which Compose project it is, what runs,
//! and what is to be archived.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::{ComposeConfig, ComposeProject, Container, Image, Network, Volume};
use crate::outcome::MountCoverage;
use crate::scan::{Boundary, Source};
use crate::stack::advice::Advisor;
use crate::stack::compose_files;
use crate::stack::coverage::{self, Mounts, Tree};
use crate::stack::elsewhere;
use crate::stack::labels;
use crate::stack::neighbours::Neighbours;
use crate::stack::paths;
use crate::stack::project::find_project;
use crate::stack::remade;
use crate::stack::running::{self, StateBefore, WasRunning};
use crate::stack::unit_containers::{self, CheckedContainer};
use crate::stack::units::{UnitSet, WasActive};
use crate::sys::mounts;
use crate::sys::systemd;
use crate::sys::threads::spawn_or_run;

/// A stack as it is at this moment.
#[derive(Debug)]
pub struct Survey {
    /// The configured options, with the project's name filled in.
    pub compose: ComposeProject,
    pub project: String,
    /// `None` when the compose file cannot be read.
    pub config: Option<ComposeConfig>,
    /// All containers of the project's services, running or not; or those that the
    /// stack's units run, each as a service of its own name.
    pub containers: Vec<Container>,
    /// The containers that run, with the replica numbers that they will have when
    /// they are started again. Containers that share a namespace or volumes with
    /// them are among them, whatever project they are of.
    pub running: Vec<WasRunning>,
    /// The units that run and are stopped. A stack that has them has no project.
    pub units: Vec<WasActive>,
    /// The containers of the units whose health is waited for after the start.
    pub unit_containers: Vec<CheckedContainer>,
    /// How long the units may take to stop.
    pub unit_stop_limit: Duration,
    /// Why nothing must be stopped, if there is a reason.
    pub obstacle: Option<String>,
    /// The networks of these containers.
    pub networks: Vec<Network>,
    /// The configured method, or `stop` where that method is not possible.
    pub stop_method: StopMethod,
    pub trees: Vec<Tree>,
    pub volumes: Vec<Volume>,
    pub images: Vec<Image>,
    pub coverage: Vec<MountCoverage>,
    /// What the Engines of the other stacks say.
    pub neighbours: Neighbours,
    /// What containers write to.
    boundary: Boundary,
    pub warnings: Vec<String>,
}

impl Survey {
    /// Returns the names of the services that run, each once, sorted; or those of the
    /// units.
    pub fn services(&self) -> Vec<String> {
        match self.units.is_empty() {
            true => running::services(&self.running),
            false => self.units.iter().map(|was| was.name.clone()).collect(),
        }
    }

    /// Whether nothing of the stack runs.
    pub fn is_down(&self) -> bool {
        self.running.is_empty() && self.units.is_empty()
    }

    /// Returns the names of what is stopped and started again.
    pub fn stopped_names(&self) -> Vec<String> {
        let containers = self.running.iter().map(|was| was.name.clone());
        let units = self.units.iter().map(|was| was.name.clone());
        containers.chain(units).collect()
    }

    /// Returns the ids of the containers that end with the stack.
    pub fn own_ids(&self) -> Vec<&str> {
        match self.units.is_empty() {
            true => self.running.iter().map(|was| was.id.as_str()).collect(),
            false => self.containers.iter().map(|c| c.id.as_str()).collect(),
        }
    }

    /// Opens the trees that are to be archived.
    pub fn open_sources(&self) -> Result<Vec<Source>> {
        let trees = self.trees.iter();
        trees.map(|tree| tree.open(&self.boundary)).collect()
    }

    /// Looks at a stack.
    ///
    /// # Errors
    /// When it is not clear which project is meant, or something that must be
    /// archived cannot be read.
    pub fn of(stack: &StackPlan) -> Result<Survey> {
        match stack.is_of_units() {
            true => Survey::of_units(stack),
            false => Survey::of_project(stack, FirstLook::of(stack)?),
        }
    }

    /// Looks at a stack of which only the configuration is known. Also returns its plan with
    /// what the labels of its services add.
    ///
    /// # Errors
    /// Also when labels are wrong or contradict the configuration.
    pub fn with_labels(stack: &StackPlan) -> Result<(StackPlan, Survey)> {
        if stack.is_of_units() {
            return Ok((stack.clone(), Survey::of_units(stack)?));
        }
        let found = FirstLook::of(stack)?;
        let stack = labels::with_labels(stack, &found.containers)?;
        let survey = Survey::of_project(&stack, found)?;
        Ok((stack, survey))
    }

    /// Looks at the units of a stack while they run, because their containers are gone
    /// when they have stopped.
    fn of_units(stack: &StackPlan) -> Result<Survey> {
        let set = UnitSet::of(&stack.units)?;
        let engine = &stack.compose.engine;
        let asked = unit_containers::ask(engine)?;
        let as_service = |container: &Container| Container {
            service: container.name.clone(),
            ..container.clone()
        };
        let mut containers = Vec::new();
        let (mut volumes, mut images, mut checked) = (Vec::new(), Vec::new(), Vec::new());
        for (engine, all) in &asked {
            let own = set.containers(all);
            let mounted = own.iter().flat_map(|container| &container.mounts);
            let names = mounted.filter(|mount| mount.kind == "volume" && !mount.is_anonymous());
            volumes.extend(engine.volumes(&names.map(|mount| mount.name.clone()).collect())?);
            images.extend(engine.images(&own.iter().map(|c| c.image_id.clone()).collect())?);
            checked.extend(CheckedContainer::all(engine, own.iter().copied()));
            containers.extend(own.into_iter().map(as_service));
        }
        let unseen = unit_containers::unseen(&set, &asked);
        let mut all_containers: Vec<Container> =
            asked.into_iter().flat_map(|(_, all)| all).collect();
        let (trees, coverage) = paths::decide(stack, &containers, &mounts::all()?)?;
        let own_unit = systemd::own_unit();
        let neighbours = Neighbours::of(stack);
        all_containers.extend_from_slice(&neighbours.containers);
        let warnings = set.warnings().into_iter().chain(unseen);
        let warnings = warnings.chain(neighbours.warnings.clone());
        let obstacle = set
            .obstacle(own_unit.as_deref())
            .or_else(|| paths::lost_by_stop(stack, &containers));
        Ok(Survey {
            compose: stack.compose.clone(),
            project: String::new(),
            config: None,
            running: Vec::new(),
            units: set.active(),
            unit_containers: checked,
            unit_stop_limit: set.stop_limit(),
            obstacle,
            networks: Vec::new(),
            stop_method: StopMethod::Stop,
            trees,
            boundary: coverage::boundary(engine, &all_containers, &volumes).following_root_only(),
            volumes,
            images,
            coverage,
            warnings: warnings.collect(),
            neighbours,
            containers,
        })
    }

    fn of_project(stack: &StackPlan, found: FirstLook) -> Result<Survey> {
        let mut warnings = Vec::new();
        let engine = &stack.compose.engine;
        let mut all_containers = found.containers;
        let config = found.config.and_then(|config| {
            refuse_misled(&stack.compose, &config, &all_containers)?;
            Ok(config)
        });
        let named = config.as_ref().ok().map(|config| config.name.as_str());
        let project = find_project(&stack.compose, named, &all_containers)?;
        let (project, config) = match (project, config) {
            (Some(project), Ok(config)) if config.name == project => (project, Some(config)),
            // The project that runs has another name than the one in the file.
            (Some(project), Ok(_)) => {
                let config = stack.compose.named(&project).config()?;
                (project, Some(config))
            }
            (Some(project), Err(_)) if holds_no_file(stack.dir()) => bail!(
                "the stack's directory {} holds no file, although the project {project} was \
                 started from it: the disk that belongs there may not be mounted",
                stack.dir().display()
            ),
            (Some(project), Err(error)) => {
                warnings.push(format!(
                    "cannot read the compose file, so the stack is known by its containers only: \
                     {error:#}"
                ));
                (project, None)
            }
            (None, Ok(config)) => (config.name.clone(), Some(config)),
            (None, Err(error)) => return Err(error),
        };
        let compose = stack.compose.named(&project);
        let is_own = |c: &&Container| c.project == project;
        let containers: Vec<Container> = all_containers.iter().filter(is_own).cloned().collect();
        if let Some(config) = &config {
            let found = elsewhere::find(&project, config, &all_containers)?;
            warnings.extend(found);
        }
        refuse_podman_compose(&project, &containers)?;
        let mut running = WasRunning::all(&containers);
        let sharers = Sharers::of(&running, &all_containers);
        warnings.extend(running.iter().filter_map(state_warning));
        if let Some(config) = &config {
            warnings.extend(hook_warnings(config, &running));
        }
        let stop_method = stop_method(
            stack,
            config.as_ref(),
            &containers,
            &running,
            &sharers,
            &mut warnings,
        );
        if stop_method == StopMethod::Down {
            // `stop_method` has seen to it that there is a configuration.
            if let Some(config) = &config {
                remade::refuse_differences(&compose, config, &running)?;
            }
            number_from_one(&mut running);
        }
        if stop_method == StopMethod::Stop {
            running.extend(sharers.to_stop);
            warnings.extend(sharers.warnings);
        }
        let networks = engine.networks(&running::network_names(&running))?;
        let mut mounts = Mounts::collect(&containers, config.as_ref());
        for volume in engine.project_volumes(&project)? {
            mounts.add_volume(&volume, None);
        }
        let volumes = engine.volumes(&mounts.volumes.keys().cloned().collect())?;
        warnings.extend(coverage::missing_volumes(stack, &mounts, &volumes));
        // What follows is about who writes.
        let neighbours = Neighbours::of(stack);
        warnings.extend_from_slice(&neighbours.warnings);
        all_containers.extend_from_slice(&neighbours.containers);
        let boundary = coverage::boundary(engine, &all_containers, &volumes);
        let found = compose_files::of(&stack.compose, config.as_ref(), &boundary);
        let writers = coverage::project_writers(&stack.compose, &found.files, &all_containers);
        let advisor = Advisor {
            stack,
            trusts_compose_file: writers.is_empty(),
            containers: &all_containers,
            own: running.iter().map(|was| was.id.as_str()).collect(),
            mounts: &mounts::all()?,
        };
        let (trees, mut coverage) =
            coverage::decide(stack, &project, &mounts, &volumes, &found.files, &advisor)?;
        coverage.extend(coverage::misled(&found.misled));
        let images = engine.images(&containers.iter().map(|c| c.image_id.clone()).collect())?;
        warnings.extend(writers);
        Ok(Survey {
            compose,
            project,
            config,
            containers,
            running,
            units: Vec::new(),
            unit_containers: Vec::new(),
            unit_stop_limit: Duration::ZERO,
            obstacle: None,
            networks,
            stop_method,
            trees,
            volumes,
            images,
            coverage,
            neighbours,
            boundary,
            warnings,
        })
    }
}

/// What is asked for first, and the labels are looked for in.
struct FirstLook {
    /// What Compose makes of the stack's files.
    config: Result<ComposeConfig>,
    /// All containers of the stack's Engine.
    containers: Vec<Container>,
}

impl FirstLook {
    fn of(stack: &StackPlan) -> Result<FirstLook> {
        if !stack.dir().is_dir() {
            bail!(
                "the stack's directory {} does not exist",
                stack.dir().display()
            );
        }
        let engine = &stack.compose.engine;
        engine.check()?;
        thread::scope(|scope| {
            let span = tracing::Span::current();
            let list = move || span.in_scope(|| engine.containers());
            let listing = spawn_or_run(scope, list);
            Ok(FirstLook {
                config: stack.compose.config(),
                containers: listing.join()?,
            })
        })
    }
}

/// Refuses what Compose has resolved if it may have read a file of another stack, or of
/// the host, because a container put a symlink in the place of one of the stack's.
fn refuse_misled(
    compose: &ComposeProject,
    config: &ComposeConfig,
    containers: &[Container],
) -> Result<()> {
    let boundary = coverage::boundary(&compose.engine, containers, &[]);
    let found = compose_files::of(compose, Some(config), &boundary);
    match found.misled.into_values().next() {
        Some(reason) => bail!("Compose reads a file that is not the stack's: {reason}"),
        None => Ok(()),
    }
}

/// Refuses a project that podman-compose has made. It does not record the order of the
/// services as Compose does, and Compose would make all of its containers anew.
fn refuse_podman_compose(project: &str, containers: &[Container]) -> Result<()> {
    if containers
        .iter()
        .any(|container| container.is_of_podman_compose)
    {
        bail!(
            "project {project} was started by podman-compose, which does not record the order of \
             its services: take it down with podman-compose, and start it with `docker compose up \
             -d`, or with `podman compose` where that runs docker-compose"
        );
    }
    Ok(())
}

/// Whether a directory holds nothing but directories. That is what is left of a stack
/// whose disk is not mounted: the Engine makes the directories that containers mount.
fn holds_no_file(dir: &Path) -> bool {
    let is_dir = |entry: io::Result<DirEntry>| entry?.file_type().map(|kind| kind.is_dir());
    fs::read_dir(dir).is_ok_and(|mut entries| entries.all(|entry| is_dir(entry).unwrap_or(false)))
}

/// Returns the configured stop method if it is possible, else `stop`.
fn stop_method(
    stack: &StackPlan,
    config: Option<&ComposeConfig>,
    containers: &[Container],
    running: &[WasRunning],
    sharers: &Sharers,
    warnings: &mut Vec<String>,
) -> StopMethod {
    match stack.stop_method.unwrap_or_default() {
        StopMethod::Stop => return StopMethod::Stop,
        StopMethod::Pause => return pause_or_stop(running, warnings),
        StopMethod::Down => {}
    }
    let Some(obstacle) = obstacle_to_down(config, containers, running, sharers) else {
        return StopMethod::Down;
    };
    warnings.push(format!("stopped by `stop` instead of `down`: {obstacle}"));
    StopMethod::Stop
}

/// Says why a stack cannot be stopped by `down`, which removes containers, or could
/// not be started after it: only `up` can recreate them.
fn obstacle_to_down(
    config: Option<&ComposeConfig>,
    containers: &[Container],
    running: &[WasRunning],
    sharers: &Sharers,
) -> Option<String> {
    let knows = |service: &String| config.is_some_and(|c| c.services.contains_key(service));
    if let Some(unknown) = running.iter().find(|was| !knows(&was.service)) {
        let service = &unknown.service;
        return Some(format!("the compose file does not have service {service}"));
    }
    if let Some(sharer) = sharers.to_stop.first() {
        return Some(format!(
            "{} shares a namespace or volumes with a container that `down` would remove",
            sharer.name
        ));
    }
    // Compose 2.26 then fails with `could not find SERVICE: not found`.
    let has_container = |service: &String| containers.iter().any(|c| c.service == *service);
    containers.iter().find_map(|container| {
        let mut needed = container.depends_on.iter();
        let absent = needed.find(|needed| !has_container(&needed.service))?;
        Some(format!(
            "Compose cannot remove {} while {}, on which it depends, has no container; \
             `docker compose up -d` makes one",
            container.name, absent.service
        ))
    })
}

/// Containers of other projects, or of none, that share a namespace or volumes
/// with a stack. When the stack is stopped, they lose their network, or end.
#[derive(Default)]
struct Sharers {
    /// They are stopped before the stack, and started after it.
    to_stop: Vec<WasRunning>,
    warnings: Vec<String>,
}

impl Sharers {
    fn of(running: &[WasRunning], all_containers: &[Container]) -> Sharers {
        let mut sharers = Sharers::default();
        let mut joined: Vec<WasRunning> = running.to_vec();
        let mut next = 0;
        while next < joined.len() {
            for container in all_containers {
                let Some(before) = StateBefore::of(container) else {
                    continue;
                };
                let sharer = WasRunning {
                    other_project: Some(container.project.clone()),
                    ..WasRunning::with_state(container, before)
                };
                let is_known = joined.iter().any(|known| known.id == sharer.id);
                if is_known || !sharer.joins(&joined[next]) {
                    continue;
                }
                if container.is_removed_at_end || container.one_off {
                    sharers.warnings.push(format!(
                        "{} shares a namespace or volumes with {}, and may lose its network or \
                         end when that is stopped; it is not started again, because it was made \
                         for one run only",
                        sharer.name, joined[next].name
                    ));
                } else {
                    sharers.to_stop.push(sharer.clone());
                }
                joined.push(sharer);
            }
            next += 1;
        }
        sharers
    }
}

/// Returns `pause`, or `stop` if a container is in a restart loop: the Engine
/// pauses no container that waits for its restart.
fn pause_or_stop(running: &[WasRunning], warnings: &mut Vec<String>) -> StopMethod {
    let restarting = running
        .iter()
        .find(|was| was.before == StateBefore::Restarting);
    let Some(restarting) = restarting else {
        return StopMethod::Pause;
    };
    warnings.push(format!(
        "stopped by `stop` instead of `pause`: {} keeps restarting",
        restarting.name
    ));
    StopMethod::Stop
}

/// Warns of a container that does not work even before it is stopped, so that
/// nobody takes the backup for the cause.
fn state_warning(was: &WasRunning) -> Option<String> {
    match was.before {
        StateBefore::Unhealthy => Some(format!("{} is unhealthy", was.name)),
        StateBefore::Restarting => Some(format!("{} keeps restarting", was.name)),
        _ => None,
    }
}

/// Warns of services with hooks, because Compose runs these only around its own
/// stop and start.
fn hook_warnings(config: &ComposeConfig, running: &[WasRunning]) -> Vec<String> {
    let services = config.services.iter().filter(|(name, service)| {
        running.iter().any(|was| was.service == **name)
            && !(service.post_start.is_empty() && service.pre_stop.is_empty())
    });
    let warning = |(name, _): (&String, _)| {
        format!("service {name}: its post_start and pre_stop hooks are not run")
    };
    services.map(warning).collect()
}

/// Numbers the containers of each service from 1, as `up` does, whatever their
/// numbers were before.
fn number_from_one(containers: &mut [WasRunning]) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for container in containers {
        let count = counts.entry(container.service.clone()).or_default();
        *count += 1;
        container.number = *count;
    }
}
