//! The API of an Engine, through its Unix socket. It stops, starts and inspects
//! containers while a stack is down, without the 30 to 80 ms that each docker
//! command costs before it does anything.
//!
//! The socket may belong to an ordinary user, whose answers are bounded: in time, in
//! length, and in what an id may be.
//!
//! <https://docs.docker.com/reference/api/engine/>

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::container::RawContainer;
use super::error::{Refused, Unreachable};
use super::http::{Connection, Received, Request, Response};
use super::image::Image;
use super::json::null_as_empty;
use super::network::Network;
use super::owner::Owner;
use super::volume::Volume;

/// Time limit of a request that the Engine answers at once, and of describing any
/// number of things; the same as that of a docker command.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// How much the descriptions of containers, volumes or images may have in all.
const DESCRIPTION_BYTES_MAX: usize = 256 << 20;

/// An Engine that has answered.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub socket: PathBuf,
    /// The newest version of the API that it speaks, such as `1.45`.
    pub version: String,
    /// The version of Podman's own API, if it is Podman.
    pub libpod_version: Option<String>,
    /// Who runs the Engine.
    pub owner: Owner,
    /// Time limit of a request that is answered at once.
    pub limit: Duration,
}

impl Api {
    /// Returns the ids of all containers, running or not; with a label (`name` or
    /// `name=value`), of those that have it.
    pub fn container_ids(&self, label: Option<&str>) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        let mut target = "/containers/json?all=1".to_owned();
        if let Some(label) = label {
            target += &format!("&filters={}", label_filter(label));
        }
        let listed: Vec<Listed> = parse(&self.call("GET", &target, self.limit)?)?;
        let ids = listed.into_iter().map(|container| container.id);
        ids.map(|id| check_id(&id).map(|()| id)).collect()
    }

    /// Describes these containers. Those that are gone by now are left out.
    pub fn inspect(&self, ids: &[String]) -> Result<Vec<RawContainer>> {
        let found: Vec<RawContainer> =
            self.describe(ids.iter().map(|id| format!("/containers/{id}/json")))?;
        found
            .iter()
            .try_for_each(|container| check_id(container.id()))?;
        Ok(found)
    }

    /// Runs a container's health check now. Only Podman can.
    pub fn check_health(&self, libpod_version: &str, id: &str) -> Result<()> {
        let target = format!("/v{libpod_version}/libpod/containers/{id}/healthcheck");
        let request = Request {
            method: "GET",
            target: &target,
            body: None,
        };
        let mut connection = self.connect()?;
        let response = self.logged(request, |request| connection.request(request, LIMIT))?;
        check("GET", &target, response).map(drop)
    }

    /// Describes these images, by id or reference. What does not exist is left
    /// out.
    pub fn images<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<Vec<Image>> {
        // The slashes of a reference are part of the path.
        let encoded = |name: &String| name.split('/').map(percent_encoded).collect::<Vec<_>>();
        self.describe(names.map(|name| format!("/images/{}/json", encoded(name).join("/"))))
    }

    /// Describes these volumes. What does not exist is left out.
    pub fn volumes<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<Vec<Volume>> {
        self.describe(names.map(|name| format!("/volumes/{}", percent_encoded(name))))
    }

    /// Describes these networks. What does not exist is left out.
    pub fn networks<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<Vec<Network>> {
        self.describe(names.map(|name| format!("/networks/{}", percent_encoded(name))))
    }

    /// Returns the names of the volumes with a label (`name=value`).
    pub fn volume_names(&self, label: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            #[serde(default, deserialize_with = "null_as_empty")]
            volumes: Vec<Volume>,
        }
        let target = format!("/volumes?filters={}", label_filter(label));
        let listed: Listed = parse(&self.call("GET", &target, self.limit)?)?;
        let mut names: Vec<String> = listed.volumes.into_iter().map(|v| v.name).collect();
        names.sort();
        Ok(names)
    }

    /// Gets all `targets` that exist, through one connection, within one time limit.
    fn describe<T: for<'de> Deserialize<'de>>(
        &self,
        targets: impl Iterator<Item = String>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut connection = self.connect()?;
        let began = Instant::now();
        let mut total_bytes = 0;
        for target in targets {
            let request = Request {
                method: "GET",
                target: &target,
                body: None,
            };
            let left = self.limit.saturating_sub(began.elapsed());
            let response = self.send(&mut connection, request, left)?;
            total_bytes += response.body.len();
            ensure!(
                total_bytes <= DESCRIPTION_BYTES_MAX,
                "the descriptions are too long (more than {} MiB)",
                DESCRIPTION_BYTES_MAX >> 20
            );
            if response.status != 404 {
                found.push(parse(&check("GET", &target, response)?)?);
            }
        }
        Ok(found)
    }

    /// Sends a container its stop signal and returns when it has ended. The
    /// Engine goes on with the stop even if this program is killed meanwhile.
    pub fn stop(&self, id: &str, grace: Option<Duration>, limit: Duration) -> Result<()> {
        let grace = grace.map(|grace| format!("?t={}", grace.as_secs()));
        let target = format!("/containers/{id}/stop{}", grace.unwrap_or_default());
        self.call("POST", &target, limit).map(drop)
    }

    /// Changes a container's state; `verb` is `start`, `pause` or `unpause`.
    pub fn change_state(&self, id: &str, verb: &str) -> Result<()> {
        let target = format!("/containers/{id}/{verb}");
        self.call("POST", &target, LIMIT).map(drop)
    }

    /// Prepares a process in a container, and returns its id. `options` is the body of the
    /// request.
    pub fn create_exec(&self, container: &str, options: &Value) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            id: String,
        }
        let target = format!("/containers/{container}/exec");
        let body = options.to_string();
        let response = self.send(
            &mut self.connect()?,
            Request {
                method: "POST",
                target: &target,
                body: Some(&body),
            },
            LIMIT,
        )?;
        Ok(parse::<Created>(&check("POST", &target, response)?)?.id)
    }

    /// Starts a process that was prepared. Its output comes as a multiplexed stream.
    pub fn start_exec(&self, id: &str) -> Result<OutputStream> {
        let target = format!("/exec/{id}/start");
        let request = Request {
            method: "POST",
            target: &target,
            body: Some(r#"{"Detach":false,"Tty":false}"#),
        };
        let mut connection = self.connect()?;
        let response =
            self.exchange(request, |request| connection.request_stream(request, LIMIT))?;
        check("POST", &target, response)?;
        Ok(OutputStream(connection))
    }

    /// Describes a process in a container; `None` if the Engine does not know it any more.
    pub fn inspect_exec(&self, id: &str) -> Result<Option<RawExec>> {
        let found = self.describe(std::iter::once(format!("/exec/{id}/json")))?;
        Ok(found.into_iter().next())
    }

    fn call(&self, method: &str, target: &str, limit: Duration) -> Result<Response> {
        let request = Request {
            method,
            target,
            body: None,
        };
        let response = self.send(&mut self.connect()?, request, limit)?;
        check(method, target, response)
    }

    fn connect(&self) -> Result<Connection> {
        let connection = Connection::open(&self.socket, self.limit);
        let connection = connection.map_err(|error| self.unreachable(error))?;
        // Whoever owns the socket's directory can put the socket of another Engine in
        // its place at any time.
        let owner = connection.peer().map_err(|error| self.unreachable(error))?;
        ensure!(
            owner == self.owner,
            "another user than before answers at unix://{} ({owner} instead of {})",
            self.socket.display(),
            self.owner
        );
        Ok(connection)
    }

    fn send(
        &self,
        connection: &mut Connection,
        request: Request<'_>,
        limit: Duration,
    ) -> Result<Response> {
        self.exchange(request, |request| connection.request(request, limit))
    }

    /// Has `send` send a request to this version of the API.
    fn exchange(
        &self,
        request: Request<'_>,
        send: impl FnOnce(Request<'_>) -> io::Result<Response>,
    ) -> Result<Response> {
        let versioned = format!("/v{}{}", self.version, request.target);
        self.logged(request, |request| {
            send(Request {
                target: &versioned,
                ..request
            })
        })
    }

    /// Logs what `send` does with a request.
    fn logged(
        &self,
        request: Request<'_>,
        send: impl FnOnce(Request<'_>) -> io::Result<Response>,
    ) -> Result<Response> {
        let Request { method, target, .. } = request;
        let began = Instant::now();
        let response = send(request);
        let status = response.as_ref().map_or(0, |response| response.status);
        let duration_ms = began.elapsed().as_millis() as u64;
        tracing::debug!(method, target, status, duration_ms, "request to the Engine");
        response.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => anyhow!(
                "{method} {target}: no answer from the Engine after {} s",
                began.elapsed().as_secs()
            ),
            ErrorKind::InvalidData => anyhow!(error).context(format!(
                "{method} {target}: cannot read the Engine's answer"
            )),
            _ => self.unreachable(error).into(),
        })
    }

    fn unreachable(&self, error: io::Error) -> Unreachable {
        Unreachable {
            socket: self.socket.clone(),
            error,
        }
    }
}

