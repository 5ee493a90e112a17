//! Starting what was stopped: one look at the containers after another, until
//! each is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{pause, stop};
use crate::config::StopMethod;
use crate::engine::{self, Container, Existing, Health, Status};
use crate::stack::journal::{JournalEntry, StopProgress};
use crate::stack::running::{StateBefore, WasRunning, replicas};
use crate::sys::signals::Signals;

/// Between two looks at the containers of a stack that is starting.
const LOOK: Duration = Duration::from_millis(25);
/// Between two looks while the Engine does not answer, or a start failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often a container that fails to start, or ends at once, is started.
const START_ATTEMPTS: u32 = 3;

/// Starts what an entry names and waits until all of it is as it was before,
/// or the entry's limit is over. May be called again at any time: what runs is
/// left alone, unless a stop may still be under way. A daemon that is away is
/// waited for. A signal changes nothing of this, but with a second one nothing
/// is waited for any more: everything is started, and what is not confirmed at
/// that moment is an error, so that the entry stays for `recover`.
///
/// Returns what is worth a warning although the start is confirmed.
///
/// # Errors
/// Names each container that is not as it was, and why.
pub fn start(entry: &JournalEntry, signals: &Signals) -> Result<Vec<String>> {
    if entry.step == StopProgress::Stopping {
        // The start comes all the same: most likely it is the Engine that hangs.
        if let Err(error) = finish_stop(entry, signals) {
            tracing::warn!("stop once more, to be sure that no stop is under way: {error:#}");
        }
    }
    Start::new(entry, signals).run()
}

/// A stop that was under way when its program was killed goes on in the
/// Engine, and would take down again what is started now. Stopping once more
/// ends only when the containers have ended, whoever asked first. The same
/// goes for a pause.
fn finish_stop(entry: &JournalEntry, signals: &Signals) -> Result<()> {
    let limit = Duration::from_secs(entry.start_timeout_secs);
    let began = Instant::now();
    let present = loop {
        match engine::compose_containers(Some(&entry.project)) {
            Ok(present) => break present,
            Err(error) if began.elapsed() > limit || signals.is_repeated() => return Err(error),
            Err(_) => thread::sleep(RETRY),
        }
    };
    let still_there: Vec<WasRunning> = entry
        .containers
        .iter()
        .filter(|was| {
            present
                .iter()
                .any(|c| c.id == was.id && c.status != Status::Stopped)
        })
        .cloned()
        .collect();
    if entry.stop_method == StopMethod::Pause {
        return pause(&still_there);
    }
    stop(
        &still_there,
        entry.stop_timeout_secs.map(Duration::from_secs),
        &Signals::default(),
    )
}

/// One attempt to bring a stack back to what it was.
struct Start<'a> {
    entry: &'a JournalEntry,
    signals: &'a Signals,
    deadline: Instant,
    /// By position in `entry.containers`, as is all that follows.
    attempts: BTreeMap<usize, u32>,
    /// Those whose start the Engine reported as done.
    started: BTreeSet<usize>,
    errors: BTreeMap<usize, String>,
    /// What can be started is started, even if what it needs is not up: half
    /// a stack is better than none.
    ignores_dependencies: bool,
}

/// One container as seen now.
struct Seen {
    id: Option<String>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    AsBefore,
    /// Running, but not as it was: not healthy yet, for one.
    Pending(String),
    /// Does not run; a start would help.
    Down(String),
    /// Paused by this program.
    Frozen,
    /// Ran to its end without an error after this program started it.
    Completed,
}

impl State {
    fn is_confirmed(&self) -> bool {
        matches!(self, State::AsBefore | State::Completed)
    }
}

