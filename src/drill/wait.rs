//! Waits until the services of a throw-away project are up.
//!
//! `docker compose up --wait` is not used, because it fails for a service whose
//! health check is switched off. Whether a service stays up is looked at afterwards.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::engine::{CheckPace, Container, Engine, Health, Status};
use crate::sys::signals::Signals;

/// Pause between two looks at the containers.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// How far a service has come.
#[derive(Debug, PartialEq)]
enum Progress {
    /// It runs, and is healthy if it has a health check; or it is a job that came
    /// to its end.
    Up,
    Pending(String),
    Failed(String),
}

/// Waits until each service is healthy, or runs if it has no health check.
///
/// # Errors
/// When a service ends or becomes unhealthy, when the time is up, or when a
/// signal asks the program to end.
pub fn wait_until_up(
    engine: &Engine,
    project: &str,
    services: &[String],
    deadline: Instant,
    signals: &Signals,
) -> Result<()> {
    loop {
        signals.check()?;
        let mut containers = engine.compose_containers(Some(project))?;
        engine.check_health(&mut containers, CheckPace::OwnInterval);
        let seen: Vec<(&String, Progress)> = services
            .iter()
            .map(|service| (service, progress(service, &containers)))
            .collect();
        for (service, progress) in &seen {
            if let Progress::Failed(why) = progress {
                bail!(
                    "service {service} {why}{}",
                    last_words(engine, service, &containers)
                );
            }
        }
        let pending = seen.iter().find_map(|(service, progress)| match progress {
            Progress::Pending(why) => Some(format!("service {service} {why}")),
            _ => None,
        });
        match pending {
            None => return Ok(()),
            Some(pending) if Instant::now() > deadline => bail!("{pending}, and the time is up"),
            Some(_) => thread::sleep(LOOK_PAUSE),
        }
    }
}

fn progress(service: &str, containers: &[Container]) -> Progress {
    let Some(container) = containers.iter().find(|c| c.service == service) else {
        return Progress::Pending("has no container".to_owned());
    };
    let is_awaited = || {
        let mut dependencies = containers.iter().flat_map(|c| &c.depends_on);
        dependencies
            .any(|d| d.service == service && d.condition == "service_completed_successfully")
    };
    match (container.status, container.health) {
        (Status::Stopped, _) if container.started_at.starts_with("0001-") => {
            Progress::Pending("is not started".to_owned())
        }
        (Status::Stopped, _) if container.exit_code == 0 && is_awaited() => Progress::Up,
        (Status::Stopped, _) => {
            Progress::Failed(format!("ended with exit status {}", container.exit_code))
        }
        (Status::Paused | Status::Restarting, _) => {
            Progress::Pending(format!("is {:?}", container.status).to_lowercase())
        }
        (Status::Running, Some(Health::Unhealthy)) => Progress::Failed("is unhealthy".to_owned()),
        (Status::Running, Some(Health::Starting)) => {
            Progress::Pending("is not healthy yet".to_owned())
        }
        (Status::Running, _) => Progress::Up,
    }
}

/// Returns the end of a service's log, for a message.
fn last_words(engine: &Engine, service: &str, containers: &[Container]) -> String {
    let container = containers.iter().find(|c| c.service == service);
    let lines = container.map(|container| engine.last_log_lines(&container.id, 5));
    match lines.unwrap_or_default().join(" | ") {
        lines if lines.is_empty() => lines,
        lines => format!(" (its log ends: {lines})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(service: &str, state: Value, depends_on: &str) -> Container {
        Container::from_json(json!({
            "Id": service, "Name": service, "Image": "", "State": state, "HostConfig": {},
            "Config": {"Labels": {
                "com.docker.compose.service": service,
                "com.docker.compose.depends_on": depends_on,
            }},
        }))
    }

    #[test]
    fn a_service_is_up_when_it_is_healthy_or_runs_without_a_health_check() {
        let running = |health: Value| {
            let state = json!({
                "Status": "running", "StartedAt": "2026", "ExitCode": 0, "Health": health,
            });
            progress("app", &[container("app", state, "")])
        };
        assert_eq!(running(Value::Null), Progress::Up);
        assert_eq!(running(json!({"Status": "none"})), Progress::Up);
        assert_eq!(running(json!({"Status": "healthy"})), Progress::Up);
        let starting = running(json!({"Status": "starting"}));
        assert!(matches!(starting, Progress::Pending(_)), "{starting:?}");
        let unhealthy = running(json!({"Status": "unhealthy"}));
        assert!(matches!(unhealthy, Progress::Failed(_)), "{unhealthy:?}");
    }

    #[test]
    fn only_a_job_that_another_service_waits_for_may_end() {
        let ended = |exit_code: i64, depends_on: &str| {
            let state = |status: &str, exit_code: i64| json!({"Status": status, "StartedAt": "2026", "ExitCode": exit_code});
            let job = container("job", state("exited", exit_code), "");
            let app = container("app", state("running", 0), depends_on);
            progress("job", &[job, app])
        };
        let waits = "job:service_completed_successfully:false";
        assert_eq!(ended(0, waits), Progress::Up);
        for (exit_code, depends_on) in [(1, waits), (0, ""), (0, "job:service_started:false")] {
            let progress = ended(exit_code, depends_on);
            assert!(matches!(progress, Progress::Failed(_)), "{progress:?}");
        }
        let missing = progress("job", &[]);
        assert!(matches!(missing, Progress::Pending(_)), "{missing:?}");
    }
}
