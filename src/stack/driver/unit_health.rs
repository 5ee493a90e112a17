//! The health of containers that units run. systemd knows of it only where Podman tells it
//! (`--sdnotify=healthy`).

use crate::engine::{CheckPace, Container, Engine, Health, Status};
use crate::stack::unit_containers::CheckedContainer;

/// Says of each container that is not healthy how it is. An Engine that does not answer
/// counts as such a container.
pub(super) fn unhealthy(checked: &[CheckedContainer]) -> Vec<String> {
    let mut engines: Vec<&Engine> = Vec::new();
    for container in checked {
        if !engines.contains(&&container.engine) {
            engines.push(&container.engine);
        }
    }
    let of_engine = |engine: &Engine| -> Vec<String> {
        let own = checked.iter().filter(|checked| checked.engine == *engine);
        let names: Vec<String> = own.map(|checked| checked.name.clone()).collect();
        let found = engine.containers_of(names.clone());
        let mut present = match found {
            Ok(present) => present,
            Err(error) => {
                let names = names.join(", ");
                return vec![format!("cannot see whether {names} is healthy: {error:#}")];
            }
        };
        engine.check_health(&mut present, CheckPace::Soon);
        let pending = names.iter().filter_map(|name| {
            let reason = pending(present.iter().find(|container| container.name == *name))?;
            Some(format!("the container {name} {reason}"))
        });
        pending.collect()
    };
    engines.into_iter().flat_map(of_engine).collect()
}

/// Says why a container is not healthy. One whose new version has no health check counts as
/// healthy when it runs.
fn pending(container: Option<&Container>) -> Option<String> {
    let Some(container) = container else {
        return Some("is not there yet".to_owned());
    };
    match (container.status, container.health) {
        (Status::Running, None | Some(Health::Healthy | Health::None)) => None,
        (Status::Running, Some(health)) => {
            let probe = container.last_probe.as_ref();
            let probe = probe.map_or_else(String::new, |probe| format!(": {probe}"));
            let health = format!("{health:?}").to_lowercase();
            Some(format!("is not healthy ({health}{probe})"))
        }
        (Status::Paused, _) => Some("is paused".to_owned()),
        (Status::Restarting, _) => Some("keeps restarting".to_owned()),
        (Status::Stopped, _) => Some("does not run".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_of_a_unit_is_waited_for_until_it_is_healthy() {
        let container = |status: &str, health: Option<&str>| {
            Container::from_json(json!({
                "Id": "x", "Name": "/x", "Image": "i",
                "State": {
                    "Status": status, "StartedAt": "", "ExitCode": 0,
                    "Health": health.map(|health| json!({"Status": health})),
                },
                "Config": {}, "HostConfig": {},
            }))
        };
        for (found, expected) in [
            (None, Some("is not there yet")),
            (
                Some(container("running", Some("starting"))),
                Some("is not healthy (starting)"),
            ),
            (
                Some(container("running", Some("unhealthy"))),
                Some("is not healthy (unhealthy)"),
            ),
            (
                Some(container("exited", Some("healthy"))),
                Some("does not run"),
            ),
            // The controls.
            (Some(container("running", Some("healthy"))), None),
            (Some(container("running", None)), None),
        ] {
            assert_eq!(pending(found.as_ref()).as_deref(), expected, "{found:?}");
        }
        assert!(unhealthy(&[]).is_empty());
    }

    #[test]
    fn an_engine_that_does_not_answer_keeps_its_containers_from_being_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::at(&format!("unix://{}/no.sock", dir.path().display())).unwrap();
        let checked = ["db", "web"].map(|name| CheckedContainer {
            name: name.to_owned(),
            engine: engine.clone(),
        });
        let found = unhealthy(&checked);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("cannot see whether db, web is healthy"));
    }
}
