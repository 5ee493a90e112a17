//! Docker: everything that is specific to the Engine and to Compose is
//! localized in this module. Containers, volumes and Compose's own view of a
//! stack come out as values; decisions are elsewhere.
//!
//! What is done while a stack is down goes through the Engine's socket where
//! there is one, and by the docker command elsewhere; all else, by the command.

mod http;
mod inspect;
mod put_back;
mod socket;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::process::{Exit, Output, Program};
pub use inspect::{ComposeConfig, Container, Dependency, Health, Image, Mount, Status, Volume};
pub use put_back::{create_volume, remove_containers, remove_project, remove_volume};
pub use socket::refuse_podman;
use socket::{Unreachable, engine};

const DOCKER: &str = "docker";

/// What the Engine waits between the stop signal and SIGKILL unless told
/// otherwise (docker stop --time, compose stop_grace_period).
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks while the Engine does not answer.
const ENGINE_LOOK: Duration = Duration::from_secs(1);

/// On top of a grace period: what the Engine may need to act on it.
const ENGINE_SLACK: Duration = Duration::from_secs(60);

/// Variables through which Compose would take another stack than the one
/// asked for: they are for the shell of an admin, not for a job over many stacks.
const COMPOSE_SELECTORS: [&str; 6] = [
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
    "COMPOSE_PATH_SEPARATOR",
    "COMPOSE_DISABLE_ENV_FILE",
];

fn docker<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Program {
    Program::new(DOCKER, args.into_iter().map(|arg| arg.as_ref().to_owned()))
}

/// Versions of the Engine and of Compose, as `check --live` shows them.
///
/// # Errors
/// When either is missing, or the Engine does not answer.
pub fn versions() -> Result<(String, String)> {
    let engine = docker(["version", "--format", "{{.Server.Version}}"])
        .output()?
        .check()
        .context("reach the Docker Engine (does it run, and may this user use its socket?)")?;
    let compose = docker(["compose", "version", "--short"])
        .output()?
        .check()
        .context("run Docker Compose (version 2 is needed, as a plugin of docker)")?;
    Ok((text(&engine), text(&compose)))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The containers Compose made for services: of one project, or of all.
/// One-off containers (`compose run`) are among them. Sorted by name.
pub fn compose_containers(project: Option<&str>) -> Result<Vec<Container>> {
    let label = match project {
        Some(project) => format!("com.docker.compose.project={project}"),
        None => "com.docker.compose.project".to_owned(),
    };
    containers_with(Some(&label))
}

/// Every container of this Engine, whoever made it. Sorted by name.
///
/// Which of them run is not asked of `ps`: its view lags behind, and for a
/// moment it still lists what `stop` has reported as ended.
pub fn containers() -> Result<Vec<Container>> {
    containers_with(None)
}

fn containers_with(label: Option<&str>) -> Result<Vec<Container>> {
    let raw = match engine() {
        Some(engine) => {
            let ids = engine.container_ids(label).context("list containers")?;
            engine.inspect(&ids).context("inspect containers")?
        }
        None => {
            let mut args = vec!["ps", "--all", "--quiet", "--no-trunc"];
            let filter = label.map(|label| format!("label={label}"));
            args.extend(filter.iter().flat_map(|filter| ["--filter", filter]));
            let ids = docker(args).output()?.check().context("list containers")?;
            inspect_all("container", lines(ids))?
        }
    };
    let mut containers: Vec<Container> = raw.into_iter().map(Container::from).collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(containers)
}

fn lines(output: Output) -> Vec<String> {
    text(&output).lines().map(str::to_owned).collect()
}

/// The volumes of these names; names that do not exist are left out.
pub fn volumes(names: &BTreeSet<String>) -> Result<Vec<Volume>> {
    inspect_all("volume", names.iter().cloned().collect())
}

/// Names of the volumes Compose made for a project.
pub fn project_volumes(project: &str) -> Result<Vec<String>> {
    let filter = format!("label=com.docker.compose.project={project}");
    Ok(lines(
        docker(["volume", "ls", "--quiet", "--filter", &filter])
            .output()?
            .check()?,
    ))
}

/// The images of these ids or references; what does not exist is left out.
pub fn images(ids: &BTreeSet<String>) -> Result<Vec<Image>> {
    inspect_all("image", ids.iter().cloned().collect())
}

/// `docker KIND inspect`: prints what it found and exits 1 for what is gone,
/// which is no error here, since things come and go between two calls.
fn inspect_all<T: DeserializeOwned>(kind: &str, names: Vec<String>) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let count = names.len();
    let args = [kind.to_owned(), "inspect".to_owned()]
        .into_iter()
        .chain(names);
    let output = docker(args).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let only_missing = complaint
        .lines()
        .filter(|line| !line.trim().is_empty())
        .all(|line| line.contains("no such") || line.contains("not found"));
    if output.exit != Exit::Success && !only_missing {
        output.check()?;
        unreachable!("check() errs unless the exit was a success");
    }
    let found = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("read `docker {kind} inspect` of {count} names"))?;
    Ok(found)
}

