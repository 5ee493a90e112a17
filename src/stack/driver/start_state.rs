//! How far the start of a container has come.

use crate::config::StopMethod;
use crate::engine::{Container, Health, Status};
use crate::stack::running::{StateBefore, WasRunning};

/// State of a container that is to be as it was before the stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartState {
    AsBefore,
    /// It runs, but is not healthy yet, or is a job that has not ended yet.
    Runs(String),
    /// It is paused or between two restarts, and may run soon.
    Pending(String),
    /// It does not run; a start would help.
    Down(String),
    /// This program has paused it.
    Paused,
    /// It ended without an error after this program had started it.
    Completed,
}

impl StartState {
    pub fn is_confirmed(&self) -> bool {
        matches!(self, StartState::AsBefore | StartState::Completed)
    }

    /// Whether it runs as before, healthy or not.
    pub fn is_up(&self) -> bool {
        self.is_confirmed() || matches!(self, StartState::Runs(_))
    }

    /// Whether waiting may help.
    pub fn is_pending(&self) -> bool {
        matches!(self, StartState::Runs(_) | StartState::Pending(_))
    }
}

/// Compares a container with its state before the stop. `was_started` says that
/// this program has started it, so that its exit code belongs to this start.
///
/// A container that was only paused counts as it was as soon as it runs: it may be
/// long until the next check tells its health.
pub(super) fn start_state(
    method: StopMethod,
    before: StateBefore,
    container: &Container,
    was_started: bool,
) -> StartState {
    let is_thawed = method == StopMethod::Pause && before != StateBefore::Paused;
    match container.status {
        Status::Paused if is_thawed => StartState::Paused,
        Status::Running if is_thawed && !was_started => StartState::AsBefore,
        Status::Stopped if was_started && before == StateBefore::Restarting => StartState::AsBefore,
        // A service that ends without an error is down all the same.
        Status::Stopped
            if was_started
                && container.exit_code == 0
                && matches!(before, StateBefore::Job | StateBefore::Ended) =>
        {
            StartState::Completed
        }
        Status::Stopped if was_started => {
            StartState::Down(format!("ended with exit status {}", container.exit_code))
        }
        Status::Stopped => StartState::Down("is not started".to_owned()),
        _ if before == StateBefore::Restarting => StartState::AsBefore,
        Status::Restarting => StartState::Pending("keeps restarting".to_owned()),
        Status::Paused if before == StateBefore::Paused => StartState::AsBefore,
        Status::Paused => StartState::Pending("is paused".to_owned()),
        Status::Running => match (before, container.health) {
            (StateBefore::Ended, _) => StartState::Runs("has not ended".to_owned()),
            (
                StateBefore::Healthy | StateBefore::Job,
                Some(health @ (Health::Starting | Health::Unhealthy)),
            ) => StartState::Runs(format!("is not healthy ({health:?})").to_lowercase()),
            _ => StartState::AsBefore,
        },
    }
}

/// Whether `dependant` may start while `needed` is in this state. A namespace can
/// be joined, and the condition `service_started` is met, as soon as the other
/// container runs.
pub(super) fn dependency_is_met(
    dependant: &WasRunning,
    needed: &WasRunning,
    state: &StartState,
) -> bool {
    let waits = dependant
        .depends_on
        .iter()
        .any(|d| d.service == needed.service && d.condition != "service_started");
    match state {
        StartState::AsBefore | StartState::Completed => true,
        StartState::Runs(_) | StartState::Pending(_) => !waits,
        StartState::Down(_) | StartState::Paused => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_waits_for_health_only_where_it_was_asked_to() {
        let db = WasRunning::example("db", &[], &[]);
        let patient = WasRunning::example("api", &[("db", "service_healthy")], &[]);
        let hasty = WasRunning::example("api", &[("db", "service_started")], &[]);
        let pending = StartState::Runs("is not healthy (starting)".to_owned());
        let down = StartState::Down("is not started".to_owned());
        assert!(!dependency_is_met(&patient, &db, &pending));
        assert!(dependency_is_met(&hasty, &db, &pending));
        assert!(!dependency_is_met(&hasty, &db, &down));
        assert!(dependency_is_met(&patient, &db, &StartState::AsBefore));
    }

    fn container(status: &str, health: Option<&str>, exit_code: i64) -> Container {
        Container::from_json(serde_json::json!({
            "Id": "id", "Name": "/p-migrate-1", "Image": "",
            "State": {
                "Status": status, "ExitCode": exit_code,
                "Health": health.map(|health| serde_json::json!({"Status": health})),
            },
            "Config": {}, "HostConfig": {},
        }))
    }

    #[test]
    fn a_container_is_as_it_was_when_it_is_in_the_state_of_before() {
        use StateBefore::*;
        let state = |before, status: &str, health| {
            let container = container(status, health, 0);
            start_state(StopMethod::Stop, before, &container, true)
        };
        let runs = |reason: &str| StartState::Runs(reason.to_owned());
        let down = StartState::Down("ended with exit status 0".to_owned());
        for (before, status, health, expected) in [
            (Healthy, "running", Some("healthy"), StartState::AsBefore),
            (Healthy, "running", None, StartState::AsBefore),
            (
                Healthy,
                "running",
                Some("starting"),
                runs("is not healthy (starting)"),
            ),
            (
                Healthy,
                "running",
                Some("unhealthy"),
                runs("is not healthy (unhealthy)"),
            ),
            (
                Unhealthy,
                "running",
                Some("unhealthy"),
                StartState::AsBefore,
            ),
            (
                Job,
                "running",
                Some("starting"),
                runs("is not healthy (starting)"),
            ),
            (Job, "running", None, StartState::AsBefore),
            (Job, "exited", None, StartState::Completed),
            (Ended, "running", None, runs("has not ended")),
            (Ended, "exited", None, StartState::Completed),
            // A service that ended with status 0 is down.
            (Running, "exited", None, down.clone()),
            (Healthy, "exited", None, down.clone()),
            (Unhealthy, "exited", None, down.clone()),
            (Running, "running", None, StartState::AsBefore),
            (Restarting, "exited", None, StartState::AsBefore),
        ] {
            let found = state(before, status, health);
            assert_eq!(found, expected, "{before:?}, now {status} {health:?}");
        }
    }

    #[test]
    fn the_start_of_a_job_that_others_wait_for_is_confirmed_when_it_has_ended() {
        let state = |before, status, exit_code| {
            let container = container(status, None, exit_code);
            start_state(StopMethod::Stop, before, &container, true)
        };
        let running = state(StateBefore::Ended, "running", 0);
        let job = WasRunning::example("migrate", &[], &[]);
        let waits =
            WasRunning::example("api", &[("migrate", "service_completed_successfully")], &[]);
        assert!(matches!(running, StartState::Runs(_)), "{running:?}");
        assert!(!dependency_is_met(&waits, &job, &running));
        let ended = state(StateBefore::Ended, "exited", 0);
        assert_eq!(ended, StartState::Completed);
        assert!(dependency_is_met(&waits, &job, &ended));
        let failed = state(StateBefore::Ended, "exited", 1);
        assert!(matches!(failed, StartState::Down(_)), "{failed:?}");
        // The control: a service need not end.
        let service = state(StateBefore::Running, "running", 0);
        assert_eq!(service, StartState::AsBefore);
    }
}
