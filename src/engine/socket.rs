//! The Engine's own API, through its Unix socket: what stops, starts and looks
//! at containers while a stack is down, without the 30 to 80 ms that each
//! docker command costs before it does anything.
//!
//! <https://docs.docker.com/reference/api/engine/>

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;

use super::Refused;
use super::http::{Answer, Connection};
use super::inspect::RawContainer;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// For what the Engine answers at once; the same as a docker command gets.
const LIMIT: Duration = Duration::from_secs(60);

/// For the first word. After that, the docker command may try.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// An Engine that has answered.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    /// The newest that it speaks, such as `1.45`.
    api_version: String,
}

/// It does not answer now, but may soon: it is being restarted.
#[derive(Debug)]
pub struct Unreachable {
    socket: PathBuf,
    error: io::Error,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Cannot connect to the Docker daemon at unix://{}: {} (does it run, and may this user \
             use its socket?)",
            self.socket.display(),
            self.error
        )
    }
}

impl std::error::Error for Unreachable {}

/// The Engine that the docker command would use; `None` when it must be left
/// to that command: another host, a context, no socket. Found once; an Engine that is away at first is
/// looked for again with the next call.
pub fn engine() -> Option<&'static Engine> {
    static FOUND: OnceLock<Engine> = OnceLock::new();
    if let Some(engine) = FOUND.get() {
        return Some(engine);
    }
    let socket = default_socket()?;
    let engine = Engine::greet(&socket)?;
    tracing::debug!(socket = %socket.display(), api = engine.api_version, "the Engine answers");
    Some(FOUND.get_or_init(|| engine))
}

/// Stacks are found and ordered by what Compose and a Docker Engine say of
/// containers; Podman's API differs in that.
pub fn refuse_podman() -> Result<()> {
    match default_socket() {
        Some(socket) if engine().is_none() && is_podman(&socket) => bail!(
            "unix://{} is Podman, which is not supported: use a Docker Engine (see DOCKER_HOST)",
            socket.display()
        ),
        _ => Ok(()),
    }
}

fn default_socket() -> Option<PathBuf> {
    socket(|name| env::var(name).ok(), current_context)
}

fn ping(socket: &Path) -> Option<Answer> {
    let answer =
        Connection::open(socket).and_then(|mut c| c.request("GET", "/_ping", GREETING_LIMIT));
    answer.ok().filter(|answer| answer.status == 200)
}

fn is_podman(socket: &Path) -> bool {
    ping(socket).is_some_and(|answer| answer.header("libpod-api-version").is_some())
}

/// As the docker command decides it: DOCKER_HOST, then DOCKER_CONTEXT, then
/// `currentContext` of its configuration.
fn socket(
    variable: impl Fn(&str) -> Option<String>,
    current_context: impl Fn(Option<String>) -> Option<String>,
) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(host) = set("DOCKER_HOST") {
        return host.strip_prefix("unix://").map(PathBuf::from);
    }
    let config_dir = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")? + "/.docker"));
    match set("DOCKER_CONTEXT").or_else(|| current_context(config_dir)) {
        Some(context) if context != "default" => None,
        _ => Some(DEFAULT_SOCKET.into()),
    }
}

fn current_context(config_dir: Option<String>) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        current_context: Option<String>,
    }
    let json = fs::read(Path::new(&config_dir?).join("config.json")).ok()?;
    let config: Config = serde_json::from_slice(&json).ok()?;
    config.current_context.filter(|context| !context.is_empty())
}

impl Engine {
    fn greet(socket: &Path) -> Option<Engine> {
        let answer = ping(socket)?;
        if answer.header("libpod-api-version").is_some() {
            return None;
        }
        Some(Engine {
            socket: socket.to_owned(),
            api_version: answer.header("api-version")?.to_owned(),
        })
    }

