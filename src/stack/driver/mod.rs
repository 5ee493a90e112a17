//! Stops a stack, starts it, and checks that it stays up. There is one driver,
//! Compose on an Engine, Docker's or Podman. Backup, restore and recovery use the functions of
//! this module and do not know how they work. The first look at a stack is a
//! [survey](Survey).
//!
//! The order of containers is taken from the containers (the label that Compose
//! sets, shared namespaces, `volumes_from`), so it is known even if the compose
//! file no longer parses. Containers are started one by one rather than by
//! `docker compose start`, which would also start what a service depends on, and
//! so run a finished one-shot service again.

mod addresses;
mod remake;
mod second_look;
mod start;
mod start_state;
mod stop;

use std::time::Duration;

use anyhow::Result;

use crate::config::StopMethod;
pub use crate::engine::was_refused;
use crate::engine::{self, CheckPace, Container, Engine};
use crate::stack::journal::JournalEntry;
use crate::stack::remade;
use crate::stack::survey::Survey;
use crate::sys::signals::Signals;
pub use second_look::{confirm, stays_up};
pub use start::{Started, start};
pub use stop::{stop_at_once, stop_in_order};

/// Stops what a survey found running, by the survey's stop method. `grace`
/// overrides the containers' own stop timeouts.
///
/// # Errors
/// When anything was not stopped. If the error is a [refusal](was_refused), no
/// stop is under way any more.
pub fn stop(survey: &Survey, grace: Option<Duration>, signals: &Signals) -> Result<()> {
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

/// Lists every container of the Engine. If the Engine is away, for example
/// because it is being restarted, it is waited for, at most for `limit` and until
/// a signal asks the program to end.
pub fn containers(engine: &Engine, limit: Duration, signals: &Signals) -> Result<Vec<Container>> {
    wait_for_engine(|| engine.containers(), limit, signals)
}

/// Lists the containers of an entry's project, and those of others that the entry
/// names.
fn present(entry: &JournalEntry) -> Result<Vec<Container>> {
    let engine = &entry.compose.engine;
    let mut present = engine.compose_containers(Some(&entry.project))?;
    let others = entry.containers.iter().filter(|was| !was.is_own());
    let others: Vec<String> = others.map(|was| was.id.clone()).collect();
    if !others.is_empty() {
        present.extend(engine.containers_of(others)?);
    }
    engine.check_health(&mut present, CheckPace::Soon);
    Ok(present)
}

fn wait_for_engine<T>(
    request: impl Fn() -> Result<T>,
    limit: Duration,
    signals: &Signals,
) -> Result<T> {
    engine::retry_while_unreachable(request, |away| away < limit && signals.received().is_none())
}