impl Start<'_> {
    fn new<'a>(entry: &'a JournalEntry, signals: &'a Signals) -> Start<'a> {
        Start {
            entry,
            signals,
            deadline: Instant::now() + Duration::from_secs(entry.start_timeout_secs),
            attempts: BTreeMap::new(),
            started: BTreeSet::new(),
            errors: BTreeMap::new(),
            ignores_dependencies: false,
        }
    }

    fn run(mut self) -> Result<Vec<String>> {
        loop {
            let seen = match engine::compose_containers(Some(&self.entry.project)) {
                Ok(present) => self.look(&present),
                Err(error) if self.is_late() => {
                    return Err(error.context("look at the containers"));
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the Docker Engine is away");
                    thread::sleep(RETRY);
                    continue;
                }
            };
            if seen.iter().all(|seen| seen.state.is_confirmed()) {
                self.pause_again(&seen)?;
                return Ok(self.warnings(&seen));
            }
            let mut startable = self.startable(&seen);
            let is_stuck = startable.is_empty()
                && !seen
                    .iter()
                    .any(|seen| matches!(seen.state, State::Pending(_)));
            if self.is_late() || is_stuck {
                if self.ignores_dependencies {
                    bail!(self.complaint(&seen));
                }
                self.ignores_dependencies = true;
                startable = self.startable(&seen);
            }
            let pause = self.start_all(&startable, &seen);
            thread::sleep(pause);
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() > self.deadline || self.signals.is_repeated()
    }

    fn look(&self, present: &[Container]) -> Vec<Seen> {
        let look = |(i, was): (usize, &WasRunning)| match was.find(present) {
            None => Seen {
                id: None,
                state: State::Down("has no container".to_owned()),
            },
            Some(container) => Seen {
                id: Some(container.id.clone()),
                state: self.state(i, container),
            },
        };
        self.entry.containers.iter().enumerate().map(look).collect()
    }

    /// A container that was only frozen is as before as soon as it runs: its
    /// health is told anew with the next check, which may be long.
    fn state(&self, i: usize, container: &Container) -> State {
        let before = self.entry.containers[i].before;
        let was_started = self.started.contains(&i);
        if self.entry.stop_method == StopMethod::Pause && before != StateBefore::Paused {
            match container.status {
                Status::Paused => return State::Frozen,
                Status::Running if !was_started => return State::AsBefore,
                _ => {}
            }
        }
        state(before, container, was_started)
    }

    /// Those that are down, whose dependencies are met, and for which there is
    /// an attempt left. Containers that have to be made anew are made by
    /// service, so only the first of each service is among them.
    fn startable(&self, seen: &[Seen]) -> Vec<usize> {
        let containers = &self.entry.containers;
        let mut made_anew = BTreeSet::new();
        (0..containers.len())
            .filter(|&i| matches!(seen[i].state, State::Down(_) | State::Frozen))
            .filter(|i| self.attempts.get(i).copied().unwrap_or(0) < START_ATTEMPTS)
            .filter(|&i| {
                seen[i].state == State::Frozen
                    || self.ignores_dependencies
                    || self.dependencies_are_met(i, seen)
            })
            .filter(|&i| seen[i].id.is_some() || made_anew.insert(&containers[i].service))
            .collect()
    }

    fn dependencies_are_met(&self, dependant: usize, seen: &[Seen]) -> bool {
        let containers = &self.entry.containers;
        let dependant = &containers[dependant];
        containers
            .iter()
            .zip(seen)
            .filter(|(needed, _)| dependant.needs(needed))
            .all(|(needed, seen)| is_met(dependant, needed, &seen.state))
    }

    /// Returns how long to wait before the next look.
    fn start_all(&mut self, startable: &[usize], seen: &[Seen]) -> Duration {
        let entry = self.entry;
        let errors = &self.errors;
        let results = engine::in_parallel(startable, |&i| {
            let last_error = errors.get(&i).map(String::as_str);
            start_one(entry, i, &seen[i], last_error)
        });
        let mut pause = if startable.is_empty() {
            LOOK
        } else {
            Duration::ZERO
        };
        for (&i, result) in startable.iter().zip(results) {
            let error = match result {
                Ok(()) => {
                    if seen[i].state != State::Frozen {
                        self.started.insert(i);
                    }
                    *self.attempts.entry(i).or_default() += 1;
                    continue;
                }
                Err(error) => error,
            };
            // The reason for a refusal needs time to pass.
            pause = RETRY;
            if !engine::is_unreachable(&error) {
                *self.attempts.entry(i).or_default() += 1;
            }
            self.errors.insert(i, format!("{error:#}"));
        }
        pause
    }

    /// What had been paused runs by now, and is paused again.
    fn pause_again(&self, seen: &[Seen]) -> Result<()> {
        for (was, seen) in self.entry.containers.iter().zip(seen) {
            if was.before == StateBefore::Paused
                && let Some(id) = &seen.id
            {
                engine::pause(id)?;
            }
        }
        Ok(())
    }

    fn warnings(&self, seen: &[Seen]) -> Vec<String> {
        let pairs = self.entry.containers.iter().zip(seen);
        pairs
            .filter(|(_, seen)| seen.state == State::Completed)
            .map(|(was, _)| {
                format!(
                    "{} was started again and has ended (exit status 0)",
                    was.name
                )
            })
            .collect()
    }

    fn with_error(&self, i: usize, reason: &str) -> String {
        match self.errors.get(&i) {
            Some(error) => format!("{reason}: {error}"),
            None => reason.to_owned(),
        }
    }

    fn complaint(&self, seen: &[Seen]) -> String {
        let when = match self.signals.is_repeated() {
            true => "when a second signal ended the wait".to_owned(),
            false => format!("after {} s", self.entry.start_timeout_secs),
        };
        let complaint = |(i, (was, seen)): (usize, (&WasRunning, &Seen))| {
            let reason = match &seen.state {
                State::AsBefore | State::Completed => return None,
                State::Pending(reason) => format!("{reason} {when}"),
                State::Down(reason) => self.with_error(i, reason),
                State::Frozen => self.with_error(i, "is still paused"),
            };
            let log = seen
                .id
                .as_deref()
                .map(|id| engine::last_log_lines(id, 5).join(" | "));
            let log = log.filter(|log| !log.is_empty());
            let log = log.map_or_else(String::new, |log| format!(" (its log ends: {log})"));
            Some(format!("{} {reason}{log}", was.name))
        };
        let pairs = self.entry.containers.iter().zip(seen).enumerate();
        pairs.filter_map(complaint).collect::<Vec<_>>().join("; ")
    }
}

