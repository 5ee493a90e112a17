//! Stops a stack, starts it, and checks that it stays up. There are two drivers: Compose
//! on an Engine, Docker's or Podman, and units of systemd (`units`). Backup, restore and
//! recovery use the functions of this module and do not know how they work. The first look
//! at a stack is a [survey](Survey).
//!
//! A stack whose entry has units is driven by systemd, which knows their order.
//!
//! For Compose, the order of containers is taken from the containers (the label that Compose
//! sets, shared namespaces, `volumes_from`), so it is known even if the compose
//! file no longer parses. Containers are started one by one rather than by
//! `docker compose start`, which would also start what a service depends on, and
//! so run a finished one-shot service again.

mod addresses;
mod look;
mod remake;
mod second_look;
mod start;
mod start_state;
mod stop;
mod unit_health;
mod units;

use std::time::Duration;

use anyhow::Result;

use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::Container;
pub use crate::engine::was_refused;
use crate::stack::journal::JournalEntry;
use crate::stack::remade;
use crate::stack::survey::Survey;
use crate::stack::unit_containers;
use crate::sys::signals::Signals;
use look::wait_for_engine;
pub use remake::remake as make_again;
pub use second_look::{await_start, stays_up};
pub use start::Started;
pub use stop::stop_at_once;
use stop::stop_in_order;
use units::stop_units;
pub use units::{UnitsAtRest, stop_named_units};

/// Stops what a survey found running, by the survey's stop method. `grace`
/// overrides the containers' own stop timeouts, and limits the stop of units.
///
/// # Errors
/// When anything was not stopped. If the error is a [refusal](was_refused), no
/// stop is under way any more.
pub fn stop(survey: &Survey, grace: Option<Duration>, signals: &Signals) -> Result<()> {
    if !survey.units.is_empty() {
        return stop_units(&survey.units, grace.unwrap_or(survey.unit_stop_limit));
    }
    let engine = &survey.compose.engine;
    match survey.stop_method {
        StopMethod::Stop => stop_in_order(engine, &survey.running, grace, signals),
        StopMethod::Pause => stop::pause(engine, &survey.running),
        StopMethod::Down => {
            stop_in_order(engine, &survey.running, grace, signals)?;
            if signals.received().is_some() {
                return Ok(());
            }
            // What runs no more cannot change the compose file again.
            let config = survey.compose.config()?;
            remade::refuse_differences(&survey.compose, &config, &survey.running)?;
            // Compose stops a chain of dependencies one after the other, so the
            // stop timeouts add up.
            let containers = survey.containers.iter();
            let longest_stop = containers.map(|c| grace.unwrap_or(c.stop_timeout)).sum();
            survey.compose.down(grace, longest_stop)
        }
    }
}

/// Stops what an entry names, which is about to be exchanged by a restore.
/// `unit_stop_limit` is for units, if the entry has no stop timeout.
///
/// # Errors
/// When anything was not stopped.
pub fn stop_entry(
    entry: &JournalEntry,
    unit_stop_limit: Duration,
    signals: &Signals,
) -> Result<()> {
    let grace = entry.stop_timeout_secs.map(Duration::from_secs);
    match entry.units.is_empty() {
        true => stop_in_order(&entry.compose.engine, &entry.containers, grace, signals),
        false => stop_units(&entry.units, grace.unwrap_or(unit_stop_limit)),
    }
}

/// Starts what a journal entry names, and waits until each is as it was before the stop,
/// or the entry's time limit has passed. This is idempotent: what runs is left alone,
/// unless a stop may still be under way. An Engine that is away is waited for.
///
/// One signal does not interrupt the start. A second one ends all waiting:
/// everything is started, and what is not confirmed at that moment is an error,
/// so that the entry stays for `recover`.
///
/// A container or a unit may end soon after its start. Therefore the entry stays in the
/// journal until [`confirm`] has looked a second time.
///
/// # Errors
/// Names each container or unit that is not as it was, with the reason.
pub fn start(entry: &JournalEntry, signals: &Signals) -> Result<Started> {
    match entry.units.is_empty() {
        true => start::start(entry, signals),
        false => units::start(entry, signals),
    }
}

/// Checks that a stack is still as it was before its stop, a second and a half
/// after its start was confirmed. Waits longer for what was restarted meanwhile. Only then
/// may the journal entry be removed.
///
/// Returns warnings.
///
/// # Errors
/// When something is not as it was, or the Engine or systemd does not answer: the stack
/// counts as down.
pub fn confirm(entry: &JournalEntry, started: &Started, signals: &Signals) -> Result<Vec<String>> {
    match entry.units.is_empty() {
        true => second_look::confirm(entry, started, signals),
        false => units::confirm(entry, started, signals),
    }
}

/// Lists every container of the Engine. If the Engine is away, for example
/// because it is being restarted, it is waited for, at most for `limit` and until
/// a signal asks the program to end.
pub fn containers(stack: &StackPlan, limit: Duration, signals: &Signals) -> Result<Vec<Container>> {
    wait_for_engine(|| containers_now(stack), limit, signals)
}

/// Does the same without waiting. Beside a stack of units there need be no Engine, and
/// there may be two.
pub fn containers_now(stack: &StackPlan) -> Result<Vec<Container>> {
    let engine = &stack.compose.engine;
    match stack.is_of_units() {
        true => unit_containers::all(engine),
        false => engine.containers(),
    }
}
