//! Looks at a stack and changes nothing: which Compose project it is, what runs,
//! and what is to be archived.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::{ComposeConfig, ComposeProject, Container, Image, Network, Status, Volume};
use crate::outcome::MountCoverage;
use crate::scan::{Boundary, Source};
use crate::stack::advice::Advisor;
use crate::stack::compose_files;
use crate::stack::coverage::{self, Mounts, Tree};
use crate::stack::elsewhere;
use crate::stack::neighbours::Neighbours;
use crate::stack::paths;
use crate::stack::remade;
use crate::stack::running::{self, StateBefore, WasRunning};
use crate::stack::unit_containers::{self, CheckedContainer};
use crate::stack::units::{UnitSet, WasActive};
use crate::sys::mounts;
use crate::sys::paths::without_symlinks;
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
    /// Whether the Engines of the other stacks have answered.
    pub neighbours_answer: bool,
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
            false => Survey::of_project(stack),
        }
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
        let neighbours_answer = neighbours.warnings.is_empty();
        all_containers.extend(neighbours.containers);
        let warnings = set.warnings().into_iter().chain(unseen);
        let warnings = warnings.chain(neighbours.warnings);
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
            neighbours_answer,
            warnings: warnings.collect(),
            containers,
        })
    }

    fn of_project(stack: &StackPlan) -> Result<Survey> {
        let mut warnings = Vec::new();
        if !stack.dir().is_dir() {
            bail!(
                "the stack's directory {} does not exist",
                stack.dir().display()
            );
        }
        let engine = &stack.compose.engine;
        engine.check()?;
        let (config, all_containers) = thread::scope(|scope| {
            let span = tracing::Span::current();
            let list = move || span.in_scope(|| engine.containers());
            let listing = spawn_or_run(scope, list);
            (stack.compose.config(), listing.join())
        });
        let mut all_containers = all_containers?;
        let config = config.and_then(|config| {
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
        let neighbours_answer = neighbours.warnings.is_empty();
        warnings.extend(neighbours.warnings);
        all_containers.extend(neighbours.containers);
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
            neighbours_answer,
            boundary,
            warnings,
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

/// Where a stack's containers were started.
struct StackPlace {
    dir: PathBuf,
    files: Vec<PathBuf>,
}

impl StackPlace {
    fn of(compose: &ComposeProject) -> StackPlace {
        let files = compose.files.iter();
        StackPlace {
            dir: without_symlinks(&compose.dir),
            files: files
                .map(|file| without_symlinks(&compose.dir.join(file)))
                .collect(),
        }
    }

    fn has(&self, container: &Container) -> bool {
        !container.one_off
            && without_symlinks(&container.working_dir) == self.dir
            && self.is_of_files(container)
    }

    /// Two stacks may have one directory, and files of their own in it.
    fn is_of_files(&self, container: &Container) -> bool {
        let used = &container.config_files;
        let mut real = used.iter().map(|file| without_symlinks(file));
        self.files.is_empty() || used.is_empty() || real.any(|file| self.files.contains(&file))
    }
}

/// Returns the projects that a stack may be: the one that [`find_project`] finds, or all
/// that run from its place if it cannot tell which is meant.
pub fn projects_of(
    compose: &ComposeProject,
    named: Option<&str>,
    all_containers: &[Container],
) -> BTreeSet<String> {
    match find_project(compose, named, all_containers) {
        Ok(found) => found.into_iter().collect(),
        Err(_) => {
            let place = StackPlace::of(compose);
            let here = all_containers.iter().filter(|c| place.has(c));
            here.map(|c| c.project.clone()).collect()
        }
    }
}

/// Finds a stack's project: the configured one, else the one that runs from its
/// directory, else `named`, the name that Compose would give it, else the one
/// that has stopped containers from its directory. `None` if there is none of
/// these.
///
/// # Errors
/// When several projects run from the directory, or the project runs from
/// another directory.
pub fn find_project(
    compose: &ComposeProject,
    named: Option<&str>,
    all_containers: &[Container],
) -> Result<Option<String>> {
    if let Some(name) = &compose.name {
        return Ok(Some(name.clone()));
    }
    let dir = without_symlinks(&compose.dir);
    let place = StackPlace::of(compose);
    let from_here = |c: &&Container| place.has(c);
    let names = |containers: &mut dyn Iterator<Item = &Container>| -> BTreeSet<String> {
        containers.map(|c| c.project.clone()).collect()
    };
    let runs = |c: &&Container| c.status != Status::Stopped;
    let running_here = names(&mut all_containers.iter().filter(from_here).filter(runs));
    let project = match (running_here.len(), named) {
        (_, Some(name)) if running_here.contains(name) => name.to_owned(),
        (0, Some(name)) => name.to_owned(),
        (0, None) => {
            // Nothing runs, but stopped containers have the project's name, too.
            let here = names(&mut all_containers.iter().filter(from_here));
            match here.into_iter().next() {
                Some(name) => name,
                None => return Ok(None),
            }
        }
        (1, _) => running_here.into_iter().next().unwrap_or_default(),
        _ => bail!(
            "several projects run from {} ({}): set `project` to the one that is meant",
            compose.dir.display(),
            running_here.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    // Another stack would be stopped: to Compose, a project of the same name is
    // the same project.
    let other = all_containers
        .iter()
        .filter(|c| c.project == project && runs(c))
        .find(|c| without_symlinks(&c.working_dir) != dir);
    if let Some(other) = other {
        bail!(
            "project {project} runs from {}, not from {}: if it is meant nevertheless, set \
             `project`",
            other.working_dir.display(),
            compose.dir.display()
        );
    }
    Ok(Some(project))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_projects_in_one_directory_are_told_apart_by_name_or_file() {
        let container = |name: &str| {
            let label = |key: &str| format!("com.docker.compose.{key}");
            Container::from_json(json!({
                "Id": name, "Name": format!("/{name}"), "Image": "i",
                "State": {"Status": "running", "StartedAt": "", "ExitCode": 0},
                "Config": {"Labels": {
                    label("project"): name,
                    label("project.working_dir"): "/no-such",
                    label("project.config_files"): format!("/no-such/{name}.yml"),
                }},
                "HostConfig": {},
            }))
        };
        let find = |files: &[&str], named: Option<&str>, containers: &[Container]| {
            let compose = ComposeProject {
                dir: "/no-such".into(),
                name: None,
                files: files.iter().map(PathBuf::from).collect(),
                env_files: Vec::new(),
                engine: Default::default(),
            };
            let found = find_project(&compose, named, containers);
            found.map_err(|error| error.to_string())
        };
        let both = [container("one"), container("two")];
        let two = Ok(Some("two".to_owned()));
        assert_eq!(
            find(&[], Some("two"), &both),
            two,
            "by the name in the file"
        );
        assert_eq!(find(&["two.yml"], None, &both), two, "by the file");
        assert_eq!(
            find(&["two.yml"], Some("two"), &both[..1]),
            two,
            "it is down"
        );
        // The controls.
        let started_with_p = find(&["one.yml"], Some("other"), &both[..1]);
        assert_eq!(started_with_p, Ok(Some("one".to_owned())));
        assert!(
            find(&[], None, &both)
                .unwrap_err()
                .contains("several projects")
        );
    }
}