fn start_one(entry: &JournalEntry, i: usize, seen: &Seen, last_error: Option<&str>) -> Result<()> {
    let was = &entry.containers[i];
    let id = seen.id.as_deref();
    tracing::debug!(container = was.name, "starting");
    let up = |existing| {
        let replicas = replicas(&entry.containers)[&was.service];
        entry.compose.up(&was.service, replicas, existing)
    };
    match id {
        Some(_) if last_error.is_some_and(engine::needs_missing_container) => up(Existing::Replace),
        Some(id) if seen.state == State::Frozen => engine::unpause(id),
        Some(id) => engine::start(id),
        None => up(Existing::Keep),
    }
}

/// `was_started`: by this program, so that an exit code is of this start.
fn state(before: StateBefore, container: &Container, was_started: bool) -> State {
    match container.status {
        Status::Stopped if was_started && before == StateBefore::Restarting => State::AsBefore,
        // A job may come to its end. What has a health check is no job.
        Status::Stopped
            if was_started
                && container.exit_code == 0
                && matches!(before, StateBefore::Running | StateBefore::Ended) =>
        {
            State::Completed
        }
        Status::Stopped if was_started => {
            State::Down(format!("ended with exit status {}", container.exit_code))
        }
        Status::Stopped => State::Down("is not started".to_owned()),
        _ if before == StateBefore::Restarting => State::AsBefore,
        Status::Restarting => State::Pending("keeps restarting".to_owned()),
        Status::Paused if before == StateBefore::Paused => State::AsBefore,
        Status::Paused => State::Pending("is paused".to_owned()),
        Status::Running if before == StateBefore::Healthy => match container.health {
            None | Some(Health::Healthy | Health::None) => State::AsBefore,
            Some(health) => State::Pending(format!("is not healthy ({health:?})").to_lowercase()),
        },
        Status::Running if before == StateBefore::Ended => {
            State::Pending("has not ended".to_owned())
        }
        Status::Running => State::AsBefore,
    }
}

/// `dependant` may start, as far as `needed` goes. A namespace can be joined,
/// and `service_started` is met, as soon as the other runs.
fn is_met(dependant: &WasRunning, needed: &WasRunning, state: &State) -> bool {
    let waits = dependant
        .depends_on
        .iter()
        .any(|d| d.service == needed.service && d.condition != "service_started");
    match state {
        State::AsBefore | State::Completed => true,
        State::Pending(_) => !waits,
        State::Down(_) | State::Frozen => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::was;
    use super::*;

    #[test]
    fn a_start_waits_for_health_only_where_it_was_asked_to() {
        let db = was("db", &[], &[]);
        let patient = was("api", &[("db", "service_healthy")], &[]);
        let hasty = was("api", &[("db", "service_started")], &[]);
        let pending = State::Pending("is not healthy (starting)".to_owned());
        let down = State::Down("is not started".to_owned());
        assert!(!is_met(&patient, &db, &pending));
        assert!(is_met(&hasty, &db, &pending));
        assert!(!is_met(&hasty, &db, &down));
        assert!(is_met(&patient, &db, &State::AsBefore));
    }

    #[test]
    fn a_job_that_others_wait_for_is_started_when_it_has_ended() {
        let container = |status: &str, exit_code: i64| {
            Container::from_json(serde_json::json!({
                "Id": "id", "Name": "/p-migrate-1", "Image": "",
                "State": {"Status": status, "ExitCode": exit_code},
                "Config": {}, "HostConfig": {},
            }))
        };
        let running = state(StateBefore::Ended, &container("running", 0), true);
        let job = was("migrate", &[], &[]);
        let waits = was("api", &[("migrate", "service_completed_successfully")], &[]);
        assert!(matches!(running, State::Pending(_)), "{running:?}");
        assert!(!is_met(&waits, &job, &running));
        let ended = state(StateBefore::Ended, &container("exited", 0), true);
        assert_eq!(ended, State::Completed);
        assert!(is_met(&waits, &job, &ended));
        let failed = state(StateBefore::Ended, &container("exited", 1), true);
        assert!(matches!(failed, State::Down(_)), "{failed:?}");
        // The control: what only runs is not waited for.
        let service = state(StateBefore::Running, &container("running", 0), true);
        assert_eq!(service, State::AsBefore);
    }
}