/// Asks the Engine, and one that is away again, for as long as `goes_on` says
/// of the time it has been so.
pub fn patiently<T>(ask: impl Fn() -> Result<T>, goes_on: impl Fn(Duration) -> bool) -> Result<T> {
    let began = Instant::now();
    loop {
        match ask() {
            Err(error) if is_unreachable(&error) && goes_on(began.elapsed()) => {
                tracing::warn!(error = format!("{error:#}"), "the Docker Engine is away");
                thread::sleep(ENGINE_LOOK);
            }
            answer => return answer,
        }
    }
}

/// Sends containers their stop signal, all at once, and waits until they have
/// ended; after `grace` (or, without it, each container's own stop timeout)
/// they are killed. `longest` is the longest of those, to know when the Engine
/// itself hangs.
///
/// # Errors
/// When any was not stopped. If that is a [refusal](is_refusal), none is under
/// way any more.
pub fn stop(ids: &[String], grace: Option<Duration>, longest: Duration) -> Result<()> {
    let limit = longest + ENGINE_SLACK;
    let Some(engine) = engine() else {
        let mut args = vec!["stop".to_owned()];
        if let Some(grace) = grace {
            args.extend(["--time".to_owned(), grace.as_secs().to_string()]);
        }
        args.extend(ids.iter().cloned());
        return answered(docker(args).limit(limit).output()?);
    };
    all(at_once(ids, |id| engine.stop(id, grace, limit)))
}

/// One error of all, which is a refusal if all of them are.
pub fn all(results: Vec<Result<()>>) -> Result<()> {
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    let texts: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
    let texts = texts.join("; ");
    match errors.iter().all(is_refusal) {
        _ if errors.is_empty() => Ok(()),
        true => Err(Refused(texts).into()),
        false => Err(anyhow!(texts)),
    }
}

/// Does the same with each of the items at the same time.
pub fn at_once<T: Sync, R: Send>(
    items: &[T],
    act: impl Fn(&T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let span = tracing::Span::current();
    thread::scope(|scope| {
        let begin = |item| {
            let (span, act) = (span.clone(), &act);
            scope.spawn(move || span.in_scope(|| act(item)))
        };
        let begun: Vec<_> = items.iter().map(begin).collect();
        let end = |thread: thread::ScopedJoinHandle<'_, Result<R>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("panicked")))
        };
        begun.into_iter().map(end).collect()
    })
}

/// Starts one container that exists; one that runs already is left alone.
pub fn start(id: &str) -> Result<()> {
    change(id, "start")
}

/// Freezes all processes of a container; one that is paused is left so.
pub fn pause(id: &str) -> Result<()> {
    change(id, "pause").or_else(|error| unless(error, "already paused"))
}

/// Thaws a container; one that is not paused is left alone.
pub fn unpause(id: &str) -> Result<()> {
    change(id, "unpause").or_else(|error| unless(error, "is not paused"))
}

/// A refusal because it is so already is none.
fn unless(error: anyhow::Error, refusal: &str) -> Result<()> {
    match format!("{error:#}").contains(refusal) {
        true => Ok(()),
        false => Err(error),
    }
}

