//! Starting what was stopped: looks at the containers again and again, and starts
//! what may be started, until each container is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

use super::addresses::{give_way, holder_of_address, start_order};
use super::look::present;
use super::remake::{reconnect, remake};
use super::start_state::{StartState, dependency_is_met, start_state};
use super::stop::{pause, stop_in_order};
use crate::config::StopMethod;
use crate::engine::{self, Container, Engine, Existing, Status};
use crate::stack::journal::{JournalEntry, StopProgress};
use crate::stack::running::{StateBefore, WasRunning, replicas};
use crate::sys::signals::Signals;

/// Pause between two looks at containers that are starting.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// Pause before another look after the Engine did not answer, or a start failed.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a container waits for others to take their addresses first, whose
/// dependencies are not up yet. After that, it may get another address than before:
/// half a stack is better than none.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(30);
/// Number of times that a container is started which fails to start, or ends at
/// once.
pub(super) const START_ATTEMPTS: u32 = 3;

/// Starts the containers of a journal entry; see [`start`](super::start).
pub(super) fn start(entry: &JournalEntry, signals: &Signals) -> Result<Started> {
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
        match present(entry) {
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
        return pause(&entry.compose.engine, &still_there);
    }
    stop_in_order(
        &entry.compose.engine,
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
    began: Instant,
    /// The containers that must have their addresses before each container.
    earlier: Vec<BTreeSet<usize>>,
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
    /// How often missing containers were made again. It is enough that it succeeds
    /// once.
    remake_attempts: u32,
    /// What could not be made again as it was.
    lost: Vec<String>,
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
            began: Instant::now(),
            earlier: start_order(&entry.containers),
            attempts: BTreeMap::new(),
            started: BTreeSet::new(),
            last_starts: BTreeMap::new(),
            ends: BTreeMap::new(),
            running_at: None,
            errors: BTreeMap::new(),
            remake_attempts: 0,
            lost: Vec::new(),
            ignores_dependencies: false,
        }
    }

    fn run(mut self) -> Result<Started> {
        loop {
            let seen = match present(self.entry) {
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
            if self.remake_attempts < START_ATTEMPTS && !self.is_late() {
                let missing = self.missing(&seen);
                if !missing.is_empty() {
                    self.remake(&missing);
                    continue;
                }
            }
            self.running_at = match seen.iter().all(|seen| seen.state.is_up()) {
                true => self.running_at.or_else(|| Some(Instant::now())),
                false => None,
            };
            if let Some(running_at) = self.running_at
                && seen.iter().all(|seen| seen.state.is_confirmed())
            {
                self.pause_again(&seen)?;
                if !self.lost.is_empty() {
                    bail!(self.lost.join("; "));
                }
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

    /// Returns the containers of the stack that were removed.
    fn missing(&self, seen: &[Seen]) -> Vec<usize> {
        let containers = &self.entry.containers;
        (0..containers.len())
            .filter(|&i| seen[i].id.is_none() && containers[i].is_own())
            .collect()
    }

    /// Creates containers that were removed, all in one, which is faster than `up`
    /// for each service, and keeps `depends_on`.
    fn remake(&mut self, missing: &[usize]) {
        let containers = missing.iter().map(|&i| &self.entry.containers[i]);
        let error = match remake(self.entry, &containers.cloned().collect::<Vec<_>>()) {
            Ok(lost) => {
                self.lost.extend(lost);
                self.remake_attempts = START_ATTEMPTS;
                return;
            }
            Err(error) => error,
        };
        tracing::warn!("cannot create what was removed: {error:#}");
        if !engine::is_unreachable(&error) {
            self.remake_attempts += 1;
        }
        for &i in missing {
            self.errors.insert(i, format!("{error:#}"));
        }
        thread::sleep(RETRY_PAUSE);
    }

    /// Whether waiting is over.
    fn is_late(&self) -> bool {
        Instant::now() > self.deadline || self.signals.is_repeated()
    }

    fn look(&self, present: &[Container]) -> Vec<Seen> {
        let look = |(i, was): (usize, &WasRunning)| match was.find(&self.entry.project, present) {
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
            let Some(container) = was.find(&self.entry.project, present) else {
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
    /// have an attempt left. Compose starts all containers of a service, so only
    /// the first of those that it starts is returned.
    fn startable(&self, seen: &[Seen]) -> Vec<usize> {
        let containers = &self.entry.containers;
        let mut recreated = BTreeSet::new();
        let to_start: BTreeSet<usize> = (0..containers.len())
            .filter(|&i| matches!(seen[i].state, StartState::Down(_) | StartState::Paused))
            .filter(|i| self.attempts.get(i).copied().unwrap_or(0) < START_ATTEMPTS)
            .collect();
        let startable: BTreeSet<usize> = to_start
            .iter()
            .copied()
            .filter(|&i| {
                seen[i].state == StartState::Paused
                    || self.ignores_dependencies
                    || self.dependencies_are_met(i, seen)
            })
            .collect();
        let awaited = match self.ignores_dependencies || self.began.elapsed() > ADDRESS_PATIENCE {
            true => &startable,
            false => &to_start,
        };
        startable
            .iter()
            .copied()
            .filter(|&i| {
                seen[i].state == StartState::Paused || self.earlier[i].is_disjoint(awaited)
            })
            .filter(|&i| {
                !self.is_started_by_compose(i, &seen[i]) || recreated.insert(&containers[i].service)
            })
            .collect()
    }

    /// Whether `up` starts the container, with all others of its service. After
    /// `down` it does so, too, because it runs hooks; where it fails, the Engine is
    /// asked.
    fn is_started_by_compose(&self, i: usize, seen: &Seen) -> bool {
        let is_after_down = self.entry.stop_method == StopMethod::Down;
        let is_first = is_after_down && !self.errors.contains_key(&i);
        self.entry.containers[i].is_own() && (seen.id.is_none() || is_first)
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
            let result = result.or_else(|error| self.repair(i, &seen[i], error));
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

    /// Puts right what has kept a container from starting, and starts it. Returns
    /// the error if there is nothing to put right.
    fn repair(&mut self, i: usize, seen: &Seen, error: Error) -> Result<()> {
        let Some(id) = &seen.id else {
            return Err(error);
        };
        let message = format!("{error:#}");
        if engine::needs_missing_network(&message) {
            reconnect(self.entry, id)?;
            return self.entry.compose.engine.start(id);
        }
        if engine::needs_taken_address(&message) {
            return self.make_room(i, id, error);
        }
        Err(error)
    }

    /// Starts a container whose fixed address another one has. If that is of the
    /// same stack, it gives way, and is started afterwards, with all that needs it.
    fn make_room(&mut self, i: usize, id: &str, error: Error) -> Result<()> {
        let engine = &self.entry.compose.engine;
        let Some(holder) = holder_of_address(engine, &self.entry.containers[i])? else {
            return Err(error);
        };
        let containers = self.entry.containers.iter();
        let Some(k) = containers.into_iter().position(|was| was.id == holder.id) else {
            return Err(error.context(format!("its address is taken by container {}", holder.name)));
        };
        for stopped in give_way(engine, &self.entry.containers, k)? {
            self.started.remove(&stopped);
            self.last_starts.remove(&stopped);
            self.attempts.remove(&stopped);
        }
        engine.start(id)
    }

    /// Pauses again the containers that had been paused before the stop.
    fn pause_again(&self, seen: &[Seen]) -> Result<()> {
        for (was, seen) in self.entry.containers.iter().zip(seen) {
            if was.before == StateBefore::Paused
                && let Some(id) = &seen.id
            {
                self.entry.compose.engine.pause(id)?;
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
            let engine = &self.entry.compose.engine;
            let log = seen.id.as_deref();
            let log = log.map_or_else(String::new, |id| end_of_log(engine, id));
            Some(format!("{} {reason}{log}", was.name))
        };
        let pairs = self.entry.containers.iter().zip(seen).enumerate();
        let failures = pairs.filter_map(failure).chain(self.lost.iter().cloned());
        failures.collect::<Vec<_>>().join("; ")
    }
}

/// Returns the end of a container's log in parentheses, or nothing if it is empty.
pub(super) fn end_of_log(engine: &Engine, id: &str) -> String {
    match engine.last_log_lines(id, 5).join(" | ") {
        log if log.is_empty() => log,
        log => format!(" (its log ends: {log})"),
    }
}

fn start_one(entry: &JournalEntry, i: usize, seen: &Seen, last_error: Option<&str>) -> Result<()> {
    let was = &entry.containers[i];
    let engine = &entry.compose.engine;
    let id = seen.id.as_deref();
    tracing::debug!(container = was.name, "starting");
    let up = |existing| {
        let replicas = replicas(&entry.containers)[&was.service];
        entry.compose.up(&was.service, replicas, existing)
    };
    match id {
        Some(_) if was.is_own() && last_error.is_some_and(engine::needs_missing_container) => {
            up(Existing::Replace)
        }
        Some(id) if seen.state == StartState::Paused => engine.unpause(id),
        Some(_)
            if was.is_own() && entry.stop_method == StopMethod::Down && last_error.is_none() =>
        {
            up(Existing::Keep)
        }
        Some(id) => engine.start(id),
        None if !was.is_own() => bail!("it was removed; make it again by hand"),
        None if was.anonymous_volumes.is_empty() => up(Existing::Keep),
        // `up` would give it empty volumes.
        None => bail!(last_error.unwrap_or("it was removed once more").to_owned()),
    }
}
