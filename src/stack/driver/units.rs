//! Stops and starts units of systemd. The order of their dependencies is systemd's
//! business: all are named in one order.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

use super::second_look::{HEALTH_PAUSE, RESTART_LIMIT, SECOND_LOOK_AFTER};
use super::start::{LOOK_PAUSE, LastStart, RETRY_PAUSE, START_ATTEMPTS, Started};
use super::unit_health::unhealthy;
use crate::stack::journal::{JournalEntry, StopProgress};
use crate::stack::units::{UNLIMITED_STOP, WasActive};
use crate::sys::format::count;
use crate::sys::signals::Signals;
use crate::sys::systemd::{self, ActiveState, UnitState};

/// How many lines of a unit's log are told.
const LOG_LINES: usize = 5;

/// Stops units, and returns when they have ended.
///
/// # Errors
/// When one of them has not ended within `limit`. Its stop goes on then.
pub(super) fn stop_units(units: &[WasActive], limit: Duration) -> Result<()> {
    systemd::stop(&names(units), limit)
}

/// Stops those of the units that run.
///
/// # Errors
/// When one of them has not ended after a quarter of an hour. Its stop goes on then.
pub fn stop_named_units(names: &[String]) -> Result<()> {
    let states = systemd::states(names)?.into_iter();
    let running: Vec<String> = states
        .filter(|state| state.runs() || state.has_job)
        .map(|state| state.name)
        .collect();
    match running.is_empty() {
        true => Ok(()),
        false => systemd::stop(&running, UNLIMITED_STOP),
    }
}

fn names(units: &[WasActive]) -> Vec<String> {
    units.iter().map(|was| was.name.clone()).collect()
}

/// Units that do not run, as they were found once.
#[derive(Debug, Default)]
pub struct UnitsAtRest(Vec<UnitState>);

impl UnitsAtRest {
    /// Looks at units that were stopped. Also returns warnings.
    ///
    /// # Errors
    /// When one of them runs, or is about to be started.
    pub fn look(units: &[WasActive]) -> Result<(UnitsAtRest, Vec<String>)> {
        let seen = systemd::states(&names(units))?;
        if let Some(state) = seen.iter().find(|state| state.runs() || state.has_job) {
            bail!(
                "{} still runs after its stop; does something start it?",
                state.name
            );
        }
        let killed = seen.iter().filter(|state| state.result == "timeout");
        let warnings = killed.map(|state| {
            format!(
                "{} did not end in time and was killed, so its data may need recovery; give it more \
                 time with `TimeoutStopSec=`",
                state.name
            )
        });
        let warnings = warnings.collect();
        Ok((UnitsAtRest(seen), warnings))
    }

    /// Checks that no unit has run since. A timer, a socket or a change of the system's
    /// configuration starts units, and one may have ended again.
    ///
    /// # Errors
    /// Names a unit that runs or has run.
    pub fn check_still(&self) -> Result<()> {
        let names: Vec<String> = self.0.iter().map(|state| state.name.clone()).collect();
        let now = systemd::states(&names)?;
        for (before, now) in self.0.iter().zip(now) {
            if has_run(before, &now) {
                bail!(
                    "{} was started while its data was copied; what started it is in \
                     `systemctl list-dependencies --reverse {}`, or in the timers and sockets that \
                     `systemctl status` names",
                    now.name,
                    now.name
                );
            }
        }
        Ok(())
    }
}

fn has_run(before: &UnitState, now: &UnitState) -> bool {
    // A unit that nothing refers to is forgotten when it has ended, and its number with it.
    let is_other = !now.invocation.is_empty() && now.invocation != before.invocation;
    is_other || now.runs() || now.has_job
}

