//! Looks at a stack and changes nothing: which Compose project it is, what runs,
//! and what is to be archived.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use anyhow::{Result, bail};

use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::{self, ComposeConfig, ComposeProject, Container, Image, Status, Volume};
use crate::outcome::MountCoverage;
use crate::scan::Source;
use crate::stack::coverage::{self, Mounts, Tree};
use crate::stack::running::{StateBefore, WasRunning};
use crate::sys::paths::without_symlinks;
use crate::sys::threads::spawn_or_run;

/// A stack as it is at this moment.
#[derive(Debug)]
pub struct Survey {
    /// The configured options, with the project's name filled in.
    pub compose: ComposeProject,
    pub project: String,
    /// `None` when the compose file cannot be read.
    pub config: Option<ComposeConfig>,
    /// All containers of the project's services, running or not.
    pub containers: Vec<Container>,
    /// The containers that run, with the replica numbers that they will have when
    /// they are started again.
    pub running: Vec<WasRunning>,
    /// The configured method, or `stop` where that method is not possible.
    pub stop_method: StopMethod,
    pub trees: Vec<Tree>,
    pub volumes: Vec<Volume>,
    pub images: Vec<Image>,
    pub coverage: Vec<MountCoverage>,
    pub warnings: Vec<String>,
}

impl Survey {
    /// Returns the names of the services that run, each once, sorted.
    pub fn services(&self) -> Vec<String> {
        let services: BTreeSet<&String> = self.running.iter().map(|was| &was.service).collect();
        services.into_iter().cloned().collect()
    }

    /// Opens the trees that are to be archived.
    pub fn open_sources(&self) -> Result<Vec<Source>> {
        let trees = self.trees.iter();
        trees
            .map(|tree| Source::open(tree.prefix.as_str(), &tree.path))
            .collect()
    }

    /// Looks at a stack.
    ///
    /// # Errors
    /// When it is not clear which project is meant, or something that must be
    /// archived cannot be read.
    pub fn of(stack: &StackPlan) -> Result<Survey> {
        let mut warnings = Vec::new();
        if !stack.dir().is_dir() {
            bail!(
                "the stack's directory {} does not exist",
                stack.dir().display()
            );
        }
        engine::refuse_podman()?;
        let (config, all_containers) = thread::scope(|scope| {
            let span = tracing::Span::current();
            let list = move || span.in_scope(|| engine::compose_containers(None));
            let listing = spawn_or_run(scope, list);
            (stack.compose.config(), listing.join())
        });
        let all_containers = all_containers?;
        let named = config.as_ref().ok().map(|config| config.name.as_str());
        let project = find_project(&stack.compose, named, &all_containers)?;
        let (project, config) = match (project, config) {
            (Some(project), Ok(config)) if config.name == project => (project, Some(config)),
            // The project that runs has another name than the one in the file.
            (Some(project), Ok(_)) => {
                let named = ComposeProject {
                    name: Some(project.clone()),
                    ..stack.compose.clone()
                };
                (project, Some(named.config()?))
            }
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
        let containers: Vec<Container> = all_containers
            .into_iter()
            .filter(|c| c.project == project)
            .collect();
        let mut running = WasRunning::all(&containers);
        warnings.extend(running.iter().filter_map(state_warning));
        if let Some(config) = &config {
            warnings.extend(hook_warnings(config, &running));
        }
        let stop_method = stop_method(stack, config.as_ref(), &containers, &running, &mut warnings);
        if stop_method == StopMethod::Down {
            number_from_one(&mut running);
        }
        let mut mounts = Mounts::collect(&containers, config.as_ref());
        for volume in engine::project_volumes(&project)? {
            mounts.add_volume(&volume, None);
        }
        let volumes = engine::volumes(&mounts.volumes.keys().cloned().collect())?;
        warnings.extend(coverage::missing_volumes(stack, &mounts, &volumes));
        let (trees, coverage) = coverage::decide(stack, &project, &mounts, &volumes)?;
        warnings.extend(coverage::files_outside(&stack.compose, &trees));
        let images = engine::images(&containers.iter().map(|c| c.image_id.clone()).collect())?;
        Ok(Survey {
            compose: ComposeProject {
                name: Some(project.clone()),
                ..stack.compose.clone()
            },
            project,
            config,
            containers,
            running,
            stop_method,
            trees,
            volumes,
            images,
            coverage,
            warnings,
        })
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
    let from_here = |c: &&Container| without_symlinks(&c.working_dir) == dir && !c.one_off;
    let names = |containers: &mut dyn Iterator<Item = &Container>| -> BTreeSet<String> {
        containers.map(|c| c.project.clone()).collect()
    };
    let runs = |c: &&Container| c.status != Status::Stopped;
    let running_here = names(&mut all_containers.iter().filter(from_here).filter(runs));
    let project = match (running_here.len(), named) {
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

/// Returns the configured stop method if it is possible, else `stop`. `down`
/// removes containers. Only `up` can recreate them, and for that the compose file
/// must have every service that runs.
fn stop_method(
    stack: &StackPlan,
    config: Option<&ComposeConfig>,
    containers: &[Container],
    running: &[WasRunning],
    warnings: &mut Vec<String>,
) -> StopMethod {
    match stack.stop_method {
        StopMethod::Stop => return StopMethod::Stop,
        StopMethod::Pause => return pause_or_stop(running, warnings),
        StopMethod::Down => {}
    }
    let knows = |service: &String| config.is_some_and(|c| c.services.contains_key(service));
    if let Some(unknown) = running.iter().find(|was| !knows(&was.service)) {
        warnings.push(format!(
            "stopped by `stop` instead of `down`: the compose file does not have service {}",
            unknown.service
        ));
        return StopMethod::Stop;
    }
    let anonymous = containers
        .iter()
        .flat_map(|c| &c.mounts)
        .filter(|mount| mount.is_anonymous());
    for mount in anonymous {
        warnings.push(format!(
            "`down` leaves the anonymous volume at {} behind, and `up` makes an empty one",
            mount.destination
        ));
    }
    StopMethod::Down
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
