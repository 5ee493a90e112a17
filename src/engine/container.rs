//! Containers, as `docker inspect` and the Engine's API describe them, reduced
//! to what is used here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::health::HealthChecks;
use super::json::null_as_empty;
use super::network::Endpoint;
use super::stand_in::STAND_IN_LABEL;
use super::volume::is_generated_name;

/// Time between the stop signal and SIGKILL for a container that sets none
/// (docker stop --time, compose stop_grace_period).
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Compose's hash of the service that it made a container for.
pub(super) const CONFIG_HASH_LABEL: &str = "com.docker.compose.config-hash";

/// What the labels begin with that concern this program.
pub const LABEL_PREFIX: &str = "docker-stack-backup.";

/// Health checks of a container that does not say how often they are made, and how
/// many must fail (docker run --health-interval, --health-retries).
const DEFAULT_CHECK_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_CHECK_RETRIES: u32 = 3;

const PODMAN_COMPOSE_LABELS: &str = "io.podman.compose.";
/// Podman notes the unit that runs a container in this label, if systemd has set it in the
/// environment (podman-run(1)).
const PODMAN_UNIT_LABEL: &str = "PODMAN_SYSTEMD_UNIT";
/// How much of the output of a health check is kept.
const PROBE_CHARS: usize = 300;

/// A container. `project` and `service` are empty unless Compose made it.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub project: String,
    pub service: String,
    /// Compose's number of the replica; the first is 1.
    pub number: u32,
    /// Whether `docker compose run` made it, so that it is no replica.
    pub one_off: bool,
    /// The label that no image gives a container by itself, since Compose sets it anew.
    pub config_hash: Option<String>,
    /// Directory in which Compose was started, with symlinks as they were given.
    pub working_dir: PathBuf,
    /// The compose files that it was made from, with symlinks as they were given.
    pub config_files: Vec<PathBuf>,
    /// The environment files (`--env-file`) that Compose read then.
    pub env_files: Vec<PathBuf>,
    pub status: Status,
    /// Time of the last start, as the Engine writes it.
    pub started_at: String,
    /// Number of starts by its restart policy since it was last started otherwise.
    pub restart_count: u64,
    pub exit_code: i64,
    pub oom_killed: bool,
    /// `None` when the container has no health check.
    pub health: Option<Health>,
    pub health_checks: Option<HealthChecks>,
    /// What its health check printed the last time, on one line.
    pub last_probe: Option<String>,
    /// Services of the same project that it depends on.
    pub depends_on: Vec<Dependency>,
    /// Ids or names of the containers whose network, IPC or PID namespace or
    /// volumes it uses.
    pub joins: Vec<String>,
    /// Whether the Engine removes it when it ends (`docker run --rm`).
    pub is_removed_at_end: bool,
    /// The labels by which it sets options of its stack, without the prefix that is this
    /// program's name.
    pub own_labels: BTreeMap<String, String>,
    /// Whether podman-compose made it, a program with other labels than Compose.
    pub is_of_podman_compose: bool,
    /// The unit of systemd that runs it, if Podman has noted that.
    pub systemd_unit: Option<String>,
    /// Whether it only hands volumes on; see [`StandIn`](super::StandIn).
    pub is_stand_in: bool,
    pub mounts: Vec<Mount>,
    /// Its endpoints by network name, whether it runs or not.
    pub networks: BTreeMap<String, Endpoint>,
    pub stop_timeout: Duration,
    pub image_reference: String,
    pub image_id: String,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Paused,
    Restarting,
    /// It is created, exited, dead or being removed.
    Stopped,
}

/// Result of a container's health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Podman has no word for a container that was never started.
    #[serde(alias = "")]
    Starting,
    Healthy,
    Unhealthy,
    None,
}

/// An item of `depends_on` (Compose specification). Compose records it in a label
/// of the container: `db:service_healthy:false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    pub service: String,
    /// `service_started`, `service_healthy` or `service_completed_successfully`.
    pub condition: String,
}

/// A mount of a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, ...
    #[serde(rename = "Type")]
    pub kind: String,
    /// Name of the volume; empty for other kinds.
    #[serde(default)]
    pub name: String,
    /// Path on the host.
    #[serde(default)]
    pub source: PathBuf,
    /// Path in the container.
    #[serde(default)]
    pub destination: String,
    #[serde(rename = "RW", default)]
    pub writable: bool,
}

impl Mount {
    /// Whether it mounts a volume whose name the Engine generated, because the
    /// mount names no volume.
    pub fn is_anonymous(&self) -> bool {
        self.kind == "volume" && is_generated_name(&self.name)
    }
}

/// A container in the Engine's own JSON.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawContainer {
    id: String,
    name: String,
    image: String,
    #[serde(default)]
    restart_count: u64,
    state: RawState,
    config: RawConfig,
    host_config: RawHostConfig,
    #[serde(default, deserialize_with = "null_as_empty")]
    mounts: Vec<Mount>,
    #[serde(default)]
    network_settings: RawNetworkSettings,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawNetworkSettings {
    #[serde(default, deserialize_with = "null_as_empty")]
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    status: String,
    #[serde(default)]
    started_at: String,
    exit_code: i64,
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
    health: Option<RawHealth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealth {
    status: Health,
    #[serde(default)]
    failing_streak: u32,
    #[serde(default, deserialize_with = "null_as_empty")]
    log: Vec<RawHealthCheck>,
}

/// A check that was made.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealthCheck {
    #[serde(default)]
    end: String,
    #[serde(default)]
    output: String,
}

impl RawHealth {
    fn last_probe(&self) -> Option<String> {
        let words: Vec<&str> = self.log.last()?.output.split_whitespace().collect();
        (!words.is_empty()).then(|| words.join(" ").chars().take(PROBE_CHARS).collect())
    }
}

