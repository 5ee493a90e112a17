//! Looking up images, networks and volumes: by requests to the Engine's socket where there
//! is one, else by the docker command.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::address::Engine;
use super::command::{docker, inspect, output_lines};
use super::image::Image;
use super::network::Network;
use super::volume::Volume;

impl Engine {
    /// Returns the images of these ids or references; what does not exist is left
    /// out.
    pub fn images(&self, ids: &BTreeSet<String>) -> Result<Vec<Image>> {
        match self.api()? {
            Some(_) if ids.is_empty() => Ok(Vec::new()),
            Some(api) => api.images(ids.iter()).context("cannot inspect the images"),
            None => inspect(self, "image", ids.iter().cloned().collect()),
        }
    }

    /// Returns the networks of these names; names that do not exist are left out.
    pub fn networks(&self, names: &BTreeSet<String>) -> Result<Vec<Network>> {
        match self.api()? {
            Some(_) if names.is_empty() => Ok(Vec::new()),
            Some(api) => api
                .networks(names.iter())
                .context("cannot inspect the networks"),
            None => inspect(self, "network", names.iter().cloned().collect()),
        }
    }

    /// Returns the volumes of these names; names that do not exist are left out.
    ///
    /// # Errors
    /// When the Engine cannot be asked, or belongs to a user and says that a volume is
    /// in a directory of another one.
    pub fn volumes(&self, names: &BTreeSet<String>) -> Result<Vec<Volume>> {
        let found: Vec<Volume> = match self.api()? {
            Some(_) if names.is_empty() => return Ok(Vec::new()),
            Some(api) => api
                .volumes(names.iter())
                .context("cannot inspect the volumes")?,
            None => inspect(self, "volume", names.iter().cloned().collect())?,
        };
        if let Some(owner) = self.owner() {
            for volume in &found {
                let places = volume.bound().into_iter().chain([&*volume.mountpoint]);
                for place in places {
                    owner.check_owns(place, &format_args!("volume {}", volume.name))?;
                }
            }
        }
        Ok(found)
    }

    /// Returns the names of the volumes that Compose made for a project.
    pub fn project_volumes(&self, project: &str) -> Result<Vec<String>> {
        let label = format!("com.docker.compose.project={project}");
        if let Some(api) = self.api()? {
            return api.volume_names(&label).context("cannot list the volumes");
        }
        let filter = format!("label={label}");
        let listed = docker(self, ["volume", "ls", "--quiet", "--filter", &filter]).output()?;
        Ok(output_lines(&listed.check()?))
    }
}
