//! What a restore needs of Docker beyond what a backup does.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{ComposeProject, ENGINE_SLACK, Volume, docker};
use crate::sys::signals::Signals;

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
    /// `depends_on`, and make dependants anew for that.) `replicas` is how many
    /// containers a service gets, where that is not what the file says.
    pub fn create(&self, services: &[String], replicas: &BTreeMap<String, usize>) -> Result<()> {
        let args = ["up", "--no-start", "--no-build", "--pull", "never"];
        let scales = replicas
            .iter()
            .flat_map(|(service, count)| ["--scale".to_owned(), format!("{service}={count}")]);
        let args = args
            .into_iter()
            .map(str::to_owned)
            .chain(scales)
            .chain(services.iter().cloned());
        self.compose(args)
            .limit(ENGINE_SLACK * 3)
            .output()?
            .check()
            .map(drop)
    }

    /// Starts all services of a throw-away project from local images, and waits
    /// until they run and are healthy, or an end is asked for.
    pub fn up_drill(&self, limit: Duration, signals: &Signals) -> Result<()> {
        let secs = limit.as_secs().to_string();
        let args = [
            "up",
            "--detach",
            "--no-build",
            "--pull",
            "never",
            "--wait",
            "--wait-timeout",
            &secs,
        ];
        self.compose(args)
            .limit(limit + ENGINE_SLACK * 2)
            .interruptible_by(signals)
            .output()?
            .check()
            .map(drop)
    }

    /// Runs a command in a service's container; it must succeed.
    pub fn exec_drill(&self, service: &str, argv: &[String], signals: &Signals) -> Result<()> {
        let args = ["exec", "-T", service]
            .into_iter()
            .chain(argv.iter().map(String::as_str));
        self.compose(args)
            .limit(ENGINE_SLACK * 10)
            .interruptible_by(signals)
            .output()?
            .check()
            .map(drop)
    }
}

/// Removes a project's containers, volumes and networks, by their labels, until
/// there are none: what the Engine was making for a client that has ended may
/// be there only after a first look.
pub fn remove_project(project: &str) -> Result<()> {
    while remove_what_is_there(project)? {}
    Ok(())
}

/// Whether anything was.
fn remove_what_is_there(project: &str) -> Result<bool> {
    let filter = format!("label=com.docker.compose.project={project}");
    let listed = |kind: &str, list: &[&str]| -> Result<Vec<String>> {
        let args = [&[kind], list, &["--quiet", "--filter", &filter]].concat();
        Ok(super::lines(docker(args).output()?.check()?))
    };
    let containers = listed("container", &["ls", "--all", "--no-trunc"])?;
    remove_containers(&containers)?;
    let volumes = listed("volume", &["ls"])?;
    for volume in &volumes {
        remove_volume(volume)?;
    }
    let networks = listed("network", &["ls", "--no-trunc"])?;
    for network in &networks {
        docker(["network", "rm", network]).output()?.check()?;
    }
    Ok(!(containers.is_empty() && volumes.is_empty() && networks.is_empty()))
}
