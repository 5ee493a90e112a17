//! How far the start of a container has come.

use crate::engine::{Container, Health, Status};
use crate::stack::running::{StateBefore, WasRunning};

/// State of a container that is to be as it was before the stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartState {
    AsBefore,
    /// It runs, but is not as it was. For example, it is not healthy yet.
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
}

/// Compares a container with its state before the stop. `was_started` says that
/// this program has started it, so that its exit code belongs to this start.
pub(super) fn start_state(
    before: StateBefore,
    container: &Container,
    was_started: bool,
) -> StartState {
    match container.status {
        Status::Stopped if was_started && before == StateBefore::Restarting => StartState::AsBefore,
        // A job ends. A container that has a health check is no job.
        Status::Stopped
            if was_started
                && container.exit_code == 0
                && matches!(before, StateBefore::Running | StateBefore::Ended) =>
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
        Status::Running if before == StateBefore::Healthy => match container.health {
            None | Some(Health::Healthy | Health::None) => StartState::AsBefore,
            Some(health) => {
                StartState::Pending(format!("is not healthy ({health:?})").to_lowercase())
            }
        },
        Status::Running if before == StateBefore::Ended => {
            StartState::Pending("has not ended".to_owned())
        }
        Status::Running => StartState::AsBefore,
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
        StartState::Pending(_) => !waits,
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
        let pending = StartState::Pending("is not healthy (starting)".to_owned());
        let down = StartState::Down("is not started".to_owned());
        assert!(!dependency_is_met(&patient, &db, &pending));
        assert!(dependency_is_met(&hasty, &db, &pending));
        assert!(!dependency_is_met(&hasty, &db, &down));
        assert!(dependency_is_met(&patient, &db, &StartState::AsBefore));
    }

    #[test]
    fn the_start_of_a_job_that_others_wait_for_is_confirmed_when_it_has_ended() {
        let container = |status: &str, exit_code: i64| {
            Container::from_json(serde_json::json!({
                "Id": "id", "Name": "/p-migrate-1", "Image": "",
                "State": {"Status": status, "ExitCode": exit_code},
                "Config": {}, "HostConfig": {},
            }))
        };
        let running = start_state(StateBefore::Ended, &container("running", 0), true);
        let job = WasRunning::example("migrate", &[], &[]);
        let waits =
            WasRunning::example("api", &[("migrate", "service_completed_successfully")], &[]);
        assert!(matches!(running, StartState::Pending(_)), "{running:?}");
        assert!(!dependency_is_met(&waits, &job, &running));
        let ended = start_state(StateBefore::Ended, &container("exited", 0), true);
        assert_eq!(ended, StartState::Completed);
        assert!(dependency_is_met(&waits, &job, &ended));
        let failed = start_state(StateBefore::Ended, &container("exited", 1), true);
        assert!(matches!(failed, StartState::Down(_)), "{failed:?}");
        // The control: a service need not end.
        let service = start_state(StateBefore::Running, &container("running", 0), true);
        assert_eq!(service, StartState::AsBefore);
    }
}
