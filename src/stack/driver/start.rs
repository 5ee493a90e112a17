//! Starting what was stopped: looks at the containers again and again, and starts
//! what may be started, until each container is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::start_state::{StartState, dependency_is_met, start_state};
use super::stop::{pause, stop_in_order};
use crate::config::StopMethod;
use crate::engine::{self, Container, Existing, Status};
use crate::stack::journal::{JournalEntry, StopProgress};
use crate::stack::running::{StateBefore, WasRunning, replicas};
use crate::sys::signals::Signals;

/// Pause between two looks at containers that are starting.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// Pause before another look after the Engine did not answer, or a start failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Number of times that a container is started which fails to start, or ends at
/// once.
const START_ATTEMPTS: u32 = 3;

/// Starts the containers of a journal entry, and waits until each is as it was
/// before the stop, or the entry's time limit has passed. This is idempotent: a
/// container that runs is left alone, unless a stop may still be under way. An
/// Engine that is away is waited for.
///
/// One signal does not interrupt the start. A second one ends all waiting:
/// everything is started, and what is not confirmed at that moment is an error,
/// so that the entry stays for `recover`.
///
/// A container may end soon after its start. Therefore the entry stays in the
/// journal until [`confirm`](super::confirm) has looked a second time.
///
/// # Errors
/// Names each container that is not as it was, with the reason.
pub fn start(entry: &JournalEntry, signals: &Signals) -> Result<Started> {
    if entry.step == StopProgress::Stopping {
        // The start is attempted all the same: most likely the Engine hangs.
        if let Err(error) = finish_stop(entry, signals) {
            tracing::warn!("cannot make sure that no stop is under way: {error:#}");
        }
    }
    Start::new(entry, signals).run()
}

/// Stops, or pauses, the containers once more. A stop that was under way when
/// this program was killed goes on in the Engine, and would stop again what is
/// started now. The second stop returns only when the containers have ended, so
/// the first one is over by then.
fn finish_stop(entry: &JournalEntry, signals: &Signals) -> Result<()> {
    let limit = Duration::from_secs(entry.start_timeout_secs);
    let began = Instant::now();
    let present = loop {
        match engine::compose_containers(Some(&entry.project)) {
            Ok(present) => break present,
            Err(error) if began.elapsed() > limit || signals.is_repeated() => return Err(error),
            Err(_) => thread::sleep(RETRY_PAUSE),
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
    stop_in_order(
        &still_there,
        entry.stop_timeout_secs.map(Duration::from_secs),
        &Signals::default(),
    )
}

/// What a start has found, for the second look. Containers are identified by
/// their position in the entry.
#[derive(Debug)]
pub struct Started {
    /// When all containers ran. Those with a health check may have become healthy
    /// later.
    pub running_at: Instant,
    /// When all containers were as before.
    pub confirmed_at: Instant,
    /// Containers that were started, not only thawed or found running.
    pub(super) started: BTreeSet<usize>,
    pub(super) last_starts: BTreeMap<usize, LastStart>,
    pub(super) warnings: Vec<String>,
}

/// How a container was last started. Another value means that it ended meanwhile,
/// even if it runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LastStart {
    pub started_at: String,
    pub restart_count: u64,
}

impl LastStart {
    pub fn of(container: &Container) -> LastStart {
        LastStart {
            started_at: container.started_at.clone(),
            restart_count: container.restart_count,
        }
    }
}

/// The start of a stack. Containers are identified by their position in
/// `entry.containers`.
struct Start<'a> {
    entry: &'a JournalEntry,
    signals: &'a Signals,
    deadline: Instant,
    attempts: BTreeMap<usize, u32>,
    /// Containers whose start the Engine has confirmed.
    started: BTreeSet<usize>,
    /// The start of each container that runs, since this program has confirmed it.
    last_starts: BTreeMap<usize, LastStart>,
    /// How containers ended that were started once more.
    ends: BTreeMap<usize, String>,
    /// Since when all containers run.
    running_at: Option<Instant>,
    /// The last error of each container.
    errors: BTreeMap<usize, String>,
    /// Whether containers are started although their dependencies are not up:
    /// half a stack is better than none.
    ignores_dependencies: bool,
}

