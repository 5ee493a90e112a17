//! The containers that ran before a stop, so that exactly these are started
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Container, Dependency, Endpoint, Health, Mount, Status};

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
    /// Its addresses. Older versions did not record them.
    #[serde(default)]
    pub addresses: Vec<Address>,
    #[serde(default)]
    pub anonymous_volumes: Vec<AnonymousVolume>,
    #[serde(default)]
    pub image_id: String,
    /// The project of a container that is not of the stack, but shares with it;
    /// empty if Compose did not make it. `None` for the stack's own containers.
    #[serde(default)]
    pub other_project: Option<String>,
}

/// A volume that only one container knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnonymousVolume {
    pub name: String,
    /// Path in the container.
    pub destination: String,
}

/// The addresses of a container in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    pub network: String,
    /// An IPv4 address, an IPv6 address, or both in this order. Empty if they are
    /// not known, because the container did not run.
    pub addresses: Vec<IpAddr>,
    /// Whether the container asks for them. Otherwise the Engine chooses them.
    pub is_fixed: bool,
}

/// The state of a container before the stop. Its start is confirmed when it is
/// in that state again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StateBefore {
    /// Its start is confirmed when it is healthy, or runs and has no health check.
    Healthy,
    /// It has no health check. Its start is confirmed when it runs.
    Running,
    /// Its health check failed. Its start is confirmed when it runs.
    Unhealthy,
    Paused,
    /// It was in a restart loop. A start is all that can be expected of it.
    Restarting,
    /// It is a job that was under way. Its start is confirmed as that of a healthy
    /// service, or when it has ended without an error.
    Job,
    /// It is a job that others wait for. Its start is confirmed when it has ended
    /// without an error.
    Ended,
}

/// What a container that depends on a job waits for (Compose specification).
const ENDED_WELL: &str = "service_completed_successfully";

impl WasRunning {
    /// Records those containers of a project that run. Only a container that
    /// others want to end is a job: what ran as a service must go on running.
    pub fn all(containers: &[Container]) -> Vec<WasRunning> {
        let own = containers.iter().filter(|c| !c.one_off);
        let recorded = own.filter_map(|container| {
            let before = match StateBefore::of(container)? {
                StateBefore::Healthy | StateBefore::Running if is_job(container, containers) => {
                    StateBefore::Job
                }
                before => before,
            };
            Some(WasRunning::with_state(container, before))
        });
        recorded.collect()
    }

    /// Records all containers of a project that was started, whether they run or
    /// not, as they are expected to be.
    pub fn expected(containers: &[Container]) -> Vec<WasRunning> {
        let record = |container| {
            let expected = match is_job(container, containers) {
                true => StateBefore::Job,
                false => StateBefore::Healthy,
            };
            WasRunning::with_state(container, expected)
        };
        let own = containers.iter().filter(|c| !c.one_off);
        own.map(record).collect()
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
            addresses: addresses(container),
            anonymous_volumes: anonymous_volumes(container),
            image_id: container.image_id.clone(),
            other_project: None,
        }
    }

    /// Whether it is of the stack itself.
    pub fn is_own(&self) -> bool {
        self.other_project.is_none()
    }

    /// Whether it uses a namespace or volumes of the other container.
    pub fn joins(&self, other: &WasRunning) -> bool {
        let joins = |joined: &String| *joined == other.id || *joined == other.name;
        self.id != other.id && self.joins.iter().any(joins)
    }

    fn is_replaced_by(&self, container: &Container) -> bool {
        self.is_own()
            && self.service == container.service
            && self.number == container.number
            && !container.one_off
            && !container.is_stand_in
    }

    /// Finds the same container, or the one of `project`, the stack's, that has
    /// replaced it.
    pub fn find<'a>(&self, project: &str, containers: &'a [Container]) -> Option<&'a Container> {
        let by_id = containers.iter().find(|c| c.id == self.id);
        let mut own = containers.iter().filter(|c| c.project == project);
        by_id.or_else(|| own.find(|c| self.is_replaced_by(c)))
    }

    /// Whether the other container must be up before this one, because of a
    /// dependency between their services or a shared namespace.
    pub fn needs(&self, other: &WasRunning) -> bool {
        self.id != other.id
            && (self.joins(other)
                || (self.other_project == other.other_project
                    && self.depends_on.iter().any(|d| d.service == other.service)))
    }
}