/// Starts the units of an entry; see [`start`](super::start).
pub(super) fn start(entry: &JournalEntry, signals: &Signals) -> Result<Started> {
    let names = names(&entry.units);
    let began = Instant::now();
    let limit = Duration::from_secs(entry.start_timeout_secs);
    let is_late = || began.elapsed() > limit || signals.is_repeated();
    let mut attempts: BTreeMap<usize, u32> = BTreeMap::new();
    let mut last_error: Option<Error> = None;
    let mut running_at: Option<Instant> = None;
    // A stop may be under way that systemd does not show yet.
    let mut is_certain = entry.step != StopProgress::Stopping;
    loop {
        let seen = match systemd::states(&names) {
            Ok(seen) => seen,
            Err(error) if is_late() => return Err(error),
            Err(error) => {
                tracing::warn!("systemd does not answer, waiting for it: {error:#}");
                thread::sleep(RETRY_PAUSE);
                continue;
            }
        };
        let was_started = |i: &usize| attempts.contains_key(i);
        let is_up = |i: usize| is_up(&entry.units[i], &seen[i], was_started(&i));
        let down: Vec<usize> = (0..seen.len()).filter(|&i| !is_up(i)).collect();
        if down.is_empty() && is_certain {
            let since = *running_at.get_or_insert_with(Instant::now);
            let pending = unhealthy(&entry.unit_containers);
            if pending.is_empty() {
                return Ok(started(&seen, &attempts, since));
            }
            if is_late() {
                bail!(pending.join("; "));
            }
            thread::sleep(HEALTH_PAUSE);
            continue;
        }
        running_at = None;
        let has_attempt = |i: &usize| attempts.get(i).copied().unwrap_or(0) < START_ATTEMPTS;
        let to_start: Vec<usize> = match is_certain {
            true => down
                .iter()
                .copied()
                .filter(|&i| needs_start(&seen[i]) && has_attempt(&i))
                .collect(),
            false => (0..seen.len()).collect(),
        };
        let is_pending = down.iter().any(|&i| !needs_start(&seen[i]));
        if to_start.is_empty() && (is_late() || !is_pending) {
            bail!(failure(&down, &seen, last_error.as_ref()));
        }
        is_certain = true;
        if to_start.is_empty() {
            thread::sleep(LOOK_PAUSE);
            continue;
        }
        let is_first = to_start.iter().all(|i| !was_started(i));
        let ordered: Vec<String> = to_start.iter().map(|&i| names[i].clone()).collect();
        tracing::debug!(units = ordered.join(" "), "starting");
        last_error = systemd::begin_start(&ordered).err();
        for i in to_start {
            *attempts.entry(i).or_default() += 1;
        }
        thread::sleep(match is_first && last_error.is_none() {
            true => LOOK_PAUSE,
            false => RETRY_PAUSE,
        });
    }
}

/// Whether a unit is as it was before. A unit with a job may be about to be stopped.
fn is_up(was: &WasActive, state: &UnitState, was_started: bool) -> bool {
    (state.active == ActiveState::Active && !state.has_job) || (was.kept_restarting && was_started)
}

/// Whether waiting alone does not help. A start that is ordered of a unit that is being
/// stopped takes the place of the stop, or follows it.
fn needs_start(state: &UnitState) -> bool {
    match state.active {
        ActiveState::Inactive | ActiveState::Failed => !state.has_job,
        ActiveState::Active | ActiveState::Activating | ActiveState::Deactivating => false,
    }
}

fn started(seen: &[UnitState], attempts: &BTreeMap<usize, u32>, running_at: Instant) -> Started {
    let last_starts = seen.iter().map(last_start).enumerate();
    Started {
        running_at,
        confirmed_at: Instant::now(),
        started: attempts.keys().copied().collect(),
        last_starts: last_starts.collect(),
        warnings: Vec::new(),
    }
}

fn last_start(state: &UnitState) -> LastStart {
    LastStart {
        started_at: state.invocation.clone(),
        restart_count: state.restart_count,
    }
}

fn failure(down: &[usize], seen: &[UnitState], error: Option<&Error>) -> String {
    let told = down.iter().map(|&i| describe(&seen[i]));
    let told = told.collect::<Vec<_>>().join("; ");
    match error {
        Some(error) => format!("{told} ({error:#})"),
        None => told,
    }
}

/// Says how a unit is that should run, with the end of its log.
fn describe(state: &UnitState) -> String {
    let how = match state.active {
        ActiveState::Active => "is about to be stopped",
        ActiveState::Activating => "is still being started",
        ActiveState::Deactivating => "is still being stopped",
        ActiveState::Inactive => "does not run",
        ActiveState::Failed => "has failed",
    };
    let result = match state.result.as_str() {
        "" | "success" => String::new(),
        result => format!(" ({result})"),
    };
    let log = match systemd::last_log_lines(&state.name, LOG_LINES).join(" | ") {
        log if log.is_empty() => log,
        log => format!(" (its log ends: {log})"),
    };
    format!("{} {how}{result}{log}", state.name)
}

