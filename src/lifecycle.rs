//! Stopping what runs and starting exactly that again, in dependency order.
//!
//! The order is taken from the containers themselves (the label Compose puts
//! there, shared namespaces, `volumes_from`), so it is known when the compose
//! file no longer parses. Containers are started one by one rather than by
//! `docker compose start`, which would also start what a service depends on
//! and so run a finished one-shot service again.

mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::docker::{self, Container, Dependency, Health, Status};
use crate::signals::Signals;
pub use start::start;

/// A container as it was before this program stopped it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WasRunning {
    /// Good while the container exists; `service` and `number` name its
    /// successor when it was made anew.
    pub id: String,
    pub name: String,
    pub service: String,
    pub number: u32,
    pub depends_on: Vec<Dependency>,
    pub joins: Vec<String>,
    pub before: Before,
    pub stop_timeout_secs: u64,
}

/// What "as it was before" means for a container, and so when its start is
/// confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Before {
    /// It has a health check that did not fail: started when healthy.
    Healthy,
    /// No health check, or one that failed: started when it runs.
    Running,
    Paused,
    /// It was in a restart loop: nothing more than the start can be asked of it.
    Restarting,
    /// A job that others wait for: started when it has ended without an error.
    Ended,
}

impl WasRunning {
    /// `None` for a container that does not run.
    pub fn of(container: &Container) -> Option<WasRunning> {
        let before = match (container.status, container.health) {
            (Status::Stopped, _) => return None,
            (Status::Paused, _) => Before::Paused,
            (Status::Restarting, _) => Before::Restarting,
            (Status::Running, _) if is_between_restarts(container, Timestamp::now()) => {
                Before::Restarting
            }
            (Status::Running, Some(Health::Healthy | Health::Starting)) => Before::Healthy,
            (Status::Running, _) => Before::Running,
        };
        Some(WasRunning::to_be(container, before))
    }

    /// A container that is to be as `before` says.
    pub fn to_be(container: &Container, before: Before) -> WasRunning {
        WasRunning {
            id: container.id.clone(),
            name: container.name.clone(),
            service: container.service.clone(),
            number: container.number,
            depends_on: container.depends_on.clone(),
            joins: container.joins.clone(),
            before,
            stop_timeout_secs: container.stop_timeout.as_secs(),
        }
    }

    fn is(&self, container: &Container) -> bool {
        self.id == container.id
            || (self.service == container.service
                && self.number == container.number
                && !container.one_off)
    }

    /// The container this was, or the one that took its place. `containers` are
    /// those of the project.
    pub fn find<'a>(&self, containers: &'a [Container]) -> Option<&'a Container> {
        let by_id = containers.iter().find(|c| c.id == self.id);
        by_id.or_else(|| containers.iter().find(|c| self.is(c)))
    }

    fn needs(&self, other: &WasRunning) -> bool {
        self.id != other.id
            && (self.joins.contains(&other.id)
                || self.depends_on.iter().any(|d| d.service == other.service))
    }
}

/// Positions of the containers, grouped so that each group needs only groups
/// after it: the order in which they are stopped. Members of a cycle, which
/// Compose refuses but labels of two compose files may add up to, share a group.
pub fn stop_order(containers: &[WasRunning]) -> Vec<Vec<usize>> {
    let mut left: BTreeSet<usize> = (0..containers.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let is_needed = |&i: &usize| {
            left.iter()
                .any(|&other| containers[other].needs(&containers[i]))
        };
        let mut group: Vec<usize> = left.iter().copied().filter(|i| !is_needed(i)).collect();
        if group.is_empty() {
            group = left.iter().copied().collect();
        }
        left.retain(|i| !group.contains(i));
        order.push(group);
    }
    order
}

/// Freezes the containers, all at once; those that were paused before are so
/// already. There is no order: none of them notices.
pub fn pause(containers: &[WasRunning]) -> Result<()> {
    docker::all(docker::at_once(containers, |was| {
        docker::pause(&was.id).with_context(|| format!("pause {}", was.name))
    }))
}

