//! The whole run: lock, recover, back up every stack, prune, report.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::ZonedDateTime;

use crate::config::plan::{Plan, StackPlan};
use crate::cycle::{self, RunContext};
use crate::last_run;
use crate::outcome::{Failure, Phase, RecoveredStack, RunOutcome, StackOutcome, StackStatus};
use crate::recover::{recover_stacks, remove_leftovers};
use crate::stack::journal::Journal;
use crate::store::prune::prune;
use crate::store::{Store, drill_results, health};
use crate::sys::lock::{Lock, Operation};
use crate::sys::logging::Log;
use crate::sys::priority;
use crate::sys::progress;
use crate::sys::signals::Signals;

/// Backs up every stack of the plan.
///
/// # Errors
/// When nothing could be attempted, because another run holds the lock. (All
/// other commands that hold it are waited for.) All other errors are in the
/// outcome.
pub fn run(plan: &Plan, log: &Log, signals: &Signals) -> Result<RunOutcome> {
    let _lock = Lock::wait(&plan.state_dir, Operation::Run, signals)?;
    let mut outcome = last_run::begin(plan);
    match last_run::read(&plan.state_dir) {
        Ok(Some(last)) if last_run::is_unfinished(&last) => {
            let started = last.started.strftime("%F %T").to_string();
            tracing::warn!(started, "the previous run was killed");
        }
        Ok(_) => {}
        Err(error) => last_run::add_error(&mut outcome, &error),
    }
    last_run::save(plan, &mut outcome);
    tracing::info!(stacks = plan.stacks.len(), "backup started");
    if let Err(error) = attempt(plan, signals, &mut outcome) {
        last_run::add_error(&mut outcome, &error);
    }
    outcome.interrupted = signals.received().map(str::to_owned);
    last_run::conclude(plan, log, &mut outcome);
    Ok(outcome)
}

fn attempt(plan: &Plan, signals: &Signals, outcome: &mut RunOutcome) -> Result<()> {
    let recovery = recover_stacks(&plan.state_dir, signals);
    outcome.recovered = recovery.stacks;
    for error in &recovery.errors {
        last_run::add_error(outcome, error);
    }
    let journal = Journal::of(&plan.state_dir);
    priority::lower();
    let store = Store::create(&plan.backup_dir)?;
    remove_leftovers(&store, outcome);
    let host = outcome.host.clone();
    let context = RunContext {
        store: &store,
        journal: &journal,
        signals,
        host: &host,
    };
    for (i, stack) in plan.stacks.iter().enumerate() {
        if signals.received().is_some() {
            break;
        }
        let span = tracing::info_span!("stack", stack = stack.name);
        let _entered = span.enter();
        progress::begin_stack(i + 1, plan.stacks.len(), &stack.name);
        outcome.stacks[i] = match still_down(&outcome.recovered, stack) {
            Some(failed) => failed,
            None => cycle::back_up(&context, stack),
        };
        last_run::save(plan, outcome);
    }
    if let Some(policy) = &plan.retention {
        let now = ZonedDateTime::now().datetime();
        let good = outcome
            .stacks
            .iter()
            .filter(|stack| stack.archive.is_some());
        outcome.pruned = good
            .filter(|stack| stack.status == StackStatus::Ok)
            .map(|stack| prune(&store, policy, &stack.stack, now))
            .collect();
    }
    add_health(plan, &store, outcome);
    outcome.store = Some(store.usage()?);
    Ok(())
}

/// Adds the last drills and the damaged archives to the outcome. It must follow
/// pruning, because an archive that was pruned needs no warning.
fn add_health(plan: &Plan, store: &Store, outcome: &mut RunOutcome) {
    let now = ZonedDateTime::now();
    let mut drills = drill_results::last_drills(&plan.state_dir).unwrap_or_else(|error| {
        last_run::add_error(outcome, &error);
        BTreeMap::new()
    });
    for i in 0..outcome.stacks.len() {
        let name = outcome.stacks[i].stack.clone();
        outcome.stacks[i].drilled = drills.remove(&name);
        match health::damaged(store, &name) {
            Ok(damaged) => outcome.stacks[i].damaged = damaged,
            Err(error) => last_run::add_error(outcome, &error),
        }
        for warning in health::warnings(&outcome.stacks[i], &now) {
            tracing::warn!(stack = name, "{warning}");
            outcome.stacks[i].warnings.push(warning);
        }
    }
}

/// Returns the outcome of a stack that an earlier run left stopped and that
/// could not be started. Such a stack is not backed up: a new journal entry
/// would replace the old one, which names the containers that ran.
fn still_down(recovered: &[RecoveredStack], stack: &StackPlan) -> Option<StackOutcome> {
    let found = recovered
        .iter()
        .find(|recovered| recovered.stack == stack.name)?;
    let error = found.error.as_ref()?;
    let mut outcome = StackOutcome::not_run(&stack.name);
    outcome.status = StackStatus::Down;
    outcome.failures.push(Failure {
        phase: Phase::Plan,
        message: format!("left stopped by an earlier run, and cannot be started: {error}"),
    });
    Some(outcome)
}