    /// Ids of all containers, running or not, with this label (`name` or
    /// `name=value`).
    pub fn container_ids(&self, label: Option<&str>) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        let mut target = "/containers/json?all=1".to_owned();
        if let Some(label) = label {
            let filters = serde_json::json!({ "label": [label] }).to_string();
            target += &format!("&filters={}", percent_encoded(&filters));
        }
        let listed: Vec<Listed> = json(&self.call("GET", &target, LIMIT)?)?;
        Ok(listed.into_iter().map(|listed| listed.id).collect())
    }

    /// What is there of these; what is gone meanwhile is left out.
    pub(super) fn inspect(&self, ids: &[String]) -> Result<Vec<RawContainer>> {
        let mut found = Vec::new();
        let mut connection = self.connect()?;
        for id in ids {
            let target = format!("/containers/{id}/json");
            let answer = self.ask(&mut connection, "GET", &target, LIMIT)?;
            if answer.status != 404 {
                found.push(json(&self.judge("GET", &target, answer)?)?);
            }
        }
        Ok(found)
    }

    /// Sends a container its stop signal and returns when it has ended. The
    /// Engine goes on with it when this program is killed meanwhile.
    pub fn stop(&self, id: &str, grace: Option<Duration>, limit: Duration) -> Result<()> {
        let grace = grace.map(|grace| format!("?t={}", grace.as_secs()));
        let target = format!("/containers/{id}/stop{}", grace.unwrap_or_default());
        self.call("POST", &target, limit).map(drop)
    }

    /// `verb`: `start`, `pause` or `unpause`.
    pub fn change(&self, id: &str, verb: &str) -> Result<()> {
        let target = format!("/containers/{id}/{verb}");
        self.call("POST", &target, LIMIT).map(drop)
    }

    fn call(&self, method: &str, target: &str, limit: Duration) -> Result<Answer> {
        let answer = self.ask(&mut self.connect()?, method, target, limit)?;
        self.judge(method, target, answer)
    }

    fn connect(&self) -> Result<Connection> {
        Ok(Connection::open(&self.socket).map_err(|error| self.unreachable(error))?)
    }

    fn ask(
        &self,
        connection: &mut Connection,
        method: &str,
        target: &str,
        limit: Duration,
    ) -> Result<Answer> {
        let versioned = format!("/v{}{target}", self.api_version);
        let began = Instant::now();
        let answer = connection.request(method, &versioned, limit);
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let duration_ms = began.elapsed().as_millis() as u64;
        tracing::debug!(method, target, status, duration_ms, "asked the Engine");
        answer.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => anyhow!(
                "{method} {target}: no answer from the Docker Engine after {} s",
                limit.as_secs()
            ),
            ErrorKind::InvalidData => {
                anyhow!(error).context(format!("{method} {target}: read the Engine's answer"))
            }
            _ => self.unreachable(error).into(),
        })
    }

    fn unreachable(&self, error: io::Error) -> Unreachable {
        Unreachable {
            socket: self.socket.clone(),
            error,
        }
    }

    /// 304 is for what is so already.
    fn judge(&self, method: &str, target: &str, answer: Answer) -> Result<Answer> {
        if matches!(answer.status, 200..300 | 304) {
            return Ok(answer);
        }
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let message = body.as_ref().and_then(|body| body["message"].as_str());
        let said = match message {
            Some(message) => message.trim().to_owned(),
            None => format!("HTTP status {}", answer.status),
        };
        let refused = format!("{method} {target}: error response from daemon: {said}");
        Err(Refused(refused).into())
    }
}

fn json<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).context("understand the Engine's answer")
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
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn the_engine_is_the_one_the_docker_command_would_use() {
        let default = Some(PathBuf::from(DEFAULT_SOCKET));
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(Variables, Option<&str>, Option<PathBuf>); 10] = [
            (&[], None, default.clone()),
            (&[("DOCKER_HOST", "")], None, default.clone()),
            (
                &[("DOCKER_HOST", "unix:///x.sock")],
                None,
                Some("/x.sock".into()),
            ),
            (&[("DOCKER_HOST", "ssh://host")], None, None),
            (&[("DOCKER_HOST", "tcp://host:2376")], None, None),
            (&[("DOCKER_CONTEXT", "far")], None, None),
            (
                &[("DOCKER_CONTEXT", "default")],
                Some("far"),
                default.clone(),
            ),
            (&[], Some("far"), None),
            (&[], Some("default"), default),
            (
                &[("DOCKER_HOST", "unix:///x.sock"), ("DOCKER_CONTEXT", "far")],
                Some("far"),
                Some("/x.sock".into()),
            ),
        ];
        for (variables, context, expected) in cases {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let found = socket(variable, |_| context.map(str::to_owned));
            assert_eq!(found, expected, "{variables:?} {context:?}");
        }
    }

    #[test]
    fn the_current_context_is_read_from_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = || Some(dir.path().display().to_string());
        assert_eq!(current_context(path()), None);
        let cases = [
            (r#"{"currentContext": "far"}"#, Some("far")),
            (r#"{"currentContext": ""}"#, None),
            (r#"{"auths": {}}"#, None),
        ];
        for (json, expected) in cases {
            fs::write(dir.path().join("config.json"), json).unwrap();
            assert_eq!(current_context(path()).as_deref(), expected);
        }
    }

    #[test]
    fn podman_is_told_from_an_engine() {
        let dir = tempfile::tempdir().unwrap();
        for (headers, expected) in [
            ("Libpod-Api-Version: 5.4.2\r\nApi-Version: 1.41\r\n", true),
            ("Api-Version: 1.45\r\n", false),
        ] {
            let socket = dir.path().join(format!("{expected}.sock"));
            let listener = UnixListener::bind(&socket).unwrap();
            let served = thread::spawn(move || {
                for _ in 0..2 {
                    let mut stream = listener.accept().unwrap().0;
                    let _ = stream.read(&mut [0; 1024]).unwrap();
                    let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nOK");
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
            assert_eq!(is_podman(&socket), expected);
            assert_eq!(Engine::greet(&socket).is_none(), expected);
            served.join().unwrap();
        }
        assert!(!is_podman(&dir.path().join("nothing")));
    }

    #[test]
    fn filters_are_encoded() {
        assert_eq!(
            percent_encoded(r#"{"a":["b=c-1"]}"#),
            "%7B%22a%22%3A%5B%22b%3Dc-1%22%5D%7D"
        );
    }
}
