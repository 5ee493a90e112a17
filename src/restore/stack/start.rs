//! Creates and starts the containers of a restored stack.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::plan::RestorePlan;
use crate::engine::{Container, Existing};
use crate::stack::driver::{self, Started};
use crate::stack::journal;
use crate::stack::running::{StateBefore, WasRunning};
use crate::stack::units::WasActive;
use crate::sys::signals::Signals;

/// The services that a restore starts.
pub(super) struct ServicesToStart {
    pub(super) names: Vec<String>,
    /// Number of containers of a service, where it is not the one in the compose
    /// file.
    pub(super) replicas: BTreeMap<String, usize>,
    /// The resolved compose configuration.
    pub(super) compose: Value,
    /// The state that services are to reach, except for jobs that others wait for.
    pub(super) state: StateBefore,
}

/// Creates the containers as the compose file describes them now, starts them,
/// and looks a second time. Adds warnings to the plan. Returns when all ran, or
/// `None` if there is nothing to start.
pub(super) fn start(
    plan: &mut RestorePlan<'_>,
    services: &ServicesToStart,
    signals: &Signals,
) -> Result<Option<Started>> {
    let names = &services.names;
    if names.is_empty() {
        return Ok(None);
    }
    let mut replicas = services.replicas.clone();
    replicas.retain(|service, _| names.contains(service));
    plan.entry
        .compose
        .create(names, &replicas, Existing::Update)
        .context("cannot create the containers")?;
    let project = plan.entry.project.as_deref().unwrap_or_default();
    let containers = plan
        .entry
        .compose
        .engine
        .compose_containers(Some(project))?;
    let is_started = |c: &&Container| !c.one_off && names.contains(&c.service);
    let to_start: Vec<WasRunning> = containers
        .iter()
        .filter(is_started)
        .map(|c| WasRunning::with_state(c, services.state_of(&c.service)))
        .collect();
    for service in names {
        ensure!(
            to_start.iter().any(|was| was.service == *service),
            "service {service} has no container"
        );
    }
    tracing::info!(services = names.join(" "), "starting");
    let entry = plan.journal_entry(to_start, Vec::new(), journal::StopProgress::Stopped);
    let started = driver::start(&entry, signals)?;
    plan.warnings
        .extend(driver::confirm(&entry, &started, signals)?);
    Ok(Some(started))
}

/// Starts the units that ran before the restore or when the archive was made, and looks a
/// second time. Adds warnings to the plan.
pub(super) fn start_units(
    plan: &mut RestorePlan<'_>,
    units: Vec<WasActive>,
    signals: &Signals,
) -> Result<Option<Started>> {
    if units.is_empty() {
        return Ok(None);
    }
    let entry = plan.journal_entry(Vec::new(), units, journal::StopProgress::Stopped);
    tracing::info!(units = entry.services().join(" "), "starting");
    let started = driver::start(&entry, signals)?;
    plan.warnings
        .extend(driver::confirm(&entry, &started, signals)?);
    Ok(Some(started))
}

impl ServicesToStart {
    /// Describes when the start of a service is confirmed: when it has ended, if
    /// other services wait for that; otherwise when it runs, and is healthy if it
    /// has a health check.
    fn state_of(&self, service: &str) -> StateBefore {
        let waits_for_end = |other: &Value| {
            let condition = other
                .get("depends_on")
                .and_then(|needed| needed.get(service)?.get("condition"));
            condition.is_some_and(|condition| condition == "service_completed_successfully")
        };
        let services = self.compose.get("services").and_then(Value::as_object);
        match services.is_some_and(|services| services.values().any(waits_for_end)) {
            true => StateBefore::Ended,
            false => self.state,
        }
    }
}
