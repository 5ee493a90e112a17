//! Which services to start after a restore from an archive without a manifest:
//! the compose file in the archive tells, once it is unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::images::{self, missing_images, with_dependencies};
use super::plan::RestorePlan;
use super::start::ServicesToStart;
use crate::archive::ServiceImage;
use crate::engine::{ComposeConfig, ComposeProject};
use crate::stack::project::find_project;
use crate::stack::running::{StateBefore, replicas};

/// Checks, from the unpacked compose file, that the images of all services to
/// start are on this machine.
///
/// # Errors
/// When the start would fail. The stack must not be stopped for that.
pub(super) fn check_images(plan: &RestorePlan<'_>) -> Result<()> {
    let Some(project) = &plan.entry.project else {
        // Compose takes the name of the project, and with it the names of images
        // that it builds, from the directory of the file, which is not in its
        // final place yet. Nothing runs, so a failed start costs no downtime.
        return Ok(());
    };
    let config = unpacked_compose(plan)
        .config()
        .context("cannot read the unpacked compose file")?;
    let image = |service: String| {
        let reference = config.services.get(&service)?.image.clone();
        Some(ServiceImage {
            reference: reference.unwrap_or_else(|| format!("{project}-{service}")),
            service,
            id: String::new(),
            digests: Vec::new(),
        })
    };
    let services = with_dependencies(services_to_start(plan, &config), &config.json);
    let images: Vec<ServiceImage> = services.into_iter().filter_map(image).collect();
    if let Some(missing) = missing_images(&plan.entry.compose.engine, &images)? {
        bail!("{missing}; {}", images::ADVICE);
    }
    Ok(())
}

/// The Compose project, read from the staging directory.
fn unpacked_compose(plan: &RestorePlan<'_>) -> ComposeProject {
    let compose = &plan.entry.compose;
    let unpacked = plan.entry.targets.first().map(|target| target.staging());
    let dir = unpacked.unwrap_or_else(|| compose.dir.clone());
    let in_staging = |file: &PathBuf| match file.strip_prefix(&compose.dir) {
        Ok(within) => dir.join(within),
        Err(_) => file.clone(),
    };
    ComposeProject {
        name: compose.name.clone(),
        files: compose.files.iter().map(in_staging).collect(),
        env_files: compose.env_files.iter().map(in_staging).collect(),
        engine: compose.engine.clone(),
        dir,
    }
}

/// The services that `docker compose up` would start, except for those that are
/// down now, and those that run now.
fn services_to_start(plan: &RestorePlan<'_>, config: &ComposeConfig) -> Vec<String> {
    let runs = |name: &String| plan.running.iter().any(|was| was.service == *name);
    let services = config.services.iter().filter(|(name, service)| {
        runs(name)
            || (service.profiles.is_empty() && service.replicas() > 0 && !plan.idle.contains(*name))
    });
    services.map(|(name, _)| name.clone()).collect()
}

/// Reads the restored compose file. Adds what it tells to the plan: the name of
/// the project, volumes that the start will create, and warnings.
pub(super) fn read_restored_compose(plan: &mut RestorePlan<'_>) -> Result<ServicesToStart> {
    let config = plan.entry.compose.config()?;
    if plan.entry.project.is_none() {
        find_project_name(plan, &config)?;
    }
    note_new_volumes(plan, &config)?;
    plan.entry.write(plan.options.state_dir)?;
    let gone = plan.running.iter().map(|was| &was.service);
    let gone: BTreeSet<&String> = gone
        .filter(|service| !config.services.contains_key(*service))
        .collect();
    plan.warnings.extend(gone.into_iter().map(|service| {
        format!("service {service} ran, but the restored compose file does not have it")
    }));
    Ok(ServicesToStart {
        names: services_to_start(plan, &config),
        replicas: replicas_of_disabled(plan, &config),
        compose: config.json,
        // Whether a service goes on running is not known.
        state: StateBefore::Job,
    })
}

fn find_project_name(plan: &mut RestorePlan<'_>, config: &ComposeConfig) -> Result<()> {
    let everywhere = plan.entry.compose.engine.compose_containers(None)?;
    let project = find_project(&plan.entry.compose, Some(&config.name), &everywhere)?;
    let project = project.context("Compose gives the project no name")?;
    let own = everywhere.iter().filter(|c| c.project == project);
    plan.entry.add_containers(own);
    plan.entry.compose.name = Some(project.clone());
    plan.entry.project = Some(project);
    Ok(())
}

fn note_new_volumes(plan: &mut RestorePlan<'_>, config: &ComposeConfig) -> Result<()> {
    let volumes = config.volumes.values().filter(|volume| !volume.external);
    let volumes: BTreeSet<String> = volumes.map(|volume| volume.name.clone()).collect();
    let present = plan.entry.compose.engine.volumes(&volumes)?;
    let is_missing = |name: &String| present.iter().all(|volume| volume.name != *name);
    for name in volumes.into_iter().filter(is_missing) {
        plan.warnings.push(format!(
            "volume {name} did not exist and is not in the archive: it is new and empty"
        ));
        plan.entry.new_volumes.push(name);
    }
    Ok(())
}

/// The present replica counts of running services that the compose file sets to
/// zero. For all others, the count in the file is used.
fn replicas_of_disabled(plan: &RestorePlan<'_>, config: &ComposeConfig) -> BTreeMap<String, usize> {
    let is_disabled = |service: &str| {
        let described = config.services.get(service);
        described.is_some_and(|service| service.replicas() == 0)
    };
    let mut replicas = replicas(&plan.running);
    replicas.retain(|service, _| is_disabled(service));
    replicas
}
