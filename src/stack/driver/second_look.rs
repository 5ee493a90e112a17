//! The second look at a stack that was started. A container may end soon after
//! its start was confirmed, or be in a restart loop and run just now.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::look::{present, wait_for_engine};
use super::start::{LastStart, Started, end_of_log};
use super::start_state::{StartState, start_state};
use crate::engine::{Container, Engine, Status};
use crate::stack::journal::JournalEntry;
use crate::stack::running::{StateBefore, WasRunning};
use crate::sys::format::count;
use crate::sys::signals::Signals;

/// Most containers that crash after a confirmed start do so within this time.
pub(super) const SECOND_LOOK_AFTER: Duration = Duration::from_millis(1500);
/// A container that still restarts so long after its start is in a restart loop.
/// Docker's restart manager has the same limit.
pub(super) const RESTART_LIMIT: Duration = Duration::from_secs(10);
/// How long something may be down that is not restarted by its restart policy.
const DOWN_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks at a container that is not healthy.
pub(super) const HEALTH_PAUSE: Duration = Duration::from_millis(100);

/// Looks a second time at containers; see [`confirm`](super::confirm).
pub(super) fn confirm(
    entry: &JournalEntry,
    started: &Started,
    signals: &Signals,
) -> Result<Vec<String>> {
    let limit = Duration::from_secs(entry.start_timeout_secs);
    let engine = &entry.compose.engine;
    let mut last_starts = started.last_starts.clone();
    let mut restarted = BTreeSet::new();
    thread::sleep(SECOND_LOOK_AFTER.saturating_sub(started.confirmed_at.elapsed()));
    loop {
        let seen_now = wait_for_engine(|| present(entry), limit, signals)?;
        let seen = look(entry, &started.started, &last_starts, &seen_now);
        let failures: Vec<String> = seen.iter().filter_map(|seen| seen.end(engine)).collect();
        if !failures.is_empty() {
            bail!(failures.join("; "));
        }
        let elapsed = started.confirmed_at.elapsed();
        let restarts: Vec<&Seen> = seen.iter().filter(|seen| seen.is_restarted).collect();
        if !restarts.is_empty() {
            if elapsed > RESTART_LIMIT || signals.is_repeated() {
                let loops = restarts.iter().map(|seen| seen.restart_loop(engine));
                bail!(loops.collect::<Vec<_>>().join("; "));
            }
            for seen in restarts {
                restarted.insert(seen.i);
                last_starts.extend(seen.last_start());
            }
            thread::sleep(SECOND_LOOK_AFTER);
            continue;
        }
        let pending: Vec<String> = seen.iter().filter_map(Seen::pending).collect();
        if pending.is_empty() {
            let later = seen.iter().filter_map(|seen| seen.warning(&restarted));
            return Ok(started.warnings.iter().cloned().chain(later).collect());
        }
        if elapsed > limit || signals.is_repeated() {
            bail!(pending.join("; "));
        }
        thread::sleep(HEALTH_PAUSE);
    }
}

/// Waits until a stack that something else has started is up as an entry says, at most
/// until the entry's time limit has passed, and checks that it stays so. What is down is
/// not waited for as long, because nothing starts it. Returns warnings.
///
/// # Errors
/// Names each container that is not as the entry says, with the reason; or a signal has
/// come.
pub fn await_start(entry: &JournalEntry, signals: &Signals) -> Result<Vec<String>> {
    let began = Instant::now();
    let limit = Duration::from_secs(entry.start_timeout_secs);
    let all = (0..entry.containers.len()).collect();
    let mut last_pending = began;
    loop {
        signals.check()?;
        let present = wait_for_engine(|| present(entry), limit, signals)?;
        let seen = look(entry, &all, &BTreeMap::new(), &present);
        if seen.iter().all(|seen| seen.state.is_confirmed()) {
            return stays_up(entry, signals);
        }
        if seen.iter().any(|seen| seen.state.is_pending()) {
            last_pending = Instant::now();
        }
        if began.elapsed() > limit || last_pending.elapsed() > DOWN_LIMIT {
            let engine = &entry.compose.engine;
            let failures = seen.iter().filter_map(|seen| seen.failure(engine));
            bail!(failures.collect::<Vec<_>>().join("; "));
        }
        thread::sleep(HEALTH_PAUSE);
    }
}

/// Checks that a stack which something else has started does not end soon after.
/// Returns warnings.
///
/// # Errors
/// Those of [`confirm`].
pub fn stays_up(entry: &JournalEntry, signals: &Signals) -> Result<Vec<String>> {
    let present = present(entry)?;
    let containers = entry.containers.iter().enumerate();
    let last_starts = containers
        .filter_map(|(i, was)| Some((i, LastStart::of(was.find(&entry.project, &present)?))))
        .collect();
    let now = Instant::now();
    let started = Started {
        running_at: now,
        confirmed_at: now,
        started: (0..entry.containers.len()).collect(),
        last_starts,
        warnings: Vec::new(),
    };
    confirm(entry, &started, signals)
}

/// A container, as it was found by one look.
struct Seen<'a> {
    i: usize,
    was: &'a WasRunning,
    container: Option<&'a Container>,
    state: StartState,
    /// Whether it was started again since the last look.
    is_restarted: bool,
}

