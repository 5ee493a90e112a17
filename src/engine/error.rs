//! The errors that callers tell apart: the Engine refused a request, or it did
//! not answer at all.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use thiserror::Error;

/// The Engine answered no, so nothing that it was asked for is under way.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Refused(pub String);

/// The Engine does not answer now. It may soon, because it may be restarting.
#[derive(Debug, Error)]
#[error(
    "cannot connect to the Engine at unix://{}: {error} ({})",
    socket.display(),
    advice(socket)
)]
pub(super) struct Unreachable {
    pub socket: PathBuf,
    pub error: io::Error,
}

/// Says what may help if nobody answers at a socket.
fn advice(socket: &Path) -> String {
    let user = socket.strip_prefix("/run/user").ok();
    let user = user.and_then(|below| below.components().next()?.as_os_str().to_str());
    let uid = user.and_then(|user| user.parse().ok());
    let Some(uid) = uid.filter(|_| !socket.exists()) else {
        return "does it run, and may this user use its socket?".to_owned();
    };
    let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = found.map_or_else(|| uid.to_string(), |user| user.name);
    let unit = match socket.file_name().and_then(|name| name.to_str()) {
        Some("docker.sock") => "docker.service",
        _ => "podman.socket",
    };
    format!(
        "it is the Engine of a user, which runs while that user's services do: `loginctl \
         enable-linger {name}` starts them at boot, and `systemctl --user enable --now {unit}`, \
         run by that user, adds the Engine to them"
    )
}

/// Whether the Engine refused the request. When it is away or hangs, that is no
/// refusal: it may still act on the request.
pub fn was_refused(error: &anyhow::Error) -> bool {
    error.is::<Refused>()
}

/// Whether the Engine did not answer. It may answer soon, for example after a
/// restart. An error of the docker command is recognised by its message.
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    if error.is::<Unreachable>() {
        return true;
    }
    let message = format!("{error:#}").to_lowercase();
    [
        "cannot connect to the docker daemon",
        // Docker 29.
        "failed to connect to the docker api",
        "dial unix",
        "connection refused",
        "error during connect",
        ": eof",
        "unexpected eof",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

/// Combines the errors of several requests into one. It counts as a refusal
/// only if every one of them is a refusal.
pub fn combine_errors(results: Vec<anyhow::Result<()>>) -> anyhow::Result<()> {
    let errors: Vec<_> = results
        .into_iter()
        .filter_map(anyhow::Result::err)
        .collect();
    let texts: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
    let texts = texts.join("; ");
    match errors.iter().all(was_refused) {
        _ if errors.is_empty() => Ok(()),
        true => Err(Refused(texts).into()),
        false => Err(anyhow::anyhow!(texts)),
    }
}