impl StateBefore {
    /// Returns the state of a container that runs; `None` if it does not run. One
    /// that was only created does not run.
    pub fn of(container: &Container) -> Option<StateBefore> {
        Some(match (container.status, container.health) {
            (Status::Stopped, _) => return None,
            (Status::Paused, _) => StateBefore::Paused,
            (Status::Restarting, _) => StateBefore::Restarting,
            (Status::Running, _) if is_between_restarts(container, Timestamp::now()) => {
                StateBefore::Restarting
            }
            (Status::Running, Some(Health::Healthy | Health::Starting)) => StateBefore::Healthy,
            (Status::Running, Some(Health::Unhealthy)) => StateBefore::Unhealthy,
            (Status::Running, Some(Health::None) | None) => StateBefore::Running,
        })
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
            addresses: Vec::new(),
            anonymous_volumes: Vec::new(),
            image_id: String::new(),
            other_project: None,
        }
    }
}

fn anonymous_volumes(container: &Container) -> Vec<AnonymousVolume> {
    let mounts = container.mounts.iter().filter(|mount| mount.is_anonymous());
    let volume = |mount: &Mount| AnonymousVolume {
        name: mount.name.clone(),
        destination: mount.destination.clone(),
    };
    mounts.map(volume).collect()
}

fn addresses(container: &Container) -> Vec<Address> {
    let networks = container.networks.iter();
    let address = |(network, endpoint): (&String, &Endpoint)| Address {
        network: network.clone(),
        addresses: endpoint.addresses(),
        is_fixed: endpoint.is_fixed(),
    };
    networks.map(address).collect()
}

/// Returns the names of the networks that the containers are connected to.
pub fn network_names(containers: &[WasRunning]) -> BTreeSet<String> {
    let addresses = containers.iter().flat_map(|was| &was.addresses);
    addresses.map(|address| address.network.clone()).collect()
}

/// Returns the names of the stack's services, each once, sorted.
pub fn services(containers: &[WasRunning]) -> Vec<String> {
    replicas(containers).into_keys().collect()
}

/// Counts the containers of each service of the stack.
pub fn replicas(containers: &[WasRunning]) -> BTreeMap<String, usize> {
    let mut replicas = BTreeMap::new();
    for was in containers.iter().filter(|was| was.is_own()) {
        *replicas.entry(was.service.clone()).or_default() += 1;
    }
    replicas
}

/// Whether another container of the project waits for the end of this one.
fn is_job(container: &Container, containers: &[Container]) -> bool {
    let mut needed = containers.iter().flat_map(|c| &c.depends_on);
    needed.any(|needed| needed.service == container.service && needed.condition == ENDED_WELL)
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

    #[test]
    fn only_what_others_want_to_end_is_a_job_and_what_was_created_does_not_run() {
        let container = |service: &str, status: &str, health: Option<&str>, depends_on: &str| {
            Container::from_json(serde_json::json!({
                "Id": service, "Name": format!("/p-{service}-1"), "Image": "i",
                "State": {
                    "Status": status, "ExitCode": 0,
                    "Health": health.map(|health| serde_json::json!({"Status": health})),
                },
                "Config": {"Labels": {
                    "com.docker.compose.service": service,
                    "com.docker.compose.depends_on": depends_on,
                }},
                "HostConfig": {},
            }))
        };
        let containers = [
            container("migrate", "running", None, ""),
            container("db", "running", Some("healthy"), ""),
            container("sick", "running", Some("unhealthy"), ""),
            container("new", "created", None, ""),
            container(
                "app",
                "running",
                None,
                "migrate:service_completed_successfully:false,db:service_healthy:false",
            ),
        ];
        let recorded = WasRunning::all(&containers);
        let recorded: Vec<_> = recorded
            .iter()
            .map(|was| (&*was.service, was.before))
            .collect();
        let expected = [
            ("migrate", StateBefore::Job),
            ("db", StateBefore::Healthy),
            ("sick", StateBefore::Unhealthy),
            ("app", StateBefore::Running),
        ];
        assert_eq!(recorded, expected);
    }
}