fn look<'a>(
    entry: &'a JournalEntry,
    started: &BTreeSet<usize>,
    last_starts: &BTreeMap<usize, LastStart>,
    present: &'a [Container],
) -> Vec<Seen<'a>> {
    let look = |(i, was): (usize, &'a WasRunning)| {
        let container = was.find(&entry.project, present);
        let was_started = started.contains(&i);
        let last_start = last_starts.get(&i);
        Seen {
            i,
            was,
            container,
            state: match container {
                None => StartState::Down("has no container".to_owned()),
                Some(now) => start_state(entry.stop_method, was.before, now, was_started),
            },
            is_restarted: was.before != StateBefore::Restarting
                && container.is_some_and(|now| is_restarted(last_start, now)),
        }
    };
    entry.containers.iter().enumerate().map(look).collect()
}

/// Whether a container was started since `last_start`, or is about to be started
/// by its restart policy.
fn is_restarted(last_start: Option<&LastStart>, now: &Container) -> bool {
    match now.status {
        Status::Stopped => false,
        Status::Restarting => true,
        Status::Running | Status::Paused => {
            last_start.is_some_and(|last| *last != LastStart::of(now))
        }
    }
}

impl Seen<'_> {
    /// Says why the container does not run, with the end of its log.
    fn end(&self, engine: &Engine) -> Option<String> {
        if !matches!(self.state, StartState::Down(_) | StartState::Paused) {
            return None;
        }
        let name = &self.was.name;
        Some(match self.container {
            None => format!("{name} started, but has no container any more"),
            Some(now) if now.status == Status::Paused => format!("{name} started, but is paused"),
            Some(now) => format!(
                "{name} started, but ended soon after with exit status {}{}",
                now.exit_code,
                end_of_log(engine, &now.id)
            ),
        })
    }

    /// Says why the container is not as before, with the end of its log.
    fn failure(&self, engine: &Engine) -> Option<String> {
        let reason: &str = match &self.state {
            StartState::AsBefore | StartState::Completed => return None,
            StartState::Runs(reason) | StartState::Pending(reason) | StartState::Down(reason) => {
                reason
            }
            StartState::Paused => "is paused",
        };
        let id = self.container.map(|now| now.id.as_str());
        let log = id.map_or_else(String::new, |id| end_of_log(engine, id));
        Some(format!("{} {reason}{log}", self.was.name))
    }

    fn restart_count(&self) -> u64 {
        self.container.map_or(0, |now| now.restart_count)
    }

    fn restart_loop(&self, engine: &Engine) -> String {
        let log = self
            .container
            .map_or_else(String::new, |now| end_of_log(engine, &now.id));
        let times = count(self.restart_count(), "time");
        format!(
            "{} started, but keeps restarting: {times} since{log}",
            self.was.name
        )
    }

    fn last_start(&self) -> Option<(usize, LastStart)> {
        Some((self.i, LastStart::of(self.container?)))
    }

    /// Says why the container is not as before, although it may be so later.
    fn pending(&self) -> Option<String> {
        match &self.state {
            StartState::Runs(reason) | StartState::Pending(reason) => {
                Some(format!("{} started, but {reason}", self.was.name))
            }
            _ => None,
        }
    }

    /// Tells what is not quite as before although the start is confirmed.
    fn warning(&self, restarted: &BTreeSet<usize>) -> Option<String> {
        let name = &self.was.name;
        let now = self.container.map(describe).unwrap_or_default();
        Some(match self.was.before {
            _ if restarted.contains(&self.i) => match self.restart_count() {
                0 => format!("{name} ended soon after its start; something has started it again"),
                times => format!(
                    "{name} ended soon after its start; its restart policy has started it again \
                     ({})",
                    count(times, "time")
                ),
            },
            StateBefore::Unhealthy => {
                format!("{name} was unhealthy before the stop; now it {now}")
            }
            StateBefore::Restarting => {
                format!("{name} kept restarting before the stop; now it {now}")
            }
            _ if self.state == StartState::Completed => {
                format!("{name} was started again and has ended (exit status 0)")
            }
            _ => return None,
        })
    }
}

fn describe(now: &Container) -> String {
    match (now.status, now.health) {
        (Status::Running, Some(health)) => format!("runs ({health:?})").to_lowercase(),
        (Status::Running, None) => "runs".to_owned(),
        (Status::Paused, _) => "is paused".to_owned(),
        (Status::Restarting, _) => "is between two restarts".to_owned(),
        (Status::Stopped, _) => format!("has ended (exit status {})", now.exit_code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_shows_in_the_count_the_start_time_or_the_state() {
        let container = |status: &str, started_at: &str, restart_count: u64| {
            Container::from_json(serde_json::json!({
                "Id": "x", "Name": "/x", "Image": "i", "RestartCount": restart_count,
                "State": {"Status": status, "StartedAt": started_at, "ExitCode": 0},
                "Config": {}, "HostConfig": {},
            }))
        };
        let first = LastStart::of(&container("running", "3:00", 0));
        let is_restarted = |now| is_restarted(Some(&first), &now);
        assert!(!is_restarted(container("running", "3:00", 0)));
        assert!(is_restarted(container("running", "3:00", 1)));
        assert!(is_restarted(container("running", "3:01", 0)));
        assert!(is_restarted(container("restarting", "3:00", 0)));
        // This is an end, and told as such.
        assert!(!is_restarted(container("exited", "3:00", 0)));
    }
}
