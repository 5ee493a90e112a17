//! How Podman differs from a Docker Engine, whose API it imitates:
//!
//! - It runs health checks from timers of systemd. Without systemd, or between two of
//!   them, a container stays `starting`. It has a request that runs the check at once.
//! - It refuses to stop a container that is paused.
//! - It has other log drivers, and other options of networks.
//!
//! <https://docs.podman.io/en/latest/_static/api.html>

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use jiff::Timestamp;

use super::address::Engine;
use super::container::{Container, Health, Status};
use super::health::{CHECK_PAUSE, CheckPace};
use super::http::Response;
use super::parallel::in_parallel;

/// Where `podman.socket` of the system listens.
const SYSTEM_SOCKET: &str = "unix:///run/podman/podman.sock";

/// Returns the version of Podman's own API from its response to `/_ping`; `None` if
/// another program gave it.
pub(super) fn libpod_version(ping: &Response) -> Option<String> {
    ping.header("libpod-api-version").map(str::to_owned)
}

impl Engine {
    /// Returns the Podman of root, at the socket that every distribution gives it.
    pub fn system_podman() -> Engine {
        Engine::at(SYSTEM_SOCKET).expect("it is the path of a socket")
    }

    /// Whether it is Podman.
    pub fn is_podman(&self) -> bool {
        let api = self.api().ok().flatten();
        api.is_some_and(|api| api.libpod_version.is_some())
    }

    /// Runs the health checks that are due of those of the containers that are not
    /// healthy, and looks at these again. A Docker Engine runs them itself.
    pub fn check_health(&self, containers: &mut [Container], pace: CheckPace) {
        let api = self.api().ok().flatten();
        let Some((api, version)) = api.and_then(|api| Some((api, api.libpod_version.as_ref()?)))
        else {
            return;
        };
        let now = Timestamp::now();
        let is_due = |c: &&Container| {
            let started = c.started_at.parse().ok();
            let mut checks = c.health_checks.iter();
            c.status == Status::Running
                && matches!(c.health, Some(Health::Starting | Health::Unhealthy))
                && checks.any(|checks| checks.is_due(pace, started, now))
        };
        let due: Vec<String> = containers
            .iter()
            .filter(is_due)
            .map(|c| c.id.clone())
            .collect();
        if due.is_empty() {
            return;
        }
        for result in in_parallel(&due, |id| api.check_health(version, id)) {
            if let Err(error) = result {
                // It may have ended meanwhile.
                tracing::debug!("cannot check the health of a container: {error:#}");
            }
        }
        for now in self.containers_of(due).unwrap_or_default() {
            if let Some(container) = containers.iter_mut().find(|c| c.id == now.id) {
                *container = now;
            }
        }
    }

    /// Does something that waits for the health of a project's containers. Their checks
    /// are run meanwhile, by their own intervals.
    pub fn checking_health<T>(&self, project: &str, act: impl FnOnce() -> T) -> T {
        struct SetWhenDropped<'a>(&'a AtomicBool);
        impl Drop for SetWhenDropped<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        if !self.is_podman() {
            return act();
        }
        let is_over = AtomicBool::new(false);
        let check_until_over = || {
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(mut containers) = self.compose_containers(Some(project)) {
                    self.check_health(&mut containers, CheckPace::OwnInterval);
                }
                thread::sleep(CHECK_PAUSE);
            }
        };
        thread::scope(|scope| {
            // Even if `act` panics.
            let _end = SetWhenDropped(&is_over);
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, check_until_over) {
                tracing::warn!("cannot start a thread for health checks: {error}");
            }
            act()
        })
    }

    /// Returns the log driver that keeps a container's last lines on this machine.
    pub fn local_log_driver(&self) -> &'static str {
        match self.is_podman() {
            true => "k8s-file",
            false => "local",
        }
    }

    /// Returns names that the Engine gives the host in every container, and that must
    /// lead nowhere in a container that is kept away from the host.
    pub fn host_names(&self) -> &'static [&'static str] {
        match self.is_podman() {
            true => &["host.containers.internal", "host.docker.internal"],
            false => &[],
        }
    }
}

/// The options of an internal network that keep other networks out of it. The host has
/// an address in it all the same, because Podman's name server listens there.
pub(super) fn isolating_options() -> BTreeMap<String, String> {
    BTreeMap::from([("isolate".to_owned(), "true".to_owned())])
}
