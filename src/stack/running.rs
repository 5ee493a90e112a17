//! What ran before a stop, so that exactly that is started again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Container, Dependency, Health, Status};

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
    pub before: StateBefore,
    pub stop_timeout_secs: u64,
}

/// What "as it was before" means for a container, and so when its start is
/// confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StateBefore {
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

    /// A container that is to be as `before` says.
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

    pub fn needs(&self, other: &WasRunning) -> bool {
        self.id != other.id
            && (self.joins.contains(&other.id)
                || self.depends_on.iter().any(|d| d.service == other.service))
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
}
