//! Compose, run as a command: reading a stack's configuration, creating and
//! removing its containers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::address::Engine;
use super::command::{ENGINE_SLACK, compose, docker, output_lines};
use super::compose_config::ComposeConfig;
use super::compose_error::OwnWords;
use crate::sys::process::{Exit, Output, Program};
use crate::sys::signals::Signals;

/// Time and memory for reading a stack's files. They are usually read within a
/// second, with 60 MB.
const READING_LIMIT: Duration = Duration::from_secs(30);
const READING_MEMORY: u64 = 384 << 20;
/// The largest of a stack's own files that is given to Compose.
const LARGEST_FILE: u64 = 16 << 20;

/// Files that Compose looks for if it is told no others (compose-spec, "Compose file").
pub const MAIN_COMPOSE_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// Files that change what one of these says, if they lie beside it.
const OVERRIDING_COMPOSE_FILES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// The file with variables that Compose reads if it is told no other.
pub const DEFAULT_ENV_FILE: &str = ".env";

/// Returns the names of all compose files that Compose reads if it is told no others.
pub fn default_compose_files() -> impl Iterator<Item = &'static str> {
    let main = MAIN_COMPOSE_FILES.into_iter();
    main.chain(OVERRIDING_COMPOSE_FILES)
}

/// Whether Compose finds a file of this name if it is told no others.
pub fn is_default_compose_file(name: &str) -> bool {
    default_compose_files().any(|known| known == name)
}

/// Whether a directory has a compose file that Compose finds by itself. A file that only
/// overrides another one is none.
pub fn has_compose_file(dir: &Path) -> bool {
    let mut paths = MAIN_COMPOSE_FILES.iter().map(|name| dir.join(name));
    paths.any(|path| path.is_file())
}

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

/// The options by which Compose finds a stack, and the Engine that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComposeProject {
    /// Compose runs here, and finds the compose file, overrides and `.env`.
    pub dir: PathBuf,
    /// The project's name, if Compose would choose another one by itself.
    pub name: Option<String>,
    pub files: Vec<PathBuf>,
    pub env_files: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "Engine::is_default")]
    pub engine: Engine,
}

