//! Looking up images and volumes: by requests to the Engine's socket where there
//! is one, else by the docker command.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::command::{docker, inspect, output_lines};
use super::image::Image;
use super::socket::engine;
use super::volume::Volume;

/// Returns the images of these ids or references; what does not exist is left
/// out.
pub fn images(ids: &BTreeSet<String>) -> Result<Vec<Image>> {
    match engine() {
        Some(_) if ids.is_empty() => Ok(Vec::new()),
        Some(engine) => engine
            .images(ids.iter())
            .context("cannot inspect the images"),
        None => inspect("image", ids.iter().cloned().collect()),
    }
}

/// Returns the volumes of these names; names that do not exist are left out.
pub fn volumes(names: &BTreeSet<String>) -> Result<Vec<Volume>> {
    match engine() {
        Some(_) if names.is_empty() => Ok(Vec::new()),
        Some(engine) => engine
            .volumes(names.iter())
            .context("cannot inspect the volumes"),
        None => inspect("volume", names.iter().cloned().collect()),
    }
}

/// Returns the names of the volumes that Compose made for a project.
pub fn project_volumes(project: &str) -> Result<Vec<String>> {
    let label = format!("com.docker.compose.project={project}");
    if let Some(engine) = engine() {
        return engine
            .volume_names(&label)
            .context("cannot list the volumes");
    }
    let filter = format!("label={label}");
    let listed = docker(["volume", "ls", "--quiet", "--filter", &filter]).output()?;
    Ok(output_lines(&listed.check()?))
}