/// Stops the containers, dependants first. `grace` overrides their own stop
/// timeouts. No further group is stopped once an end is asked for; when this
/// returns `Ok`, no stop is under way.
pub fn stop(containers: &[WasRunning], grace: Option<Duration>, signals: &Signals) -> Result<()> {
    for group in stop_order(containers) {
        if signals.received().is_some() {
            break;
        }
        let group: Vec<&WasRunning> = group.into_iter().map(|i| &containers[i]).collect();
        let ids: Vec<String> = group.iter().map(|c| c.id.clone()).collect();
        let own = group.iter().map(|c| c.stop_timeout_secs).max().unwrap_or(0);
        let longest = grace.unwrap_or(Duration::from_secs(own));
        let names: Vec<&str> = group.iter().map(|c| c.name.as_str()).collect();
        tracing::debug!(containers = names.join(" "), "stopping");
        docker::stop(&ids, grace, longest)?;
    }
    Ok(())
}

/// How many of them each service has.
pub fn replicas(containers: &[WasRunning]) -> BTreeMap<String, usize> {
    let mut replicas = BTreeMap::new();
    for was in containers {
        *replicas.entry(was.service.clone()).or_default() += 1;
    }
    replicas
}

/// Whether it runs only until it ends again. A container that has run for ten
/// seconds is no longer taken for one that keeps ending (Docker's restart
/// manager does the same).
fn is_between_restarts(container: &Container, now: Timestamp) -> bool {
    let started: Option<Timestamp> = container.started_at.parse().ok();
    container.restart_count > 0
        && started.is_some_and(|started| now.as_second() - started.as_second() < 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn was(service: &str, depends_on: &[(&str, &str)], joins: &[&str]) -> WasRunning {
        WasRunning {
            id: format!("id-{service}"),
            name: format!("p-{service}-1"),
            service: service.to_owned(),
            number: 1,
            depends_on: depends_on
                .iter()
                .map(|(service, condition)| Dependency {
                    service: (*service).to_owned(),
                    condition: (*condition).to_owned(),
                })
                .collect(),
            joins: joins
                .iter()
                .map(|service| format!("id-{service}"))
                .collect(),
            before: Before::Running,
            stop_timeout_secs: 10,
        }
    }

    #[test]
    fn a_container_that_keeps_ending_is_known_while_it_runs_for_a_moment() {
        let started: Timestamp = "2026-11-24T03:00:00.5Z".parse().unwrap();
        let container = |restart_count: u64| {
            Container::from_json(serde_json::json!({
                "Id": "x", "Name": "/x", "Image": "i", "RestartCount": restart_count,
                "State": {"Status": "running", "StartedAt": started.to_string(), "ExitCode": 0},
                "Config": {}, "HostConfig": {}, "Mounts": [],
            }))
        };
        let later = |secs: i64| Timestamp::from_second(started.as_second() + secs).unwrap();
        assert!(is_between_restarts(&container(3), later(2)));
        assert!(!is_between_restarts(&container(3), later(10)));
        assert!(!is_between_restarts(&container(0), later(2)));
    }

    fn names(containers: &[WasRunning]) -> Vec<Vec<&str>> {
        stop_order(containers)
            .into_iter()
            .map(|group| {
                group
                    .into_iter()
                    .map(|i| containers[i].service.as_str())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn dependants_stop_before_what_they_need() {
        let chain = [
            was("db", &[], &[]),
            was("api", &[("db", "service_healthy")], &[]),
            was("front", &[("api", "service_started")], &[]),
            was("sidecar", &[], &["api"]),
            was("alone", &[], &[]),
        ];
        assert_eq!(
            names(&chain),
            [vec!["front", "sidecar", "alone"], vec!["api"], vec!["db"]]
        );
    }

    #[test]
    fn a_dependency_that_does_not_run_does_not_count() {
        let app = [was(
            "app",
            &[("migrate", "service_completed_successfully")],
            &[],
        )];
        assert_eq!(names(&app), [["app"]]);
    }

    #[test]
    fn a_cycle_is_stopped_together() {
        let cycle = [
            was("a", &[("b", "service_started")], &[]),
            was("b", &[("a", "service_started")], &[]),
            was("top", &[("a", "service_started")], &[]),
        ];
        assert_eq!(names(&cycle), [vec!["top"], vec!["a", "b"]]);
    }
}
