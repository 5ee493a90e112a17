//! Finds the Engine: the one at the Unix socket that the docker command would use.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs};

use anyhow::Result;
use serde::Deserialize;

use super::api::Engine;
use super::http::{Connection, Response};
use super::podman;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Time limit of the first request to a socket. If it passes, the docker command
/// is used instead.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// Returns the Engine that the docker command would use. `None` means that the
/// docker command must be used: for another host, a context, or a socket that
/// does not answer. An Engine that was found once is kept; one that did not
/// answer is looked for again with the next call.
pub(super) fn engine() -> Option<&'static Engine> {
    static FOUND: OnceLock<Engine> = OnceLock::new();
    if let Some(engine) = FOUND.get() {
        return Some(engine);
    }
    let socket = configured_socket()?;
    let engine = greet(&socket)?;
    tracing::debug!(socket = %socket.display(), api = engine.api_version, "the Engine answers");
    Some(FOUND.get_or_init(|| engine))
}

/// Fails if Podman answers at the socket.
pub fn refuse_podman() -> Result<()> {
    match configured_socket() {
        Some(socket) if engine().is_none() && is_podman(&socket) => Err(podman::refusal(&socket)),
        _ => Ok(()),
    }
}

fn greet(socket: &Path) -> Option<Engine> {
    let response = ping(socket)?;
    if podman::is_podman(&response) {
        return None;
    }
    Some(Engine {
        socket: socket.to_owned(),
        api_version: response.header("api-version")?.to_owned(),
    })
}

fn is_podman(socket: &Path) -> bool {
    ping(socket).is_some_and(|response| podman::is_podman(&response))
}

fn ping(socket: &Path) -> Option<Response> {
    let response =
        Connection::open(socket).and_then(|mut c| c.request("GET", "/_ping", PING_LIMIT));
    response.ok().filter(|response| response.status == 200)
}

/// Returns the path of the Engine's socket; `None` if it is reached otherwise.
pub fn configured_socket() -> Option<PathBuf> {
    socket(|name| env::var(name).ok(), current_context)
}

/// Decides like the docker command: `DOCKER_HOST`, then `DOCKER_CONTEXT`, then
/// `currentContext` of the command's configuration.
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn the_socket_is_the_one_that_the_docker_command_would_use() {
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
    fn the_current_context_is_read_from_the_docker_configuration() {
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
    fn podman_is_not_taken_for_a_docker_engine() {
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
            assert_eq!(greet(&socket).is_none(), expected);
            served.join().unwrap();
        }
        assert!(!is_podman(&dir.path().join("nothing")));
    }
}
