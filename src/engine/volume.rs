//! Volumes: what the Engine knows about them, creating and removing them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::address::Engine;
use super::command::docker;
use super::json::null_as_empty;

/// A volume, as the Engine describes it and as manifests record it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    #[serde(alias = "Name")]
    pub name: String,
    #[serde(alias = "Driver")]
    pub driver: String,
    #[serde(alias = "Mountpoint")]
    pub mountpoint: PathBuf,
    #[serde(alias = "Labels", default, deserialize_with = "null_as_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(alias = "Options", default, deserialize_with = "null_as_empty")]
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// A volume with the driver `local` and no options, which does not exist yet.
    pub fn usual(name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            driver: "local".to_owned(),
            mountpoint: PathBuf::new(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }

    /// Whether the Engine generated its name, because the mount names no volume.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key("com.docker.volume.anonymous") || is_generated_name(&self.name)
    }

    /// Returns its name, with its driver and options if they are not the usual ones.
    pub fn described(&self) -> String {
        if self.is_usual() {
            return self.name.clone();
        }
        let options = self.options.iter();
        let options = options.map(|(name, value)| format!(", {name}={value}"));
        let options: String = options.collect();
        format!("{} (driver {}{options})", self.name, self.driver)
    }

    /// Whether it has the driver `local` and no options.
    pub fn is_usual(&self) -> bool {
        self.driver == "local" && self.options.is_empty()
    }

    /// Returns the Compose project that the volume was made for, if any.
    pub fn project(&self) -> Option<&str> {
        let label = self.labels.get("com.docker.compose.project");
        label.map(String::as_str)
    }

    /// Returns the directory that the driver `local` binds, if its options `o`
    /// and `device` ask for a bind.
    pub fn bound(&self) -> Option<&Path> {
        let options = self.options.get("o")?;
        let is_bind = self.driver == "local" && options.split(',').any(|o| o == "bind");
        self.options
            .get("device")
            .map(Path::new)
            .filter(|_| is_bind)
    }

    /// Whether its data lies in a directory of this host at all times. Any other
    /// volume (NFS, CIFS, a bind by `device`) is there only while it is mounted.
    pub fn is_plain_local(&self) -> bool {
        self.driver == "local" && !self.options.contains_key("device")
    }
}

/// Whether a volume's name looks like one that the Engine generated: 32 random
/// bytes in hexadecimal.
pub(super) fn is_generated_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Engine {
    /// Creates a volume with the driver, labels and options of `volume`, so that
    /// Compose accepts it as its own.
    pub fn create_volume(&self, volume: &Volume) -> Result<()> {
        let mut args = ["volume", "create", "--driver", &volume.driver]
            .map(str::to_owned)
            .to_vec();
        for (option, pairs) in [("--label", &volume.labels), ("--opt", &volume.options)] {
            for (key, value) in pairs {
                args.extend([option.to_owned(), format!("{key}={value}")]);
            }
        }
        args.push(volume.name.clone());
        let created = docker(self, args).output()?.check();
        created
            .map(drop)
            .with_context(|| format!("cannot create volume {}", volume.name))
    }

    /// Removes a volume. It is no error if there is none of this name.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let removed = docker(self, ["volume", "rm", "--force", name])
            .output()?
            .check();
        removed
            .map(drop)
            .with_context(|| format!("cannot remove volume {name}"))
    }
}
