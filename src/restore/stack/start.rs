//! Starting what was restored: what an archive without a manifest leaves
//! open, and containers as the compose file describes them now.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LOAD_THEM, Restore, images_are_missing};
use crate::archive::ServiceImage;
use crate::engine::{self, ComposeConfig, ComposeProject, Container, Status};
use crate::restore::host::missing_images;
use crate::stack::driver;
use crate::stack::journal;
use crate::stack::running::{StateBefore, WasRunning, replicas};
use crate::stack::survey::find_project;

impl Restore<'_> {
    /// With an archive that does not tell, the compose file that is unpacked
    /// tells what will be started.
    ///
    /// # Errors
    /// When that cannot succeed, for which nothing that runs is to be stopped.
    pub(super) fn refuse_unstartable(&self) -> Result<()> {
        let Some(project) = &self.entry.project else {
            // Only where it will lie does the file tell its project, and with it
            // the names of images that Compose builds; and nothing runs.
            return Ok(());
        };
        let config = self
            .unpacked_compose()
            .config()
            .context("look at what is unpacked")?;
        let image = |service: String| {
            let of_file = config.services.get(&service)?.image.clone();
            Some(ServiceImage {
                reference: of_file.unwrap_or_else(|| format!("{project}-{service}")),
                service,
                id: String::new(),
                digests: Vec::new(),
            })
        };
        let services = with_dependencies(self.services_of(&config), &config.json);
        let images: Vec<ServiceImage> = services.into_iter().filter_map(image).collect();
        let missing = missing_images(&images)?;
        ensure!(
            missing.is_empty(),
            "{}; {LOAD_THEM}",
            images_are_missing(&missing)
        );
        Ok(())
    }

    /// The stack as it lies beside its directory.
    fn unpacked_compose(&self) -> ComposeProject {
        let compose = &self.entry.compose;
        let unpacked = self.entry.targets.first().map(|target| target.staging());
        let dir = unpacked.unwrap_or_else(|| compose.dir.clone());
        let moved = |file: &PathBuf| match file.strip_prefix(&compose.dir) {
            Ok(within) => dir.join(within),
            Err(_) => file.clone(),
        };
        ComposeProject {
            name: compose.name.clone(),
            files: compose.files.iter().map(moved).collect(),
            env_files: compose.env_files.iter().map(moved).collect(),
            dir,
        }
    }

    /// What is to be started of a compose file: as `up` would, but not what is
    /// left down now.
    fn services_of(&self, config: &ComposeConfig) -> Vec<String> {
        let runs = |name: &String| self.running.iter().any(|was| was.service == *name);
        let services = config.services.iter().filter(|(name, service)| {
            runs(name)
                || (service.profiles.is_empty()
                    && service.replicas() > 0
                    && !self.idle.contains(*name))
        });
        services.map(|(name, _)| name.clone()).collect()
    }

    /// Adds to a made-up manifest what the restored compose file tells.
    fn complete_manifest(&mut self) -> Result<()> {
        let config = self.entry.compose.config()?;
        if self.entry.project.is_none() {
            let everywhere = engine::compose_containers(None)?;
            let project = find_project(&self.entry.compose, Some(&config.name), &everywhere)?;
            let project = project.context("find the project")?;
            let own = everywhere.iter().filter(|c| c.project == project);
            self.entry.note_containers(own);
            self.manifest.project.clone_from(&project);
            self.entry.compose.name = Some(project.clone());
            self.entry.project = Some(project);
        }
        let volumes = config.volumes.values().filter(|volume| !volume.external);
        let volumes: BTreeSet<String> = volumes.map(|volume| volume.name.clone()).collect();
        let present = engine::volumes(&volumes)?;
        let is_missing = |name: &String| present.iter().all(|volume| volume.name != *name);
        for name in volumes.into_iter().filter(is_missing) {
            self.warnings.push(format!(
                "volume {name} was not there, and is not in the archive: it is new and empty"
            ));
            self.entry.new_volumes.push(name);
        }
        self.entry.write(self.state_dir)?;
        self.manifest.running = self.services_of(&config);
        // The file's number, but for what runs although that is none.
        let is_none = |service: &str| {
            let described = config.services.get(service);
            described.is_some_and(|service| service.replicas() == 0)
        };
        self.manifest.replicas = replicas(&self.running);
        self.manifest.replicas.retain(|service, _| is_none(service));
        let gone = self.running.iter().map(|was| &was.service);
        let gone: BTreeSet<&String> = gone
            .filter(|service| !config.services.contains_key(*service))
            .collect();
        self.warnings.extend(gone.into_iter().map(|service| {
            format!("service {service} ran, but the restored compose file does not have it")
        }));
        self.manifest.compose = config.json;
        Ok(())
    }

    /// Starts the services that ran when the archive was made.
    pub(super) fn start(&mut self) -> Result<Vec<String>> {
        if self.manifest.is_stand_in {
            self.complete_manifest()
                .context("look at what was restored")?;
        }
        let services = &self.manifest.running;
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let mut replicas = self.manifest.replicas.clone();
        replicas.retain(|service, _| services.contains(service));
        self.entry
            .compose
            .create(services, &replicas)
            .context("create the containers")?;
        let containers = engine::compose_containers(Some(&self.manifest.project))?;
        let mine = |c: &&Container| !c.one_off && services.contains(&c.service);
        let mut started: Vec<WasRunning> = containers
            .iter()
            .filter(mine)
            .map(|c| as_running(c, &self.manifest.compose))
            .collect();
        for service in services {
            ensure!(
                started.iter().any(|was| was.service == *service),
                "service {service} has no container"
            );
        }
        tracing::info!(services = services.join(" "), "starting");
        let mut entry = self.journal_entry(started.clone(), journal::StopProgress::Stopped);
        self.warnings.extend(driver::start(&entry, &self.signals)?);
        // Only a container that runs tells of a health check in its image.
        let containers = engine::compose_containers(Some(&self.manifest.project))?;
        for was in &mut started {
            if was
                .find(&containers)
                .is_some_and(|c| c.health.is_some_and(|h| h != engine::Health::None))
            {
                was.before = StateBefore::Healthy;
            }
        }
        // A job that has ended is not to run twice.
        started.retain(|was| {
            was.find(&containers)
                .is_none_or(|c| c.status != Status::Stopped || c.exit_code != 0)
        });
        entry.containers = started;
        self.warnings.extend(driver::start(&entry, &self.signals)?);
        Ok(services.clone())
    }
}

