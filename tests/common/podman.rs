//! Stacks on the private Podman that `scripts/lib.sh` starts (`ensure_podman`).

use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Place, Stack};

/// The user of the rootless Podman (`scripts/podman`).
pub const USER: u32 = 61000;

fn socket(name: &str) -> PathBuf {
    let run = env::var("DSB_RUN").unwrap_or_else(|_| "/run/docker-stack-backup-dev".to_owned());
    PathBuf::from(run).join(name).join("podman.sock")
}

/// The Engine of root, as in the configuration.
pub fn host() -> String {
    format!("unix://{}", socket("podman").display())
}

/// The Engine of an ordinary user.
pub fn user_host() -> String {
    format!("unix://{}", socket("podman-user").display())
}

/// A copy of `tests/stacks/podman` that runs on Podman.
#[track_caller]
pub fn stack_on_podman(place: &Place) -> Stack {
    let mut stack = place.stack("podman");
    stack.host = Some(host());
    up(&stack);
    stack
}

/// `up --wait`. Without systemd, health is checked only on request.
#[track_caller]
pub fn up(stack: &Stack) {
    let is_up = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_up.load(Ordering::Relaxed) {
                check_health(&format!("{}-db-1", stack.project));
                thread::sleep(Duration::from_millis(100));
            }
        });
        let result = std::panic::catch_unwind(|| stack.up());
        is_up.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}

fn check_health(container: &str) {
    let mut stream = UnixStream::connect(socket("podman")).unwrap();
    let path = format!("/v5.0.0/libpod/containers/{container}/healthcheck");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}
