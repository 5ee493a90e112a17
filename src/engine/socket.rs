//! Finds the Engine: the one at the Unix socket that the docker command would use.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;

use super::address::EngineAddress;
use super::api::Engine;
use super::http::{Connection, Request, Response};
use super::podman;

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
    let request = Request {
        method: "GET",
        target: "/_ping",
        body: None,
    };
    let response = Connection::open(socket).and_then(|mut c| c.request(request, PING_LIMIT));
    response.ok().filter(|response| response.status == 200)
}

/// Returns the path of the Engine's socket; `None` if it is reached otherwise.
pub fn configured_socket() -> Option<PathBuf> {
    EngineAddress::configured().socket()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

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