/// Containers are made of all that a service depends on.
pub(super) fn with_dependencies(services: Vec<String>, compose: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut rest = services;
    while let Some(service) = rest.pop() {
        let needed = compose
            .get("services")
            .and_then(|services| services.get(&service)?.get("depends_on")?.as_object());
        if all.insert(service) {
            rest.extend(needed.into_iter().flat_map(|needed| needed.keys().cloned()));
        }
    }
    all
}

/// A container that is to run, and be healthy if it says it can be, or to end,
/// if others wait for that.
fn as_running(container: &Container, compose: &Value) -> WasRunning {
    let check = || {
        let service = compose.get("services")?.get(&container.service)?;
        let check = service.get("healthcheck")?;
        Some(check.get("disable").and_then(Value::as_bool) != Some(true))
    };
    let is_waited_for = |service: &Value| {
        let condition = service
            .get("depends_on")
            .and_then(|needed| needed.get(&container.service)?.get("condition"));
        condition.is_some_and(|condition| condition == "service_completed_successfully")
    };
    let services = compose.get("services").and_then(Value::as_object);
    let is_job = services.is_some_and(|services| services.values().any(is_waited_for));
    let before = match check() {
        Some(true) => StateBefore::Healthy,
        _ if is_job => StateBefore::Ended,
        _ => StateBefore::Running,
    };
    WasRunning::with_state(container, before)
}