fn change(id: &str, verb: &str) -> Result<()> {
    match engine() {
        Some(engine) => engine.change(id, verb),
        None => answered(docker([verb, id]).limit(ENGINE_SLACK).output()?),
    }
}

/// A command that ended by itself had the Engine's answer, unless it says that
/// there was none.
fn answered(output: Output) -> Result<()> {
    let has_ended = matches!(output.exit, Exit::Failure(_));
    let error = match output.check() {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    match has_ended && !is_unreachable(&error) {
        true => Err(Refused(format!("{error:#}")).into()),
        false => Err(error),
    }
}

/// The last lines a container logged, for the report of a failed start.
pub fn last_log_lines(id: &str, count: usize) -> Vec<String> {
    let Ok(output) = docker(["logs", "--tail", &count.to_string(), id]).output() else {
        return Vec::new();
    };
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What `up` does with containers that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Keep,
    Replace,
}

impl Existing {
    fn option(self) -> &'static str {
        match self {
            Existing::Keep => "--no-recreate",
            Existing::Replace => "--force-recreate",
        }
    }
}

/// A start that can never succeed: the container shares a namespace with
/// another, by its id, and that one is gone.
pub fn has_lost_its_peer(error: &str) -> bool {
    error.contains("No such container")
}

/// How Compose is told which stack is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComposeProject {
    /// Compose runs here, and finds the compose file, overrides and `.env`.
    pub dir: PathBuf,
    /// Given when it is not what Compose would call it by itself.
    pub name: Option<String>,
    pub files: Vec<PathBuf>,
    pub env_files: Vec<PathBuf>,
}

impl ComposeProject {
    /// Paths as they are from its directory, where they are within it.
    pub fn relative(&self, paths: &[PathBuf]) -> Vec<String> {
        let relative = |path: &PathBuf| path.strip_prefix(&self.dir).unwrap_or(path).to_owned();
        paths
            .iter()
            .map(|path| relative(path).display().to_string())
            .collect()
    }

    fn compose<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Program {
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
        // Every service counts, whichever profiles are active: what runs may
        // have been started under any of them.
        option("--profile", "*");
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        let program = docker(all).current_dir(&self.dir);
        COMPOSE_SELECTORS
            .iter()
            .fold(program, |program, name| program.without_env(name.as_ref()))
    }

    /// What Compose makes of the compose file, its overrides and `.env`.
    ///
    /// # Errors
    /// When there is none, or it does not parse; the message is Compose's own.
    pub fn config(&self) -> Result<ComposeConfig> {
        let output = self
            .compose(["config", "--format", "json"])
            .output()?
            .check()
            .with_context(|| format!("read the compose file in {}", self.dir.display()))?;
        let warnings = String::from_utf8_lossy(&output.stderr);
        for line in warnings.lines() {
            tracing::debug!(line, "compose says");
        }
        let resolved: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("read `docker compose config`")?;
        ComposeConfig::from_json(resolved)
    }

    /// `compose down`: containers and networks go, volumes stay. Its failure is
    /// never a [refusal](is_refusal): other stops may be under way.
    pub fn down(&self, grace: Option<Duration>, longest: Duration) -> Result<()> {
        let mut args = vec!["down".to_owned()];
        if let Some(grace) = grace {
            args.extend(["--timeout".to_owned(), grace.as_secs().to_string()]);
        }
        self.compose(args)
            .limit(longest + ENGINE_SLACK)
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
            .chain([existing.option(), "--scale", &scale, service]);
        self.compose(args)
            .limit(ENGINE_SLACK * 3)
            .output()?
            .check()
            .map(drop)
    }
}

/// The Engine's answer was no: nothing of what it was asked for is under way.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Not so when the Engine is away, or hangs: it may go on with what it was
/// asked for.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    error.is::<Refused>()
}

/// A daemon that does not answer now may answer soon (a restart); told apart
/// from its refusals, for the docker command by what that says.
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    if error.is::<Unreachable>() {
        return true;
    }
    let message = format!("{error:#}").to_lowercase();
    [
        "cannot connect to the docker daemon",
        "connection refused",
        "error during connect",
        ": eof",
        "unexpected eof",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}
