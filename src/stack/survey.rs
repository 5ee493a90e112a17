//! Looks at a stack, changing nothing: which project it is, what runs, what
//! there is to archive.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::{self, ComposeConfig, ComposeProject, Container, Image, Volume};
use crate::outcome::MountCoverage;
use crate::scan::Source;
use crate::stack::coverage::{self, Mounts, Tree};
use crate::stack::running::{StateBefore, WasRunning};
use crate::sys::paths::without_symlinks;

/// What a stack is at this moment.
#[derive(Debug)]
pub struct Survey {
    /// With the project's name filled in.
    pub compose: ComposeProject,
    pub project: String,
    /// `None` when the compose file cannot be read.
    pub config: Option<ComposeConfig>,
    /// All containers of the project's services, running or not.
    pub containers: Vec<Container>,
    /// With the numbers they will have when they are started again.
    pub running: Vec<WasRunning>,
    /// As configured, or `stop` where `down` could not be undone.
    pub stop_method: StopMethod,
    pub trees: Vec<Tree>,
    pub volumes: Vec<Volume>,
    pub images: Vec<Image>,
    pub coverage: Vec<MountCoverage>,
    pub warnings: Vec<String>,
}

impl Survey {
    /// Names of the services that run, each once, sorted.
    pub fn services(&self) -> Vec<String> {
        let services: BTreeSet<&String> = self.running.iter().map(|was| &was.service).collect();
        services.into_iter().cloned().collect()
    }

    /// The trees that are to be archived, as handles.
    pub fn open_sources(&self) -> Result<Vec<Source>> {
        let trees = self.trees.iter();
        trees
            .map(|tree| Source::open(tree.prefix.as_str(), &tree.path))
            .collect()
    }

    /// # Errors
    /// When it cannot be told which project is meant, or something that must
    /// be archived cannot be.
    pub fn of(stack: &StackPlan) -> Result<Survey> {
        let mut warnings = Vec::new();
        if !stack.dir().is_dir() {
            bail!(
                "the stack's directory {} does not exist",
                stack.dir().display()
            );
        }
        engine::refuse_podman()?;
        let config = stack.compose.config();
        let everywhere = engine::compose_containers(None)?;
        let named = config.as_ref().ok().map(|config| config.name.as_str());
        let project = find_project(&stack.compose, named, &everywhere)?;
        let (project, config) = match (project, config) {
            (Some(project), Ok(config)) if config.name == project => (project, Some(config)),
            // The file speaks of another project than the one that runs.
            (Some(project), Ok(_)) => {
                let named = ComposeProject {
                    name: Some(project.clone()),
                    ..stack.compose.clone()
                };
                (project, Some(named.config()?))
            }
            (Some(project), Err(error)) => {
                warnings.push(format!(
                    "the compose file cannot be read, what runs is taken from its containers: \
                     {error:#}"
                ));
                (project, None)
            }
            (None, Ok(config)) => (config.name.clone(), Some(config)),
            (None, Err(error)) => return Err(error),
        };
        let containers: Vec<Container> = everywhere
            .into_iter()
            .filter(|c| c.project == project)
            .collect();
        let mut running: Vec<WasRunning> = containers
            .iter()
            .filter(|c| !c.one_off)
            .filter_map(WasRunning::of)
            .collect();
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

/// Which project a stack is: as configured; else the one that runs from its
/// directory; else the name Compose gives it. `None` when nothing is there to
/// tell it: no container, and no name that Compose gives it.
pub fn find_project(
    compose: &ComposeProject,
    named: Option<&str>,
    everywhere: &[Container],
) -> Result<Option<String>> {
    if let Some(name) = &compose.name {
        return Ok(Some(name.clone()));
    }
    let dir = without_symlinks(&compose.dir);
    let from_here = |c: &&Container| without_symlinks(&c.working_dir) == dir && !c.one_off;
    let names = |containers: &mut dyn Iterator<Item = &Container>| -> BTreeSet<String> {
        containers.map(|c| c.project.clone()).collect()
    };
    let runs = |c: &&Container| WasRunning::of(c).is_some();
    let running_here = names(&mut everywhere.iter().filter(from_here).filter(runs));
    let project = match (running_here.len(), named) {
        (0, Some(name)) => name.to_owned(),
        (0, None) => {
            // Nothing runs: a stopped stack may still tell its name.
            let here = names(&mut everywhere.iter().filter(from_here));
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
    // Compose would take a project of the same name for this one, and so
    // another stack would be stopped.
    let stranger = everywhere
        .iter()
        .filter(|c| c.project == project && runs(c))
        .find(|c| without_symlinks(&c.working_dir) != dir);
    if let Some(stranger) = stranger {
        bail!(
            "project {project} runs from {}, not from {}: set `project` to say that it is the \
             one that is meant",
            stranger.working_dir.display(),
            compose.dir.display()
        );
    }
    Ok(Some(project))
}

/// `down` removes containers, and only `up` can make them anew: it needs a
/// compose file that knows every service that runs.
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
            "stopped by `stop`, not `down`: the compose file does not have service {}",
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

/// The Engine pauses no container that waits for its restart.
fn pause_or_stop(running: &[WasRunning], warnings: &mut Vec<String>) -> StopMethod {
    let restarting = running
        .iter()
        .find(|was| was.before == StateBefore::Restarting);
    let Some(restarting) = restarting else {
        return StopMethod::Pause;
    };
    warnings.push(format!(
        "stopped by `stop`, not `pause`: {} keeps restarting",
        restarting.name
    ));
    StopMethod::Stop
}

/// Compose runs these hooks around its own stop and start only.
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

/// `up` numbers a service's containers from 1, whichever of them ran before.
fn number_from_one(containers: &mut [WasRunning]) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for container in containers {
        let count = counts.entry(container.service.clone()).or_default();
        *count += 1;
        container.number = *count;
    }
}
