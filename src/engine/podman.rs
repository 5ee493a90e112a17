//! How Podman differs from a Docker Engine, whose API it imitates. It is only
//! recognised, and refused: stacks are found and ordered by what Compose and a
//! Docker Engine record about containers, and Podman records other things.

use std::path::Path;

use anyhow::anyhow;

use super::http::Response;

/// Whether Podman gave this response to `/_ping`.
pub(super) fn is_podman(ping: &Response) -> bool {
    ping.header("libpod-api-version").is_some()
}

/// The error for a socket at which Podman answers.
pub(super) fn refusal(socket: &Path) -> anyhow::Error {
    anyhow!(
        "unix://{} is Podman, which is not supported: use a Docker Engine (see DOCKER_HOST)",
        socket.display()
    )
}
