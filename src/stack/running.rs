//! The containers that ran before a stop, so that exactly these are started
//! again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Container, Dependency, Health, Status};

/// A container as it was before this program stopped it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WasRunning {
    /// Valid while the container exists. If Compose recreates it, `service` and
    /// `number` identify the new one.
    pub id: String,
    pub name: String,
    pub service: String,
    pub number: u32,
    pub depends_on: Vec<Dependency>,
    pub joins: Vec<String>,
    pub before: StateBefore,
    pub stop_timeout_secs: u64,
}

/// The state of a container before the stop. Its start is confirmed when it is
/// in that state again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StateBefore {
    /// It has a health check that did not fail. Its start is confirmed when it is
    /// healthy.
    Healthy,
    /// It has no health check, or one that failed. Its start is confirmed when it
    /// runs.
    Running,
    Paused,
    /// It was in a restart loop. A start is all that can be expected of it.
    Restarting,
    /// It is a job that others wait for. Its start is confirmed when it has ended
    /// without an error.
    Ended,
}

impl WasRunning {
    /// Records a container that runs; `None` if it does not run.
    pub fn of(container: &Container) -> Option<WasRunning> {
        let before = match (container.status, container.health) {
            (Status::Stopped, _) => return None,
            (Status::Paused, _) => StateBefore::Paused,
            (Status::Restarting, _) => StateBefore::Restarting,
            (Status::Running, _) if is_between_restarts(container, Timestamp::now()) => {
                StateBefore::Restarting
            }
            (Status::Running, Some(Health::Healthy | Health::Starting)) => StateBefore::Healthy,
            (Status::Running, _) => StateBefore::Running,
        };
        Some(WasRunning::with_state(container, before))
    }

    /// Records a container and the state that it is to reach.
    pub fn with_state(container: &Container, before: StateBefore) -> WasRunning {
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

    fn matches(&self, container: &Container) -> bool {
        self.id == container.id
            || (self.service == container.service
                && self.number == container.number
                && !container.one_off)
    }

    /// Finds the same container, or the one that has replaced it. `containers`
    /// must be of the same project, because other projects may have services of
    /// the same names.
    pub fn find<'a>(&self, containers: &'a [Container]) -> Option<&'a Container> {
        let by_id = containers.iter().find(|c| c.id == self.id);
        by_id.or_else(|| containers.iter().find(|c| self.matches(c)))
    }

    /// Whether the other container must be up before this one, because of a
    /// dependency between their services or a shared namespace.
    pub fn needs(&self, other: &WasRunning) -> bool {
        self.id != other.id
            && (self.joins.contains(&other.id)
                || self.depends_on.iter().any(|d| d.service == other.service))
    }
}

#[cfg(test)]
impl WasRunning {
    /// A running container that depends on services, each with a condition, and
    /// joins a namespace of other services.
    pub fn example(service: &str, depends_on: &[(&str, &str)], joins: &[&str]) -> WasRunning {
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
            before: StateBefore::Running,
            stop_timeout_secs: 10,
        }
    }
}

/// Counts the containers of each service.
pub fn replicas(containers: &[WasRunning]) -> BTreeMap<String, usize> {
    let mut replicas = BTreeMap::new();
    for was in containers {
        *replicas.entry(was.service.clone()).or_default() += 1;
    }
    replicas
}

/// Whether a running container is in a restart loop. A container that has run
/// for ten seconds is no longer taken for one that keeps ending; Docker's restart
/// manager has the same limit.
fn is_between_restarts(container: &Container, now: Timestamp) -> bool {
    let started: Option<Timestamp> = container.started_at.parse().ok();
    container.restart_count > 0
        && started.is_some_and(|started| now.as_second() - started.as_second() < 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_loop_is_recognised_while_the_container_runs_for_a_moment() {
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
}