/// How a container's health is checked.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthConfig {
    #[serde(deserialize_with = "null_as_empty")]
    interval: i64,
    #[serde(deserialize_with = "null_as_empty")]
    retries: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default)]
    image: String,
    #[serde(default, deserialize_with = "null_as_empty")]
    labels: BTreeMap<String, String>,
    stop_timeout: Option<i64>,
    #[serde(default, deserialize_with = "null_as_empty")]
    healthcheck: RawHealthConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHostConfig {
    #[serde(default)]
    network_mode: String,
    #[serde(default)]
    ipc_mode: String,
    #[serde(default)]
    pid_mode: String,
    #[serde(default)]
    auto_remove: bool,
    #[serde(default, deserialize_with = "null_as_empty")]
    volumes_from: Vec<String>,
}

impl RawContainer {
    pub fn id(&self) -> &str {
        &self.id
    }

    fn health_checks(&self) -> Option<HealthChecks> {
        let health = self.state.health.as_ref()?;
        let ends = health.log.iter();
        let ends = ends.filter_map(|check| check.end.parse::<Timestamp>().ok());
        let config = &self.config.healthcheck;
        Some(HealthChecks {
            last: ends.max(),
            interval: match config.interval {
                nanoseconds @ 1.. => Duration::from_nanos(nanoseconds as u64),
                _ => DEFAULT_CHECK_INTERVAL,
            },
            failures: health.failing_streak,
            retries: match config.retries {
                0 => DEFAULT_CHECK_RETRIES,
                retries => retries,
            },
        })
    }
}

impl From<RawContainer> for Container {
    fn from(raw: RawContainer) -> Container {
        let label = |name: &str| {
            raw.config
                .labels
                .get(&format!("com.docker.compose.{name}"))
                .cloned()
                .unwrap_or_default()
        };
        let paths = |name: &str| -> Vec<PathBuf> {
            let list = label(name);
            let paths = list.split(',').filter(|path| !path.is_empty());
            paths.map(PathBuf::from).collect()
        };
        let own_labels = raw.config.labels.iter().filter_map(|(name, value)| {
            let own = name.strip_prefix(LABEL_PREFIX)?;
            (name != STAND_IN_LABEL).then(|| (own.to_owned(), value.clone()))
        });
        let host = &raw.host_config;
        let joined = [&host.network_mode, &host.ipc_mode, &host.pid_mode]
            .into_iter()
            .filter_map(|mode| mode.strip_prefix("container:"));
        // Entries of volumes_from may have a mode: `ID:ro`.
        let donors = host
            .volumes_from
            .iter()
            .filter_map(|from| from.split(':').next());
        Container {
            joins: joined.chain(donors).map(str::to_owned).collect(),
            is_removed_at_end: host.auto_remove,
            own_labels: own_labels.collect(),
            is_of_podman_compose: {
                let mut labels = raw.config.labels.keys();
                labels.any(|label| label.starts_with(PODMAN_COMPOSE_LABELS))
            },
            systemd_unit: raw.config.labels.get(PODMAN_UNIT_LABEL).cloned(),
            is_stand_in: raw.config.labels.contains_key(STAND_IN_LABEL),
            health_checks: raw.health_checks(),
            networks: raw.network_settings.networks,
            name: raw.name.trim_start_matches('/').to_owned(),
            project: label("project"),
            service: label("service"),
            number: label("container-number").parse().unwrap_or(1),
            one_off: label("oneoff") == "True",
            config_hash: raw.config.labels.get(CONFIG_HASH_LABEL).cloned(),
            working_dir: label("project.working_dir").into(),
            config_files: paths("project.config_files"),
            env_files: paths("project.environment_file"),
            status: match raw.state.status.as_str() {
                "running" => Status::Running,
                "paused" => Status::Paused,
                "restarting" => Status::Restarting,
                _ => Status::Stopped,
            },
            started_at: raw.state.started_at,
            restart_count: raw.restart_count,
            exit_code: raw.state.exit_code,
            oom_killed: raw.state.oom_killed,
            last_probe: raw.state.health.as_ref().and_then(RawHealth::last_probe),
            health: raw
                .state
                .health
                .map(|h| h.status)
                .filter(|h| *h != Health::None),
            depends_on: parse_depends_on(&label("depends_on")),
            mounts: raw.mounts,
            stop_timeout: match raw.config.stop_timeout {
                Some(secs) => Duration::from_secs(secs.max(0) as u64),
                None => DEFAULT_STOP_TIMEOUT,
            },
            image_reference: raw.config.image,
            image_id: raw.image,
            id: raw.id,
        }
    }
}

#[cfg(test)]
impl Container {
    /// Reads a container from the JSON that `docker inspect` prints.
    pub fn from_json(json: serde_json::Value) -> Container {
        Container::from(RawContainer::deserialize(json).expect("a container"))
    }
}

fn parse_depends_on(label: &str) -> Vec<Dependency> {
    label
        .split(',')
        .filter(|item| !item.is_empty())
        .map(|item| {
            let mut parts = item.split(':');
            let service = parts.next().unwrap_or_default().to_owned();
            let condition = parts.next().unwrap_or("service_started").to_owned();
            Dependency { service, condition }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depends_on_label_may_be_long_or_short() {
        let dependency = |service: &str, condition: &str| Dependency {
            service: service.to_owned(),
            condition: condition.to_owned(),
        };
        assert_eq!(parse_depends_on(""), []);
        assert_eq!(
            parse_depends_on("db:service_healthy:false,cache"),
            [
                dependency("db", "service_healthy"),
                dependency("cache", "service_started")
            ]
        );
    }
}
