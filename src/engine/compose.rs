//! Compose, run as a command: reading a stack's configuration, creating and
//! removing its containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::command::{ENGINE_SLACK, docker, output_lines};
use super::compose_config::ComposeConfig;
use super::control::remove_containers;
use super::volume::remove_volume;
use crate::sys::process::Program;
use crate::sys::signals::Signals;

/// Variables that make Compose take another stack than the one that is meant.
/// They are for the shell of an admin, not for a job over many stacks.
const COMPOSE_SELECTORS: [&str; 6] = [
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
    "COMPOSE_PATH_SEPARATOR",
    "COMPOSE_DISABLE_ENV_FILE",
];

/// What `up` does with containers that exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Keep,
    /// Those that differ from the compose file are replaced.
    Update,
    Replace,
}

impl Existing {
    fn option(self) -> Option<&'static str> {
        match self {
            Existing::Keep => Some("--no-recreate"),
            Existing::Update => None,
            Existing::Replace => Some("--force-recreate"),
        }
    }
}

/// The options by which Compose finds a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComposeProject {
    /// Compose runs here, and finds the compose file, overrides and `.env`.
    pub dir: PathBuf,
    /// The project's name, if Compose would choose another one by itself.
    pub name: Option<String>,
    pub files: Vec<PathBuf>,
    pub env_files: Vec<PathBuf>,
}

impl ComposeProject {
    /// Returns paths relative to the stack's directory, where they are within
    /// it.
    pub fn relative(&self, paths: &[PathBuf]) -> Vec<String> {
        let relative = |path: &PathBuf| path.strip_prefix(&self.dir).unwrap_or(path).to_owned();
        paths
            .iter()
            .map(|path| relative(path).display().to_string())
            .collect()
    }

    fn command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Program {
        let mut all = vec!["compose".to_owned()];
        let mut option = |name: &str, value: &str| all.extend([name.to_owned(), value.to_owned()]);
        if let Some(name) = &self.name {
            option("--project-name", name);
        }
        for file in &self.files {
            option("--file", &file.to_string_lossy());
        }
        for file in &self.env_files {
            option("--env-file", &file.to_string_lossy());
        }
        // All profiles are active, because a running service may have been
        // started under any of them.
        option("--profile", "*");
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        let program = docker(all).current_dir(&self.dir);
        COMPOSE_SELECTORS
            .iter()
            .fold(program, |program, name| program.without_env(name.as_ref()))
    }

    /// Resolves the compose file, its overrides and `.env`.
    ///
    /// # Errors
    /// When there is no compose file, or it does not parse. The message is
    /// Compose's own.
    pub fn config(&self) -> Result<ComposeConfig> {
        let output = self
            .command(["config", "--format", "json"])
            .output()?
            .check()
            .with_context(|| format!("cannot read the compose file in {}", self.dir.display()))?;
        let warnings = String::from_utf8_lossy(&output.stderr);
        for line in warnings.lines() {
            tracing::debug!(line, "compose config");
        }
        let resolved: serde_json::Value = serde_json::from_slice(&output.stdout)
            .context("cannot parse the output of `docker compose config`")?;
        ComposeConfig::from_json(resolved)
    }

    /// Runs `compose down`: containers and networks are removed, volumes stay.
    /// A failure is never a [refusal](super::was_refused), because the stop of
    /// other containers may be under way.
    pub fn down(&self, grace: Option<Duration>, longest_stop: Duration) -> Result<()> {
        let mut args = vec!["down".to_owned()];
        if let Some(grace) = grace {
            args.extend(["--timeout".to_owned(), grace.as_secs().to_string()]);
        }
        self.command(args)
            .limit(longest_stop + ENGINE_SLACK)
            .output()?
            .check()
            .map(drop)
    }

    /// Creates and starts the containers of one service, and of no other.
    /// Nothing is pulled or built: the images it ran with are there.
    pub fn up(&self, service: &str, replicas: usize, existing: Existing) -> Result<()> {
        let scale = format!("{service}={replicas}");
        let args = [
            "up",
            "--detach",
            "--no-deps",
            "--no-build",
            "--pull",
            "never",
        ];
        let args = args
            .into_iter()
            .chain(existing.option())
            .chain(["--scale", &scale, service]);
        self.command(args)
            .limit(ENGINE_SLACK * 3)
            .output()?
            .check()
            .map(drop)
    }

