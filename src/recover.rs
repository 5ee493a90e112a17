//! Recovering from runs, restores and drills that were killed: starts what they
//! left stopped (I3), and concludes the outcome of the run.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::config::plan::Plan;
use crate::outcome::{RecoveredStack, RunOutcome};
use crate::stack::driver;
use crate::stack::journal::Journal;
use crate::store::Store;
use crate::sys::lock::{Lock, LockHeld, Operation};
use crate::sys::logging::Log;
use crate::sys::signals::Signals;
use crate::worker::remove_leftovers;
use crate::{drill, last_run, restore};

/// Starts what an interrupted run left stopped, and reports that run. Returns
/// `None` if there was nothing to do: the last run ended by itself, or a run or
/// a drill is under way, which has recovered already.
///
/// # Errors
/// When the lock cannot be taken, or the journal cannot be read.
pub fn recover(plan: &Plan, log: &Log) -> Result<Option<RunOutcome>> {
    let signals = Signals::default();
    let lock = match Lock::wait(&plan.state_dir, Operation::Recover, &signals) {
        Err(error) if error.downcast_ref().is_some_and(LockHeld::holder_recovers) => {
            tracing::info!("{error:#}; it has recovered already");
            return Ok(None);
        }
        lock => lock?,
    };
    recover_locked(plan, log, &signals, &lock)
}

/// Does the same as [`recover`] for a command that holds the lock already.
///
/// # Errors
/// When the journal cannot be read.
pub fn recover_locked(
    plan: &Plan,
    log: &Log,
    signals: &Signals,
    _lock: &Lock,
) -> Result<Option<RunOutcome>> {
    let journal = Journal::open(&plan.state_dir)?;
    let recovered = recover_stacks(&plan.state_dir, &journal, signals)?;
    let (unfinished, error) = match last_run::read(&plan.state_dir) {
        Ok(last) => (last.filter(last_run::is_unfinished), None),
        Err(error) => (None, Some(error)),
    };
    if recovered.is_empty() && unfinished.is_none() && error.is_none() {
        return Ok(None);
    }
    let mut outcome = match unfinished {
        Some(outcome) => RunOutcome {
            interrupted: Some("killed".to_owned()),
            ..outcome
        },
        None => RunOutcome {
            stacks: Vec::new(),
            ..last_run::begin(plan)
        },
    };
    outcome.recovered = recovered;
    if let Some(error) = error {
        last_run::add_error(&mut outcome, &error);
    }
    if let Ok(store) = Store::open(&outcome.backup_dir) {
        remove_leftovers(&store, &mut outcome);
        outcome.store = store.usage().ok();
    }
    last_run::conclude(plan, log, &mut outcome);
    Ok(Some(outcome))
}

/// Takes down drills, rolls back restores and starts stacks that were left by a
/// killed command. Returns what was found, and for each stack whether that
/// succeeded. The lock must be held.
///
/// # Errors
/// When the journal, or the list of restores or drills, cannot be read.
pub fn recover_stacks(
    state_dir: &Path,
    journal: &Journal,
    signals: &Signals,
) -> Result<Vec<RecoveredStack>> {
    let mut recovered = Vec::new();
    let mut half_restored = Vec::new();
    let drills = drill::recover(state_dir)?
        .into_iter()
        .map(|(stack, result)| {
            let result = result.context("cannot take down a drill that was killed");
            (format!("{stack} (drill)"), result)
        });
    let restores = restore::stack::recover(state_dir, journal)?;
    for (stack, result) in restores.into_iter().chain(drills) {
        let Err(error) = result else { continue };
        tracing::error!("{error:#}");
        half_restored.push(stack.clone());
        recovered.push(RecoveredStack {
            stack,
            services: Vec::new(),
            error: Some(format!("{error:#}")),
        });
    }
    for found in journal.found()? {
        // The stack must not be started: its data may be half old, half new.
        if half_restored.contains(&found.stack) {
            continue;
        }
        let span = tracing::info_span!("recover", stack = found.stack);
        let _entered = span.enter();
        let result = found.entry.and_then(|entry| {
            let services = entry.services();
            tracing::warn!(services = services.join(" "), "left stopped, starting it");
            driver::start(&entry, signals)?;
            journal.remove(&found.stack)?;
            Ok(services)
        });
        let (services, error) = match result {
            Ok(services) => (services, None),
            Err(error) => {
                tracing::error!("{error:#}");
                (Vec::new(), Some(format!("{error:#}")))
            }
        };
        recovered.push(RecoveredStack {
            stack: found.stack,
            services,
            error,
        });
    }
    Ok(recovered)
}

/// Removes the journal entry of a stack that was started or removed by hand.
///
/// # Errors
/// When the lock cannot be taken, or the journal has no entry for the stack.
pub fn forget(plan: &Plan, stack: &str) -> Result<()> {
    let _lock = Lock::take(&plan.state_dir, Operation::Recover)?;
    let journal = Journal::open(&plan.state_dir)?;
    if !journal.found()?.iter().any(|found| found.stack == stack) {
        bail!("the journal has no entry for a stack `{stack}`");
    }
    journal.remove(stack)
}
