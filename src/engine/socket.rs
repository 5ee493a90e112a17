//! Finds an Engine: the one at its Unix socket.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};

use super::address::Engine;
use super::api::{Api, LIMIT};
use super::error::Unreachable;
use super::http::{Connection, Request};
use super::owner::Owner;
use super::podman;

/// Time limit of the first request to a socket. systemd may hold the socket of an Engine that
/// it has just begun to start.
const PING_LIMIT: Duration = Duration::from_secs(20);

/// The Engines that were found once.
static FOUND: Mutex<BTreeMap<PathBuf, &'static Api>> = Mutex::new(BTreeMap::new());

impl Engine {
    /// Returns what speaks to the Engine at its socket. `None` means that the docker
    /// command must be used: for another host, a context, or the default socket if nobody
    /// listens there. An Engine that was found once is kept; one that did not answer
    /// is looked for again with the next call.
    ///
    /// # Errors
    /// When a socket that the configuration names does not answer, or another user
    /// answers than the one who owns it.
    pub(super) fn api(&self) -> Result<Option<&'static Api>> {
        let Some(socket) = self.socket() else {
            return Ok(None);
        };
        let found = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(api) = found().get(&socket) {
            return Ok(Some(api));
        }
        let api = match greet(&socket, PING_LIMIT) {
            Ok(api) => api,
            Err(error) if self.is_default() && !is_silent(&error) => {
                tracing::debug!("{error:#}; the docker command is used");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        api.owner.check_answers_at(&socket)?;
        tracing::debug!(socket = %socket.display(), api = api.version, "the Engine answers");
        // There are as many as there are Engines in the configuration.
        let api = *found().entry(socket).or_insert(Box::leak(Box::new(api)));
        Ok(Some(api))
    }

    /// Checks that an Engine answers which the configuration names.
    ///
    /// # Errors
    /// Says what to do if it does not.
    pub fn check(&self) -> Result<()> {
        self.api().map(drop)
    }

    /// Whether root, or whoever has root's rights, runs the Engine, so that what it says
    /// is to be relied on for all stacks.
    pub fn is_of_root(&self) -> bool {
        self.owner().is_none_or(Owner::is_root)
    }

    /// Returns the user whose Engine it is, if it is not root's.
    pub fn user_id(&self) -> Option<u32> {
        let owner = self.owner().filter(|owner| !owner.is_root());
        owner.map(|owner| owner.uid)
    }

    /// Returns who runs the Engine, or, while it does not answer, who could.
    pub(super) fn owner(&self) -> Option<Owner> {
        let socket = self.socket()?;
        match self.api() {
            Ok(Some(api)) => Some(api.owner),
            _ => Owner::of_path(&socket),
        }
    }
}

/// Whether somebody listens, and says nothing. The docker command would wait for the same, and
/// longer, with each question anew.
fn is_silent(error: &Error) -> bool {
    let unreachable = error.downcast_ref::<Unreachable>();
    unreachable.is_some_and(|unreachable| unreachable.error.kind() == ErrorKind::TimedOut)
}

fn greet(socket: &Path, limit: Duration) -> Result<Api> {
    let unreachable = |error| Unreachable {
        socket: socket.to_owned(),
        error,
    };
    let mut connection = Connection::open(socket, limit).map_err(unreachable)?;
    let owner = connection.peer().map_err(unreachable)?;
    let request = Request {
        method: "GET",
        target: "/_ping",
        body: None,
    };
    let response = connection.request(request, limit).map_err(unreachable)?;
    let no_engine = || format!("no Engine answers at unix://{}", socket.display());
    ensure!(response.status == 200, "{}", no_engine());
    let version = response.header("api-version").with_context(no_engine)?;
    ensure!(is_version(version), "{}", no_engine());
    Ok(Api {
        socket: socket.to_owned(),
        version: version.to_owned(),
        libpod_version: podman::libpod_version(&response).filter(|version| is_version(version)),
        owner,
        limit: LIMIT,
    })
}

/// Versions are part of paths.
fn is_version(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 32
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::engine::is_unreachable;

    /// What greets a peer that sends this head.
    fn greeted(headers: &str) -> Result<Api> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let _ = stream.read(&mut [0; 1024]).unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nOK");
                stream.write_all(answer.as_bytes()).unwrap();
            });
            greet(&socket, PING_LIMIT)
        })
    }

    #[test]
    fn podman_is_told_from_a_docker_engine_by_its_greeting() {
        let podman = greeted("Libpod-Api-Version: 5.4.2\r\nApi-Version: 1.41\r\n").unwrap();
        assert_eq!(podman.libpod_version.as_deref(), Some("5.4.2"));
        assert_eq!(podman.version, "1.41");
        assert_eq!(podman.owner.uid, nix::unistd::geteuid().as_raw());
        let docker = greeted("Api-Version: 1.45\r\n").unwrap();
        assert_eq!(docker.libpod_version, None);
        for none in ["", "Api-Version: \r\n", "Api-Version: ../x\r\n"] {
            let error = greeted(none).unwrap_err().to_string();
            assert!(error.contains("no Engine answers"), "{error}");
        }
    }

    #[test]
    fn an_engine_that_says_nothing_is_away_and_one_that_is_not_there_may_be_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let silent = greet(&socket, Duration::from_millis(200)).unwrap_err();
        assert!(is_silent(&silent) && is_unreachable(&silent), "{silent:#}");
        drop(listener);
        let gone = greet(&socket, Duration::from_secs(5)).unwrap_err();
        assert!(!is_silent(&gone) && is_unreachable(&gone), "{gone:#}");
    }

    #[test]
    fn a_named_socket_that_does_not_answer_is_an_error_that_says_what_to_do() {
        let engine = |path: &str| Engine::at(&format!("unix://{path}")).unwrap();
        let error = engine("/run/user/4294960000/podman/podman.sock").check();
        let error = error.unwrap_err();
        assert!(is_unreachable(&error), "{error:#}");
        assert!(
            error.to_string().contains("loginctl enable-linger"),
            "{error:#}"
        );
        let error = engine("/nonexistent/podman.sock").check().unwrap_err();
        let text = error.to_string();
        assert!(
            !text.contains("enable-linger") && text.contains("does it run"),
            "{text}"
        );
    }
}