/// A process in a container, in the Engine's own JSON.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RawExec {
    pub running: bool,
    /// `None` before the process has ended, or begun.
    pub exit_code: Option<i64>,
    /// In the namespace of the Engine's host; 0 before it has begun.
    #[serde(default)]
    pub pid: i32,
    #[serde(rename = "ContainerID")]
    pub container_id: String,
}

/// What a process in a container prints, as a multiplexed stream.
pub(super) struct OutputStream(Connection);

impl OutputStream {
    /// Receives what comes within `wait`.
    pub fn receive(&mut self, wait: Duration) -> io::Result<Received> {
        self.0.receive(wait)
    }
}

/// Turns a response that is no success into an error. Status 304 says that the
/// container is in that state already.
fn check(method: &str, target: &str, response: Response) -> Result<Response> {
    if matches!(response.status, 200..300 | 304) {
        return Ok(response);
    }
    let body: Option<Value> = serde_json::from_slice(&response.body).ok();
    let message = body.as_ref().and_then(|body| body["message"].as_str());
    let reason = match message {
        Some(message) => message.trim().to_owned(),
        None => format!("HTTP status {}", response.status),
    };
    let refused = format!("{method} {target}: error response from daemon: {reason}");
    Err(Refused(refused).into())
}

/// Fails unless it can be the id of a container: ids are part of paths and of command
/// lines.
fn check_id(id: &str) -> Result<()> {
    ensure!(
        id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "cannot parse the Engine's answer: {:?} is not the id of a container",
        id.chars().take(80).collect::<String>()
    );
    Ok(())
}

fn parse<T: for<'de> Deserialize<'de>>(response: &Response) -> Result<T> {
    serde_json::from_slice(&response.body).context("cannot parse the Engine's answer")
}

fn label_filter(label: &str) -> String {
    percent_encoded(&serde_json::json!({ "label": [label] }).to_string())
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_percent_encoded() {
        assert_eq!(
            percent_encoded(r#"{"a":["b=c-1"]}"#),
            "%7B%22a%22%3A%5B%22b%3Dc-1%22%5D%7D"
        );
    }
}
