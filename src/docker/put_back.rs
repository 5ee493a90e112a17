//! What a restore needs of Docker beyond what a backup does.

use anyhow::{Context, Result};

use super::{ComposeProject, ENGINE_SLACK, Volume, docker};

/// Creates a volume with the driver, labels and options it had, so that Compose
/// takes it for its own.
pub fn create_volume(volume: &Volume) -> Result<()> {
    let mut args = ["volume", "create", "--driver", &volume.driver]
        .map(str::to_owned)
        .to_vec();
    for (option, pairs) in [("--label", &volume.labels), ("--opt", &volume.options)] {
        for (key, value) in pairs {
            args.extend([option.to_owned(), format!("{key}={value}")]);
        }
    }
    args.push(volume.name.clone());
    let created = docker(args).output()?.check();
    created
        .map(drop)
        .with_context(|| format!("create volume {}", volume.name))
}

/// One that does not exist is no error.
pub fn remove_volume(name: &str) -> Result<()> {
    let removed = docker(["volume", "rm", "--force", name]).output()?.check();
    removed
        .map(drop)
        .with_context(|| format!("remove volume {name}"))
}

/// Removes containers, running or not, and their anonymous volumes.
pub fn remove_containers(ids: &[String]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let args = ["rm", "--force", "--volumes"]
        .into_iter()
        .map(str::to_owned)
        .chain(ids.iter().cloned());
    docker(args)
        .limit(ENGINE_SLACK * 2)
        .output()?
        .check()
        .map(drop)
}

impl ComposeProject {
    /// Creates the containers of these services and of what they depend on, and
    /// makes those anew that the compose file no longer describes. Nothing is
    /// started, pulled or built. (With `--no-deps` Compose would forget
    /// `depends_on`, and make dependants anew for that.)
    pub fn create(&self, services: &[String]) -> Result<()> {
        let args = ["up", "--no-start", "--no-build", "--pull", "never"];
        let args = args
            .into_iter()
            .map(str::to_owned)
            .chain(services.iter().cloned());
        self.compose(args)
            .limit(ENGINE_SLACK * 3)
            .output()?
            .check()
            .map(drop)
    }
}