/// Looks a second time at units; see [`confirm`](super::confirm).
pub(super) fn confirm(
    entry: &JournalEntry,
    started: &Started,
    signals: &Signals,
) -> Result<Vec<String>> {
    let names = names(&entry.units);
    let limit = Duration::from_secs(entry.start_timeout_secs);
    let mut last_starts = started.last_starts.clone();
    let mut restarted = BTreeSet::new();
    thread::sleep(SECOND_LOOK_AFTER.saturating_sub(started.confirmed_at.elapsed()));
    loop {
        let seen = systemd::states(&names)?;
        let mut unsettled = Vec::new();
        let mut ended = Vec::new();
        for (i, (was, state)) in entry.units.iter().zip(&seen).enumerate() {
            let is_restarted = last_starts.get(&i) != Some(&last_start(state));
            match state.active {
                _ if was.kept_restarting => {}
                ActiveState::Active if !is_restarted => {}
                ActiveState::Active | ActiveState::Activating => unsettled.push(i),
                _ => ended.push(format!("soon after its start, {}", describe(state))),
            }
        }
        if !ended.is_empty() {
            bail!(ended.join("; "));
        }
        if unsettled.is_empty() {
            let pending = unhealthy(&entry.unit_containers);
            if pending.is_empty() {
                return Ok(warnings(entry, &seen, &restarted));
            }
            if started.confirmed_at.elapsed() > limit || signals.is_repeated() {
                bail!(pending.join("; "));
            }
            thread::sleep(HEALTH_PAUSE);
            continue;
        }
        if started.confirmed_at.elapsed() > RESTART_LIMIT || signals.is_repeated() {
            let loops = unsettled.iter().map(|&i| {
                let times = count(seen[i].restart_count, "time");
                format!("{} keeps restarting: {times} since", describe(&seen[i]))
            });
            bail!(loops.collect::<Vec<_>>().join("; "));
        }
        for i in unsettled {
            restarted.insert(i);
            last_starts.insert(i, last_start(&seen[i]));
        }
        thread::sleep(SECOND_LOOK_AFTER);
    }
}

fn warnings(entry: &JournalEntry, seen: &[UnitState], restarted: &BTreeSet<usize>) -> Vec<String> {
    let units = entry.units.iter().zip(seen).enumerate();
    let warning = |(i, (was, state)): (usize, (&WasActive, &UnitState))| {
        if restarted.contains(&i) {
            let times = count(state.restart_count, "time");
            return Some(format!(
                "{} ended soon after its start; systemd has started it again ({times})",
                was.name
            ));
        }
        was.kept_restarting.then(|| {
            let now = &state.sub;
            format!(
                "{} kept restarting before the stop; now it is {now}",
                was.name
            )
        })
    };
    units.filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(active: ActiveState) -> UnitState {
        UnitState {
            name: "db.service".to_owned(),
            is_loaded: true,
            active,
            sub: String::new(),
            invocation: "1".to_owned(),
            restart_count: 0,
            result: "success".to_owned(),
            has_job: false,
        }
    }

    #[test]
    fn a_unit_that_ran_between_two_looks_is_found_by_its_invocation() {
        let before = state(ActiveState::Inactive);
        let another = UnitState {
            invocation: "2".to_owned(),
            ..before.clone()
        };
        let with_job = UnitState {
            has_job: true,
            ..before.clone()
        };
        for now in [
            another.clone(),
            with_job,
            state(ActiveState::Active),
            state(ActiveState::Activating),
            state(ActiveState::Deactivating),
        ] {
            assert!(has_run(&before, &now), "{now:?}");
        }
        // The controls. A unit that was forgotten has no number.
        assert!(!has_run(&before, &before));
        let forgotten = UnitState {
            invocation: String::new(),
            ..before.clone()
        };
        assert!(!has_run(&before, &forgotten));
        assert!(has_run(&forgotten, &another));
    }

    #[test]
    fn a_unit_that_is_about_to_be_stopped_is_not_up() {
        let was = |kept_restarting| WasActive {
            name: "db.service".to_owned(),
            kept_restarting,
        };
        let stopping = UnitState {
            has_job: true,
            ..state(ActiveState::Active)
        };
        assert!(!is_up(&was(false), &stopping, true));
        assert!(is_up(&was(false), &state(ActiveState::Active), false));
        // Of a unit in a restart loop, a start is all that is expected.
        let failed = state(ActiveState::Failed);
        assert!(is_up(&was(true), &failed, true));
        assert!(!is_up(&was(true), &failed, false));
        assert!(!is_up(&was(false), &failed, true));
        assert!(needs_start(&failed) && !needs_start(&stopping));
    }
}