/// A container, as it was found by one look.
struct Seen {
    /// `None` if there is no such container.
    id: Option<String>,
    state: StartState,
}

impl Start<'_> {
    fn new<'a>(entry: &'a JournalEntry, signals: &'a Signals) -> Start<'a> {
        Start {
            entry,
            signals,
            deadline: Instant::now() + Duration::from_secs(entry.start_timeout_secs),
            attempts: BTreeMap::new(),
            started: BTreeSet::new(),
            last_starts: BTreeMap::new(),
            ends: BTreeMap::new(),
            running_at: None,
            errors: BTreeMap::new(),
            ignores_dependencies: false,
        }
    }

    fn run(mut self) -> Result<Started> {
        loop {
            let seen = match engine::compose_containers(Some(&self.entry.project)) {
                Ok(present) => {
                    self.note_starts(&present);
                    self.look(&present)
                }
                Err(error) if self.is_late() => {
                    return Err(error.context("cannot look at the containers"));
                }
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the Docker Engine does not answer, waiting for it"
                    );
                    thread::sleep(RETRY_PAUSE);
                    continue;
                }
            };
            self.running_at = match seen.iter().all(|seen| seen.state.is_up()) {
                true => self.running_at.or_else(|| Some(Instant::now())),
                false => None,
            };
            if let Some(running_at) = self.running_at
                && seen.iter().all(|seen| seen.state.is_confirmed())
            {
                self.pause_again(&seen)?;
                return Ok(self.started(running_at));
            }
            let mut startable = self.startable(&seen);
            let is_stuck = startable.is_empty() && !seen.iter().any(|seen| seen.state.is_pending());
            if self.is_late() || is_stuck {
                if self.ignores_dependencies {
                    bail!(self.failure(&seen));
                }
                self.ignores_dependencies = true;
                startable = self.startable(&seen);
            }
            let pause = self.start_all(&startable, &seen);
            thread::sleep(pause);
        }
    }

    /// Whether waiting is over.
    fn is_late(&self) -> bool {
        Instant::now() > self.deadline || self.signals.is_repeated()
    }

    fn look(&self, present: &[Container]) -> Vec<Seen> {
        let look = |(i, was): (usize, &WasRunning)| match was.find(present) {
            None => Seen {
                id: None,
                state: StartState::Down("has no container".to_owned()),
            },
            Some(container) => Seen {
                id: Some(container.id.clone()),
                state: self.state(i, container),
            },
        };
        self.entry.containers.iter().enumerate().map(look).collect()
    }

    fn state(&self, i: usize, container: &Container) -> StartState {
        let before = self.entry.containers[i].before;
        let was_started = self.started.contains(&i);
        start_state(self.entry.stop_method, before, container, was_started)
    }

    /// Notes when containers were started. The Engine counts the restarts of a
    /// container from its last start by a request.
    fn note_starts(&mut self, present: &[Container]) {
        for (i, was) in self.entry.containers.iter().enumerate() {
            let Some(container) = was.find(present) else {
                continue;
            };
            let was_started = self.started.contains(&i);
            if container.status == Status::Stopped {
                self.last_starts.remove(&i);
                if was_started {
                    let end = format!("ended with exit status {}", container.exit_code);
                    self.ends.insert(i, end);
                }
                continue;
            }
            self.last_starts.entry(i).or_insert_with(|| LastStart {
                restart_count: match was_started {
                    true => 0,
                    false => container.restart_count,
                },
                ..LastStart::of(container)
            });
        }
    }

    /// Returns the containers that are down, whose dependencies are met, and that
    /// have an attempt left. Missing containers are recreated by service, so only
    /// the first one of each service is returned.
    fn startable(&self, seen: &[Seen]) -> Vec<usize> {
        let containers = &self.entry.containers;
        let mut recreated = BTreeSet::new();
        (0..containers.len())
            .filter(|&i| matches!(seen[i].state, StartState::Down(_) | StartState::Paused))
            .filter(|i| self.attempts.get(i).copied().unwrap_or(0) < START_ATTEMPTS)
            .filter(|&i| {
                seen[i].state == StartState::Paused
                    || self.ignores_dependencies
                    || self.dependencies_are_met(i, seen)
            })
            .filter(|&i| seen[i].id.is_some() || recreated.insert(&containers[i].service))
            .collect()
    }

    fn dependencies_are_met(&self, dependant: usize, seen: &[Seen]) -> bool {
        let containers = &self.entry.containers;
        let dependant = &containers[dependant];
        containers
            .iter()
            .zip(seen)
            .filter(|(needed, _)| dependant.needs(needed))
            .all(|(needed, seen)| dependency_is_met(dependant, needed, &seen.state))
    }

    /// Starts containers, all at once, and returns the pause before the next look.
    fn start_all(&mut self, startable: &[usize], seen: &[Seen]) -> Duration {
        let entry = self.entry;
        let errors = &self.errors;
        let results = engine::in_parallel(startable, |&i| {
            let last_error = errors.get(&i).map(String::as_str);
            start_one(entry, i, &seen[i], last_error)
        });
        let mut pause = if startable.is_empty() {
            LOOK_PAUSE
        } else {
            Duration::ZERO
        };
        for (&i, result) in startable.iter().zip(results) {
            let error = match result {
                Ok(()) => {
                    if seen[i].state != StartState::Paused {
                        self.started.insert(i);
                        self.last_starts.remove(&i);
                    }
                    *self.attempts.entry(i).or_default() += 1;
                    continue;
                }
                Err(error) => error,
            };
            // The cause of the error may go away with time.
            pause = RETRY_PAUSE;
            if !engine::is_unreachable(&error) {
                *self.attempts.entry(i).or_default() += 1;
            }
            self.errors.insert(i, format!("{error:#}"));
        }
        pause
    }

    /// Pauses again the containers that had been paused before the stop.
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

    fn started(self, running_at: Instant) -> Started {
        let ends = self.ends.iter();
        // A job that has ended runs no more.
        let again = ends.filter(|(i, _)| self.last_starts.contains_key(i));
        let warning = |(i, end): (&usize, &String)| {
            let name = &self.entry.containers[*i].name;
            format!("{name} {end} after its start, and was started once more")
        };
        Started {
            running_at,
            confirmed_at: Instant::now(),
            warnings: again.map(warning).collect(),
            started: self.started,
            last_starts: self.last_starts,
        }
    }

    fn with_error(&self, i: usize, reason: &str) -> String {
        match self.errors.get(&i) {
            Some(error) => format!("{reason}: {error}"),
            None => reason.to_owned(),
        }
    }

    /// Says of each container that is not as it was why, with the end of its log.
    fn failure(&self, seen: &[Seen]) -> String {
        let when = match self.signals.is_repeated() {
            true => "when a second signal ended the wait".to_owned(),
            false => format!("after {} s", self.entry.start_timeout_secs),
        };
        let failure = |(i, (was, seen)): (usize, (&WasRunning, &Seen))| {
            let reason = match &seen.state {
                StartState::AsBefore | StartState::Completed => return None,
                StartState::Runs(reason) | StartState::Pending(reason) => {
                    format!("{reason} {when}")
                }
                StartState::Down(reason) => self.with_error(i, reason),
                StartState::Paused => self.with_error(i, "is still paused"),
            };
            let log = seen.id.as_deref().map_or_else(String::new, end_of_log);
            Some(format!("{} {reason}{log}", was.name))
        };
        let pairs = self.entry.containers.iter().zip(seen).enumerate();
        pairs.filter_map(failure).collect::<Vec<_>>().join("; ")
    }
}

/// Returns the end of a container's log in parentheses, or nothing if it is empty.
pub(super) fn end_of_log(id: &str) -> String {
    match engine::last_log_lines(id, 5).join(" | ") {
        log if log.is_empty() => log,
        log => format!(" (its log ends: {log})"),
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
        Some(id) if seen.state == StartState::Paused => engine::unpause(id),
        Some(id) => engine::start(id),
        None => up(Existing::Keep),
    }
}