impl ComposeProject {
    /// Returns the same files as those of the project `name`.
    pub fn named(&self, name: &str) -> ComposeProject {
        ComposeProject {
            name: Some(name.to_owned()),
            ..self.clone()
        }
    }

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
        let mut all = Vec::new();
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
        compose(&self.engine, all).current_dir(&self.dir)
    }

    /// The files that Compose reads first. They may not exist.
    pub fn own_files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = match self.files.as_slice() {
            [] => default_compose_files().map(Path::new).collect(),
            given => given.iter().map(PathBuf::as_path).collect(),
        };
        files.extend(self.own_env_files());
        files
    }

    /// Those of them that set variables.
    pub fn own_env_files(&self) -> Vec<&Path> {
        match self.env_files.as_slice() {
            [] => vec![Path::new(DEFAULT_ENV_FILE)],
            given => given.iter().map(PathBuf::as_path).collect(),
        }
    }

    /// Refuses what would be read without end. Nothing is opened for that, since
    /// opening a FIFO waits. Compose passes over a directory by itself.
    fn check_files(&self) -> Result<()> {
        for file in self.own_files() {
            let path = self.dir.join(file);
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            let path = path.display();
            if !metadata.is_file() && !metadata.is_dir() {
                bail!("{path} leads to a device, FIFO or socket; it must be a regular file");
            }
            if metadata.len() > LARGEST_FILE && metadata.is_file() {
                let (size, most) = (metadata.len() >> 20, LARGEST_FILE >> 20);
                bail!("{path} has {size} MiB; it may have at most {most} MiB");
            }
        }
        Ok(())
    }

    /// Runs a command that reads the stack's files and changes nothing.
    fn read<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        self.check_files()?;
        self.command(args)
            .memory_limit(READING_MEMORY)
            .limit(READING_LIMIT)
            .output()
    }

    fn own_words(&self) -> OwnWords {
        OwnWords::of(&self.dir, self.own_files())
    }

    /// Resolves the compose file, its overrides and `.env`.
    ///
    /// # Errors
    /// When there is no compose file, or it does not parse. Of Compose's message,
    /// only what does not quote files of the host is in the error.
    pub fn config(&self) -> Result<ComposeConfig> {
        let context = || {
            let dir = self.dir.display();
            match self.engine.user_id() {
                // That user runs Compose, and must be able to enter the directory.
                Some(user) => format!("cannot read the compose file in {dir} as user {user}"),
                None => format!("cannot read the compose file in {dir}"),
            }
        };
        let output = self
            .read(["config", "--format", "json"])
            .with_context(context)?;
        if let Some((exit, stderr)) = output.failure() {
            let error = self.own_words().error(&self.dir, &exit, &stderr);
            return Err(error).with_context(context);
        }
        let warnings = String::from_utf8_lossy(&output.stderr);
        if !warnings.trim().is_empty() {
            let warnings = self.own_words().shown(&warnings);
            tracing::debug!(warnings, "compose config");
        }
        let resolved: serde_json::Value = serde_json::from_slice(&output.stdout)
            .context("cannot parse the output of `docker compose config`")?;
        ComposeConfig::from_json(resolved)
    }

    /// Checks a command that reads the stack's files before it acts. If they cannot
    /// be read, the error is that of [`config`](Self::config), which quotes no file.
    fn check(&self, output: Output) -> Result<Output> {
        if matches!(output.exit, Exit::Failure(_)) {
            self.config()?;
        }
        output.check()
    }

    /// Runs `compose down`: containers and networks are removed, volumes stay.
    /// A failure is never a [refusal](super::was_refused), because the stop of
    /// other containers may be under way.
    pub fn down(&self, grace: Option<Duration>, longest_stop: Duration) -> Result<()> {
        let mut args = vec!["down".to_owned()];
        if let Some(grace) = grace {
            args.extend(["--timeout".to_owned(), grace.as_secs().to_string()]);
        }
        let output = self
            .command(args)
            .limit(longest_stop + ENGINE_SLACK)
            .output()?;
        self.check(output).map(drop)
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
        self.check_files()?;
        let output = self.command(args).limit(ENGINE_SLACK * 3).output()?;
        self.check(output).map(drop)
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
        self.check_files()?;
        let output = self
            .command(create_args(services, replicas, existing))
            .limit(ENGINE_SLACK * 3)
            .output()?;
        self.check(output).map(drop)
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
        let output = self.read(["--dry-run".to_owned()].into_iter().chain(create))?;
        let output = self.check(output)?;
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        Ok(told.lines().filter_map(outdated_container).collect())
    }

    /// Starts all services from local images, each when those it depends on are
    /// as it needs them. A signal ends it.
    pub fn up_all(&self, limit: Duration, signals: &Signals) -> Result<()> {
        let output = self
            .command(["up", "--detach", "--no-build", "--pull", "never"])
            .limit(limit + ENGINE_SLACK * 2)
            .interruptible_by(signals)
            .output()?;
        self.check(output).map(drop)
    }

    /// Runs a command in the container of a service.
    ///
    /// # Errors
    /// When the command does not exit with status 0.
    pub fn exec(&self, service: &str, argv: &[String], signals: &Signals) -> Result<()> {
        let args = ["exec", "-T", service]
            .into_iter()
            .chain(argv.iter().map(String::as_str));
        let output = self
            .command(args)
            .limit(ENGINE_SLACK * 10)
            .interruptible_by(signals)
            .output()?;
        self.check(output).map(drop)
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

impl Engine {
    /// Removes a project's containers, volumes and networks, found by their labels,
    /// until there are none. One look is not enough: the Engine may still be making
    /// something for a client that has ended.
    pub fn remove_project(&self, project: &str) -> Result<()> {
        while self.remove_found(project)? {}
        Ok(())
    }

    /// Removes what one look finds, and returns whether it found anything.
    fn remove_found(&self, project: &str) -> Result<bool> {
        let filter = format!("label=com.docker.compose.project={project}");
        let list = |kind: &str, list: &[&str]| -> Result<Vec<String>> {
            let args = [&[kind], list, &["--quiet", "--filter", &filter]].concat();
            Ok(output_lines(&docker(self, args).output()?.check()?))
        };
        let containers = list("container", &["ls", "--all", "--no-trunc"])?;
        self.remove_containers(&containers)?;
        let volumes = list("volume", &["ls"])?;
        for volume in &volumes {
            self.remove_volume(volume)?;
        }
        let networks = list("network", &["ls", "--no-trunc"])?;
        for network in &networks {
            docker(self, ["network", "rm", network]).output()?.check()?;
        }
        Ok(!(containers.is_empty() && volumes.is_empty() && networks.is_empty()))
    }
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
