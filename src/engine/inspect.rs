//! What `docker inspect` and `docker compose config` print, reduced to what
//! is used here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DEFAULT_STOP_TIMEOUT;

/// A container that Compose made (or, from `containers`, any other:
/// then `project` and `service` are empty).
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub project: String,
    pub service: String,
    /// 1 for the first replica, as Compose numbers them.
    pub number: u32,
    /// Made by `docker compose run`: no service's own container.
    pub one_off: bool,
    /// Directory that Compose was started in, as it was given.
    pub working_dir: PathBuf,
    pub status: Status,
    /// When it was started last, as the Engine writes it.
    pub started_at: String,
    /// By its restart policy, since it was started last by anybody else.
    pub restart_count: u64,
    pub exit_code: i64,
    pub oom_killed: bool,
    /// `None` when the container has no health check.
    pub health: Option<Health>,
    /// By services of the same project.
    pub depends_on: Vec<Dependency>,
    /// Ids of containers whose network, IPC or PID namespace or volumes it uses.
    pub joins: Vec<String>,
    pub mounts: Vec<Mount>,
    pub stop_timeout: Duration,
    pub image_reference: String,
    pub image_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Paused,
    Restarting,
    /// Created, exited, dead or being removed.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
    None,
}

/// `depends_on` of the Compose specification, as its label on the container
/// says it: `db:service_healthy:false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    pub service: String,
    /// `service_started`, `service_healthy` or `service_completed_successfully`.
    pub condition: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, ...
    #[serde(rename = "Type")]
    pub kind: String,
    /// Of a volume.
    #[serde(default)]
    pub name: String,
    /// On the host.
    #[serde(default)]
    pub source: PathBuf,
    /// In the container.
    #[serde(default)]
    pub destination: String,
    #[serde(rename = "RW", default)]
    pub writable: bool,
}

impl Mount {
    /// Of a volume that was named by the Engine, for a mount that names none.
    pub fn is_anonymous(&self) -> bool {
        self.kind == "volume" && is_made_up(&self.name)
    }
}

/// As the Engine makes up names: 32 random bytes.
fn is_made_up(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Read from the Engine, and written to and read from manifests.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    #[serde(alias = "Name")]
    pub name: String,
    #[serde(alias = "Driver")]
    pub driver: String,
    #[serde(alias = "Mountpoint")]
    pub mountpoint: PathBuf,
    #[serde(alias = "Labels", default, deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(alias = "Options", default, deserialize_with = "null_is_empty")]
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// Named by the Engine, for a mount that names no volume.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key("com.docker.volume.anonymous") || is_made_up(&self.name)
    }

    /// The directory that its driver binds, by the options `o` and `device`.
    pub fn bound(&self) -> Option<&Path> {
        let options = self.options.get("o")?;
        let is_bind = self.driver == "local" && options.split(',').any(|o| o == "bind");
        self.options
            .get("device")
            .map(Path::new)
            .filter(|_| is_bind)
    }

    /// Its data lies in a directory of this host at all times. Any other
    /// volume (NFS, CIFS, a bind by `device`) is there only while mounted.
    pub fn is_plain_local(&self) -> bool {
        self.driver == "local" && !self.options.contains_key("device")
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    pub id: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub repo_digests: Vec<String>,
}

/// The resolved compose configuration.
#[derive(Clone, Debug)]
pub struct ComposeConfig {
    pub name: String,
    pub services: BTreeMap<String, ConfigService>,
    pub volumes: BTreeMap<String, ConfigVolume>,
    /// As Compose printed it, for the manifest.
    pub json: Value,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ConfigService {
    /// Without one it is built, and named after project and service.
    pub image: Option<String>,
    scale: Option<usize>,
    deploy: Option<Deploy>,
    #[serde(default)]
    pub volumes: Vec<ConfigMount>,
    #[serde(default)]
    pub post_start: Vec<Value>,
    #[serde(default)]
    pub pre_stop: Vec<Value>,
    /// Without any, `up` starts it.
    #[serde(default)]
    pub profiles: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Deploy {
    replicas: Option<usize>,
}

impl ConfigService {
    /// How many containers of it `up` starts.
    pub fn replicas(&self) -> usize {
        let of_deploy = self.deploy.as_ref().and_then(|deploy| deploy.replicas);
        self.scale.or(of_deploy).unwrap_or(1)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct ConfigMount {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub target: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ConfigVolume {
    /// The volume's name for the Engine; the key is its name in the file.
    pub name: String,
    #[serde(default)]
    pub external: bool,
}

impl ComposeConfig {
    pub(super) fn from_json(json: Value) -> Result<ComposeConfig> {
        #[derive(Deserialize)]
        struct Known {
            name: String,
            #[serde(default, deserialize_with = "null_is_empty")]
            services: BTreeMap<String, ConfigService>,
            #[serde(default, deserialize_with = "null_is_empty")]
            volumes: BTreeMap<String, ConfigVolume>,
        }
        let Known {
            name,
            services,
            volumes,
        } = Known::deserialize(&json).context("understand `docker compose config`")?;
        Ok(ComposeConfig {
            name,
            services,
            volumes,
            json,
        })
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

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
    #[serde(default, deserialize_with = "null_is_empty")]
    mounts: Vec<Mount>,
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
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default)]
    image: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    labels: BTreeMap<String, String>,
    stop_timeout: Option<i64>,
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
    #[serde(default, deserialize_with = "null_is_empty")]
    volumes_from: Vec<String>,
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
        let host = &raw.host_config;
        let joined = [&host.network_mode, &host.ipc_mode, &host.pid_mode]
            .into_iter()
            .filter_map(|mode| mode.strip_prefix("container:"));
        // volumes_from entries may carry a mode: `ID:ro`.
        let donors = host
            .volumes_from
            .iter()
            .filter_map(|from| from.split(':').next());
        Container {
            joins: joined.chain(donors).map(str::to_owned).collect(),
            name: raw.name.trim_start_matches('/').to_owned(),
            project: label("project"),
            service: label("service"),
            number: label("container-number").parse().unwrap_or(1),
            one_off: label("oneoff") == "True",
            working_dir: label("project.working_dir").into(),
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
    /// As `docker inspect` prints it.
    pub fn from_json(json: Value) -> Container {
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
    fn depends_on_label_is_read_in_its_long_and_short_form() {
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
