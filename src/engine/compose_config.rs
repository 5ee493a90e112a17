//! What `docker compose config` prints, reduced to what is used here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::json::null_as_empty;

/// A resolved compose configuration.
#[derive(Clone, Debug)]
pub struct ComposeConfig {
    pub name: String,
    pub services: BTreeMap<String, ConfigService>,
    pub volumes: BTreeMap<String, ConfigVolume>,
    /// Files of the host that become secrets and configs.
    pub host_files: Vec<PathBuf>,
    /// What Compose printed, for the manifest.
    pub json: Value,
}

/// A service of a compose file.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfigService {
    /// `None` for an image that is built and named after project and service.
    pub image: Option<String>,
    pub container_name: Option<String>,
    scale: Option<usize>,
    deploy: Option<Deploy>,
    #[serde(default)]
    pub volumes: Vec<ConfigMount>,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub environment: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub post_start: Vec<Value>,
    #[serde(default)]
    pub pre_stop: Vec<Value>,
    /// A program of the host that `up` runs in the place of a container.
    pub provider: Option<Value>,
    #[serde(default)]
    pub privileged: bool,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub cap_add: Vec<String>,
    pub pid: Option<String>,
    pub user: Option<String>,
    /// `up` starts the service only if this is empty.
    #[serde(default)]
    pub profiles: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Deploy {
    replicas: Option<usize>,
}

impl ConfigService {
    /// Returns how many containers of the service `up` starts.
    pub fn replicas(&self) -> usize {
        let of_deploy = self.deploy.as_ref().and_then(|deploy| deploy.replicas);
        self.scale.or(of_deploy).unwrap_or(1)
    }
}

/// A mount of a service, in a compose file.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfigMount {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub target: String,
}

/// A secret or config of a compose file.
#[derive(Clone, Debug, Deserialize)]
struct ConfigFile {
    file: Option<PathBuf>,
}

/// A volume of a compose file.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfigVolume {
    /// The volume's name in the Engine; the key is its name in the file.
    pub name: String,
    #[serde(default)]
    pub external: bool,
}

impl ComposeConfig {
    /// Reads what `docker compose config --format json` prints.
    pub fn from_json(json: Value) -> Result<ComposeConfig> {
        #[derive(Deserialize)]
        struct Known {
            name: String,
            #[serde(default, deserialize_with = "null_as_empty")]
            services: BTreeMap<String, ConfigService>,
            #[serde(default, deserialize_with = "null_as_empty")]
            volumes: BTreeMap<String, ConfigVolume>,
            #[serde(default, deserialize_with = "null_as_empty")]
            secrets: BTreeMap<String, ConfigFile>,
            #[serde(default, deserialize_with = "null_as_empty")]
            configs: BTreeMap<String, ConfigFile>,
        }
        let Known {
            name,
            services,
            volumes,
            secrets,
            configs,
        } = Known::deserialize(&json)
            .context("cannot parse the output of `docker compose config`")?;
        Ok(ComposeConfig {
            name,
            services,
            volumes,
            host_files: secrets
                .into_values()
                .chain(configs.into_values())
                .filter_map(|file| file.file)
                .collect(),
            json,
        })
    }
}