    /// Creates the containers of these services and of their dependencies. Nothing
    /// is started, pulled or built. `replicas` has the number of containers of each
    /// service for which it is not the number in the file.
    ///
    /// `--no-deps` must not be given: Compose would forget `depends_on`, and
    /// would later recreate the dependants because of that.
    pub fn create(
        &self,
        services: &[String],
        replicas: &BTreeMap<String, usize>,
        existing: Existing,
    ) -> Result<()> {
        self.command(create_args(services, replicas, existing))
            .limit(ENGINE_SLACK * 3)
            .output()?
            .check()
            .map(drop)
    }

    /// Returns the names of the existing containers of these services, and of their
    /// dependencies, that [`create`](Self::create) would replace, because they
    /// differ from the compose file. Nothing is changed.
    ///
    /// # Errors
    /// When `create` would fail.
    pub fn outdated(
        &self,
        services: &[String],
        replicas: &BTreeMap<String, usize>,
    ) -> Result<Vec<String>> {
        let create = create_args(services, replicas, Existing::Update);
        let output = self
            .command(["--dry-run".to_owned()].into_iter().chain(create))
            .output()?
            .check()?;
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        Ok(told.lines().filter_map(outdated_container).collect())
    }

    /// Starts all services from local images, each when those it depends on are
    /// as it needs them. A signal ends it.
    pub fn up_all(&self, limit: Duration, signals: &Signals) -> Result<()> {
        self.command(["up", "--detach", "--no-build", "--pull", "never"])
            .limit(limit + ENGINE_SLACK * 2)
            .interruptible_by(signals)
            .output()?
            .check()
            .map(drop)
    }

    /// Runs a command in the container of a service.
    ///
    /// # Errors
    /// When the command does not exit with status 0.
    pub fn exec(&self, service: &str, argv: &[String], signals: &Signals) -> Result<()> {
        let args = ["exec", "-T", service]
            .into_iter()
            .chain(argv.iter().map(String::as_str));
        self.command(args)
            .limit(ENGINE_SLACK * 10)
            .interruptible_by(signals)
            .output()?
            .check()
            .map(drop)
    }
}

fn create_args(
    services: &[String],
    replicas: &BTreeMap<String, usize>,
    existing: Existing,
) -> Vec<String> {
    let scales = replicas
        .iter()
        .flat_map(|(service, count)| ["--scale".to_owned(), format!("{service}={count}")]);
    ["up", "--no-start", "--no-build", "--pull", "never"]
        .into_iter()
        .chain(existing.option())
        .map(str::to_owned)
        .chain(scales)
        .chain(services.iter().cloned())
        .collect()
}

/// Reads a line of a dry run, such as ` DRY-RUN MODE -  Container web-1  Recreate`.
fn outdated_container(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [.., "Container", name, "Recreate"] => Some((*name).to_owned()),
        _ => None,
    }
}

/// Removes a project's containers, volumes and networks, found by their labels,
/// until there are none. One look is not enough: the Engine may still be making
/// something for a client that has ended.
pub fn remove_project(project: &str) -> Result<()> {
    while remove_found(project)? {}
    Ok(())
}

/// Removes what one look finds, and returns whether it found anything.
fn remove_found(project: &str) -> Result<bool> {
    let filter = format!("label=com.docker.compose.project={project}");
    let list = |kind: &str, list: &[&str]| -> Result<Vec<String>> {
        let args = [&[kind], list, &["--quiet", "--filter", &filter]].concat();
        Ok(output_lines(&docker(args).output()?.check()?))
    };
    let containers = list("container", &["ls", "--all", "--no-trunc"])?;
    remove_containers(&containers)?;
    let volumes = list("volume", &["ls"])?;
    for volume in &volumes {
        remove_volume(volume)?;
    }
    let networks = list("network", &["ls", "--no-trunc"])?;
    for network in &networks {
        docker(["network", "rm", network]).output()?.check()?;
    }
    Ok(!(containers.is_empty() && volumes.is_empty() && networks.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_names_the_containers_that_would_be_replaced() {
        let read = outdated_container;
        let name = Some("web-1".to_owned());
        assert_eq!(read(" DRY-RUN MODE -  Container web-1  Recreate "), name);
        assert_eq!(read(" Container web-1 Recreate"), name);
        assert_eq!(read(" DRY-RUN MODE -  Container web-1  Recreated"), None);
        assert_eq!(read(" DRY-RUN MODE -  Container web-1  Running"), None);
        assert_eq!(read(""), None);
    }
}
