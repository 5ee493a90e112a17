//! Listing, stopping, starting and pausing containers: by requests to the
//! Engine's socket where there is one, else by the docker command. The other
//! operations on containers always use the command.

use crate::sys::progress;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::address::Engine;
use super::api::Api;
use super::command::{ENGINE_SLACK, check_request, docker, inspect, output_lines};
use super::container::{Container, Status};
use super::error::{combine_errors, is_unreachable, was_refused};
use super::json::null_as_empty;
use super::parallel::in_parallel;
use crate::sys::format::last_lines;

/// Pause between two attempts while the Engine does not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Lists the containers that Compose made, of one project or of all. Containers
    /// of `compose run` are among them. The list is sorted by name.
    pub fn compose_containers(&self, project: Option<&str>) -> Result<Vec<Container>> {
        let label = match project {
            Some(project) => format!("com.docker.compose.project={project}"),
            None => "com.docker.compose.project".to_owned(),
        };
        self.containers_with(Some(&label))
    }

    /// Lists every container of this Engine, whoever made it, sorted by name.
    ///
    /// Whether a container runs is taken from `inspect`, not from `ps`: the view of
    /// `ps` lags behind, and for a moment it still lists as running what `stop` has
    /// reported as ended.
    pub fn containers(&self) -> Result<Vec<Container>> {
        self.containers_with(None)
    }

    /// Does the same where an Engine is not needed: without its socket there is none.
    pub fn containers_if_any(&self) -> Result<Vec<Container>> {
        match self.socket() {
            Some(socket) if !socket.exists() => Ok(Vec::new()),
            _ => self.containers(),
        }
    }

    /// Lists every container like [`containers`](Engine::containers), if the Engine has
    /// a socket and answers within about this time.
    pub fn containers_within(&self, limit: Duration) -> Result<Vec<Container>> {
        let Some(api) = self.api()? else {
            return self.containers();
        };
        let api = Api {
            limit,
            ..api.clone()
        };
        let ids = api.container_ids(None).context("cannot list containers")?;
        let raw = api.inspect(&ids).context("cannot inspect the containers")?;
        Ok(raw.into_iter().map(Container::from).collect())
    }

    fn containers_with(&self, label: Option<&str>) -> Result<Vec<Container>> {
        let ids = match self.api()? {
            Some(api) => api.container_ids(label),
            None => {
                let mut args = vec!["ps", "--all", "--quiet", "--no-trunc"];
                let filter = label.map(|label| format!("label={label}"));
                args.extend(filter.iter().flat_map(|filter| ["--filter", filter]));
                let listed = docker(self, args).output()?.check();
                listed.map(|listed| output_lines(&listed))
            }
        };
        self.containers_of(ids.context("cannot list containers")?)
    }

    /// Looks at the containers with these ids, sorted by name. Those that are gone are
    /// left out.
    pub fn containers_of(&self, ids: Vec<String>) -> Result<Vec<Container>> {
        let raw = match self.api()? {
            Some(api) => api.inspect(&ids).context("cannot inspect the containers")?,
            None => inspect(self, "container", ids)?,
        };
        let mut containers: Vec<Container> = raw.into_iter().map(Container::from).collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    /// Sends containers their stop signal, all at once, and waits until they have
    /// ended. After `grace` (or, without it, each container's own stop timeout) the
    /// Engine kills them. `longest_grace` is the longest of these times; a request
    /// that takes much longer fails, because the Engine itself hangs.
    ///
    /// # Errors
    /// When any container was not stopped. If the error is a
    /// [refusal](super::was_refused), no stop is under way any more.
    pub fn stop(
        &self,
        ids: &[String],
        grace: Option<Duration>,
        longest_grace: Duration,
    ) -> Result<()> {
        let limit = longest_grace + ENGINE_SLACK;
        let Some(api) = self.api()? else {
            let mut args = vec!["stop".to_owned()];
            if let Some(grace) = grace {
                args.extend(["--time".to_owned(), grace.as_secs().to_string()]);
            }
            args.extend(ids.iter().cloned());
            return check_request(docker(self, args).limit(limit).output()?);
        };
        combine_errors(in_parallel(ids, |id| {
            let stop = || api.stop(id, grace, limit);
            stop().or_else(|error| {
                // Podman refuses to stop a container that is paused.
                let is_paused = was_refused(&error) && self.status(id) == Some(Status::Paused);
                match is_paused {
                    true => self.unpause(id).and_then(|()| stop()),
                    false => Err(error),
                }
            })
        }))
    }

    /// Starts a container that exists. It is no error if it runs already.
    pub fn start(&self, id: &str) -> Result<()> {
        self.change_state(id, "start")
    }

    /// Freezes all processes of a container. It is no error if it is paused already.
    pub fn pause(&self, id: &str) -> Result<()> {
        self.change_state(id, "pause")
            .or_else(|error| match self.status(id) {
                Some(Status::Paused) if was_refused(&error) => Ok(()),
                _ => Err(error),
            })
    }

    /// Thaws a container. It is no error if it is not paused.
    pub fn unpause(&self, id: &str) -> Result<()> {
        self.change_state(id, "unpause")
            .or_else(|error| match self.status(id) {
                Some(status) if status != Status::Paused && was_refused(&error) => Ok(()),
                _ => Err(error),
            })
    }

    /// Returns the state of a container; `None` if it is gone or cannot be seen.
    fn status(&self, id: &str) -> Option<Status> {
        let found = self.containers_of(vec![id.to_owned()]).ok()?;
        Some(found.first()?.status)
    }

    fn change_state(&self, id: &str, verb: &str) -> Result<()> {
        match self.api()? {
            Some(api) => api.change_state(id, verb),
            None => check_request(docker(self, [verb, id]).limit(ENGINE_SLACK).output()?),
        }
    }

    /// Returns the last lines that a container logged, for the report of a failed
    /// start; none when they cannot be read. A long line is cut.
    pub fn last_log_lines(&self, id: &str, count: usize) -> Vec<String> {
        let args = ["logs", "--tail", &count.to_string(), id];
        let Ok(output) = docker(self, args).output() else {
            return Vec::new();
        };
        let both = [output.stdout, output.stderr].concat();
        last_lines(&String::from_utf8_lossy(&both), count)
    }

    /// Returns how a container was made.
    pub fn made_with(&self, id: &str) -> Result<MadeWith> {
        let args = ["container", "inspect", "--format", "{{json .}}", id];
        let output = docker(self, args).output()?;
        serde_json::from_slice(&output.check()?.stdout)
            .with_context(|| format!("cannot read how container {id} was made"))
    }

    /// Removes containers, running or not, with their anonymous volumes.
    pub fn remove_containers(&self, ids: &[String]) -> Result<()> {
        self.remove_with(&["rm", "--force", "--volumes"], ids)
    }

    /// Removes containers, running or not. Their anonymous volumes stay.
    pub fn remove_containers_alone(&self, ids: &[String]) -> Result<()> {
        self.remove_with(&["rm", "--force"], ids)
    }

    fn remove_with(&self, remove: &[&str], ids: &[String]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let args = remove
            .iter()
            .map(|word| (*word).to_owned())
            .chain(ids.iter().cloned());
        docker(self, args)
            .limit(ENGINE_SLACK * 2)
            .output()?
            .check()
            .map(drop)
    }
}

