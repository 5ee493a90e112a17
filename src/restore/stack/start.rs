//! Creates and starts the containers of a restored stack.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::plan::RestorePlan;
use crate::engine::{self, Container, Health, Status};
use crate::stack::driver;
use crate::stack::journal;
use crate::stack::running::{StateBefore, WasRunning};
use crate::sys::signals::Signals;

/// The services that a restore starts.
pub(super) struct ServicesToStart {
    pub(super) names: Vec<String>,
    /// Number of containers of a service, where it is not the one in the compose
    /// file.
    pub(super) replicas: BTreeMap<String, usize>,
    /// The resolved compose configuration.
    pub(super) compose: Value,
}

/// Creates the containers as the compose file describes them now, and starts
/// them. Returns warnings.
pub(super) fn start(
    plan: &RestorePlan<'_>,
    services: &ServicesToStart,
    signals: &Signals,
) -> Result<Vec<String>> {
    let names = &services.names;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut replicas = services.replicas.clone();
    replicas.retain(|service, _| names.contains(service));
    plan.entry
        .compose
        .create(names, &replicas)
        .context("cannot create the containers")?;
    let project = plan.entry.project.as_deref().unwrap_or_default();
    let containers = engine::compose_containers(Some(project))?;
    let is_started = |c: &&Container| !c.one_off && names.contains(&c.service);
    let mut started: Vec<WasRunning> = containers
        .iter()
        .filter(is_started)
        .map(|c| as_running(c, &services.compose))
        .collect();
    for service in names {
        ensure!(
            started.iter().any(|was| was.service == *service),
            "service {service} has no container"
        );
    }
    tracing::info!(services = names.join(" "), "starting");
    let mut entry = plan.journal_entry(started.clone(), journal::StopProgress::Stopped);
    let mut warnings = driver::start(&entry, signals)?;
    // The Engine shows the health check of an image only for running containers.
    let containers = engine::compose_containers(Some(project))?;
    for was in &mut started {
        let health = was.find(&containers).and_then(|c| c.health);
        if health.is_some_and(|health| health != Health::None) {
            was.before = StateBefore::Healthy;
        }
    }
    // A job that has ended must not run twice.
    started.retain(|was| {
        was.find(&containers)
            .is_none_or(|c| c.status != Status::Stopped || c.exit_code != 0)
    });
    entry.containers = started;
    warnings.extend(driver::start(&entry, signals)?);
    Ok(warnings)
}

/// Describes when the start of a container is confirmed: when it is healthy, if
/// it has a health check; when it has ended, if other services wait for that;
/// otherwise when it runs.
fn as_running(container: &Container, compose: &Value) -> WasRunning {
    let has_check = || {
        let service = compose.get("services")?.get(&container.service)?;
        let check = service.get("healthcheck")?;
        Some(check.get("disable").and_then(Value::as_bool) != Some(true))
    };
    let waits_for_end = |service: &Value| {
        let condition = service
            .get("depends_on")
            .and_then(|needed| needed.get(&container.service)?.get("condition"));
        condition.is_some_and(|condition| condition == "service_completed_successfully")
    };
    let services = compose.get("services").and_then(Value::as_object);
    let is_job = services.is_some_and(|services| services.values().any(waits_for_end));
    let before = match has_check() {
        Some(true) => StateBefore::Healthy,
        _ if is_job => StateBefore::Ended,
        _ => StateBefore::Running,
    };
    WasRunning::with_state(container, before)
}
