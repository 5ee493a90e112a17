//! The containers that units run, and the Engines that they may be on. A container that a
//! unit has made is gone when the unit has stopped, and the next start makes another one
//! with the same name.

use std::fs;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::engine::{Container, Engine, is_unreachable};
use crate::stack::running::StateBefore;
use crate::stack::units::UnitSet;

/// A container of a unit that had a health check before the stop. Its start is confirmed
/// when the container with this name is healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckedContainer {
    pub name: String,
    pub engine: Engine,
}

impl CheckedContainer {
    /// Records those of an Engine's containers that are healthy, or about to be.
    pub fn all<'a>(
        engine: &Engine,
        containers: impl IntoIterator<Item = &'a Container>,
    ) -> Vec<CheckedContainer> {
        let is_checked = |container: &&Container| {
            container.health.is_some()
                && !container.one_off
                && StateBefore::of(container) == Some(StateBefore::Healthy)
                && is_name(&container.name)
        };
        let checked = containers.into_iter().filter(is_checked);
        checked
            .map(|container| CheckedContainer {
                name: container.name.clone(),
                engine: engine.clone(),
            })
            .collect()
    }
}

/// Names become parts of requests, and the Engine may be that of a user.
fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_allowed)
}

/// Lists the containers of each Engine that may run some of the units. `engine` is that of
/// the stack. An Engine that the configuration names must answer. Where it names none, the
/// default Engine is asked, and Podman at the socket of the system, if they are there.
///
/// # Errors
/// When one of them does not answer.
pub fn ask(engine: &Engine) -> Result<Vec<(Engine, Vec<Container>)>> {
    if !engine.is_default() {
        return Ok(vec![(engine.clone(), engine.containers()?)]);
    }
    let mut asked = vec![(engine.clone(), engine.containers_if_any()?)];
    let podman = Engine::system_podman();
    if is_another(&podman, engine) {
        match podman.containers() {
            Ok(containers) => asked.push((podman, containers)),
            // The socket of a Podman that was there.
            Err(error) if is_unreachable(&error) => tracing::debug!("{error:#}"),
            Err(error) => return Err(error).context("cannot ask Podman for its containers"),
        }
    }
    Ok(asked)
}

/// Whether the socket of one Engine is there, and is not that of the other one. Podman may
/// be at Docker's socket, too, by a symlink.
fn is_another(one: &Engine, other: &Engine) -> bool {
    let real = |engine: &Engine| fs::canonicalize(engine.socket()?).ok();
    real(one).is_some_and(|socket| real(other) != Some(socket))
}

/// The same, without telling of which Engine each is.
///
/// # Errors
/// When one of them does not answer.
pub fn all(engine: &Engine) -> Result<Vec<Container>> {
    let asked = ask(engine)?.into_iter();
    Ok(asked.flat_map(|(_, containers)| containers).collect())
}

/// Warns of units whose containers are not known, because Podman was not asked.
pub fn unseen(set: &UnitSet, asked: &[(Engine, Vec<Container>)]) -> Option<String> {
    if asked.iter().any(|(engine, _)| engine.is_podman()) {
        return None;
    }
    let unit = set.of_podman().next()?;
    Some(format!(
        "{unit} runs containers by Podman, and Podman does not answer at {}: what they mount is \
         not known; run `systemctl enable --now podman.socket`, or name the socket of the user who \
         runs them as `engine`",
        Engine::system_podman()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_engine_that_is_named_must_answer_and_the_default_one_need_not_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let named = Engine::at(&format!("unix://{}/no.sock", dir.path().display())).unwrap();
        let error = ask(&named).unwrap_err();
        assert!(is_unreachable(&error), "{error:#}");
        // The control: it is what a stack that names none would do.
        assert!(named.containers_if_any().unwrap().is_empty());
    }

    #[test]
    fn podman_at_the_socket_of_docker_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let at =
            |name: &str| Engine::at(&format!("unix://{}/{name}", dir.path().display())).unwrap();
        fs::write(dir.path().join("podman.sock"), "").unwrap();
        assert!(is_another(&at("podman.sock"), &at("docker.sock")));
        fs::write(dir.path().join("other.sock"), "").unwrap();
        assert!(is_another(&at("podman.sock"), &at("other.sock")));
        std::os::unix::fs::symlink("podman.sock", dir.path().join("docker.sock")).unwrap();
        assert!(!is_another(&at("podman.sock"), &at("docker.sock")));
        assert!(!is_another(&at("absent.sock"), &at("other.sock")));
    }

    #[test]
    fn only_containers_that_can_become_healthy_are_waited_for() {
        let container = |name: &str, status: &str, health: Option<&str>| {
            Container::from_json(json!({
                "Id": name, "Name": format!("/{name}"), "Image": "i",
                "State": {
                    "Status": status, "StartedAt": "", "ExitCode": 0,
                    "Health": health.map(|health| json!({"Status": health})),
                },
                "Config": {}, "HostConfig": {},
            }))
        };
        let all = [
            container("healthy", "running", Some("healthy")),
            container("starting", "running", Some("starting")),
            container("no-check", "running", None),
            container("sick", "running", Some("unhealthy")),
            container("ended", "exited", Some("healthy")),
            // What a user's Engine may say.
            container("a?x=/../..", "running", Some("healthy")),
        ];
        let found = CheckedContainer::all(&Engine::DEFAULT, &all).into_iter();
        let names: Vec<String> = found.map(|checked| checked.name).collect();
        assert_eq!(names, ["healthy", "starting"]);
    }
}