/// Sends the Engine a request, again and again while the Engine is away and
/// `goes_on` returns true for the time since the first attempt.
pub fn retry_while_unreachable<T>(
    request: impl Fn() -> Result<T>,
    goes_on: impl Fn(Duration) -> bool,
) -> Result<T> {
    let began = Instant::now();
    loop {
        match request() {
            Err(error) if is_unreachable(&error) && goes_on(began.elapsed()) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the Engine does not answer, waiting for it"
                );
                progress::step();
                thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

/// Whether a start failed because a network is gone to which the container is
/// connected by its id.
pub fn needs_missing_network(error: &str) -> bool {
    error.contains("network") && error.contains("not found")
}

/// Whether a start failed because something else has an address that the container
/// wants, be it in a network or on the host.
pub fn needs_taken_address(error: &str) -> bool {
    let error = error.to_lowercase();
    // The second is Podman's.
    error.contains("address already in use") || error.contains("is already allocated")
}

/// Whether a start failed because another container is gone whose namespace the
/// container shares by its id. Such a start can never succeed.
pub fn needs_missing_container(error: &str) -> bool {
    error.to_lowercase().contains("no such container")
}

/// How a container was made, as far as it is compared with a compose file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MadeWith {
    pub config: MadeWithConfig,
    pub host_config: MadeWithHost,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MadeWithConfig {
    /// In the form `NAME=value`.
    #[serde(deserialize_with = "null_as_empty")]
    pub env: Vec<String>,
    pub image: String,
    pub user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MadeWithHost {
    pub privileged: bool,
    #[serde(deserialize_with = "null_as_empty")]
    pub cap_add: Vec<String>,
    pub pid_mode: String,
}
