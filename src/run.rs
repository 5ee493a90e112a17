//! The whole run: lock, recover, back up every stack, prune, report.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use crate::config::plan::{Plan, StackPlan};
use crate::history::History;
use crate::notify;
use crate::outcome::{Phase, RecoveredStack, RunOutcome, StackOutcome, StackStatus};
use crate::recover::recover_stacks;
use crate::stack::all_engines::all_containers;
use crate::stack::unconfigured;
use crate::store::{alarms, drill_results, health};
use crate::sys::lock::{Lock, Operation};
use crate::sys::logging::Log;
use crate::sys::priority;
use crate::sys::progress;
use crate::sys::signals::Signals;
use crate::sys::time::OffsetTime;
use crate::worker::{Watch, Watching};
use crate::{known_stacks, last_run, metrics};

/// Backs up every stack of the plan. `adopts_store` says that the store was moved
/// or replaced on purpose.
///
/// # Errors
/// When nothing could be attempted, because another run holds the lock. (All
/// other commands that hold it are waited for.) All other errors are in the
/// outcome.
pub fn run(
    plan: &Plan,
    adopts_store: bool,
    log: &Log,
    signals: &Signals,
    watching: Watching,
) -> Result<RunOutcome> {
    let lock = Lock::wait(&plan.state_dir, Operation::Run, signals)?;
    let watch = Watch {
        plan,
        signals,
        log,
        watching,
    };
    Ok(run_locked(&watch, adopts_store, &lock))
}

/// Does the same as [`run`] for a command that holds the lock already. All errors are in
/// the outcome.
pub fn run_locked(watch: &Watch<'_>, adopts_store: bool, _lock: &Lock) -> RunOutcome {
    let Watch {
        plan, signals, log, ..
    } = *watch;
    let mut outcome = last_run::begin(plan);
    match last_run::read(&plan.state_dir) {
        Ok(Some(last)) => {
            if last_run::is_unfinished(&last) {
                let started = last.started.strftime("%F %T").to_string();
                tracing::warn!(started, "the previous run was killed");
            }
            outcome.holes = last.holes;
        }
        Ok(None) => {}
        Err(error) => last_run::add_error(&mut outcome, &error),
    }
    last_run::save(plan, &mut outcome);
    tracing::info!(stacks = plan.stacks.len(), "backup started");
    if let Err(error) = attempt(watch, adopts_store, &mut outcome) {
        last_run::add_error(&mut outcome, &error);
    }
    for reason in &plan.passed_over {
        last_run::add_error(&mut outcome, &anyhow!("{reason}"));
    }
    if plan.configured.is_empty() {
        let error = anyhow!("no stack was found on this host, so nothing was backed up");
        last_run::add_error(&mut outcome, &error);
    }
    if let Err(error) = known_stacks::compare(plan, &mut outcome) {
        last_run::add_error(&mut outcome, &error);
    }
    // Also if the store cannot be used: then archives become old.
    add_health(plan, &mut outcome);
    find_unconfigured(plan, &mut outcome);
    outcome.interrupted = signals.received().map(str::to_owned);
    metrics::conclude(plan, log, &mut outcome);
    // A run that is killed before this tells of the same stacks again.
    if let Err(error) = known_stacks::remember(plan) {
        last_run::add_error(&mut outcome, &error);
    }
    outcome
}

fn attempt(watch: &Watch<'_>, adopts_store: bool, outcome: &mut RunOutcome) -> Result<()> {
    let plan = watch.plan;
    let recovery = recover_stacks(&plan.state_dir, watch.signals);
    outcome.recovered = recovery.stacks;
    for error in &recovery.errors {
        last_run::add_error(outcome, error);
    }
    notify::begun(plan, outcome);
    priority::lower();
    watch.open_store(adopts_store, outcome)?;
    for (i, stack) in plan.stacks.iter().enumerate() {
        if watch.signals.received().is_some() {
            break;
        }
        let span = tracing::info_span!("stack", stack = stack.name);
        let _entered = span.enter();
        progress::begin_stack(i + 1, plan.stacks.len(), &stack.name);
        outcome.stacks[i] = match not_recovered(&outcome.recovered, stack) {
            Some(failed) => failed,
            None => watch.back_up(i, &outcome.host),
        };
        let done = &mut outcome.stacks[i];
        outcome.holes.mark_new(&stack.name, &mut done.coverage);
        outcome.holes.remember(&stack.name, &done.coverage);
        last_run::save(plan, outcome);
    }
    // Before pruning, which may remove what was not handed over.
    if !plan.handover.is_empty() && watch.signals.received().is_none() {
        progress::begin_phase("hand-over");
        if let Err(error) = watch.hand_over(outcome) {
            last_run::add_error(outcome, &error);
        }
        last_run::save(plan, outcome);
    }
    watch.tidy_store(outcome)
}

/// Looks for projects without a stack, if the run is one of all stacks.
fn find_unconfigured(plan: &Plan, outcome: &mut RunOutcome) {
    if !plan.is_whole() {
        return;
    }
    if plan.takes_all {
        // What was passed over is a failure already.
        outcome.unconfigured = Some(Vec::new());
        return;
    }
    let asked = match all_containers(&plan.stacks) {
        Ok(asked) => asked,
        Err(error) => {
            // What is not known is not none.
            let what = "cannot look for projects that are not backed up";
            return tracing::warn!("{what}: {error:#}");
        }
    };
    let outcomes = outcome.stacks.iter();
    let stacks = plan.stacks.iter().zip(outcomes);
    let stacks = stacks.map(|(stack, outcome)| (stack, outcome.project.as_deref()));
    let found = unconfigured::find(&stacks.collect::<Vec<_>>(), &plan.ignore_projects, &asked);
    for project in &found {
        tracing::warn!("{}: {}", project.project, project.warning());
    }
    outcome.unconfigured = Some(found);
}

/// Adds the last drills, and what they and damaged archives warn of.
fn add_health(plan: &Plan, outcome: &mut RunOutcome) {
    let now = OffsetTime::now();
    let mut drills = drill_results::last_drills(&plan.state_dir).unwrap_or_else(|error| {
        last_run::add_error(outcome, &error);
        BTreeMap::new()
    });
    // A history that cannot be read is replaced, and said to be so, at the end of the run.
    let history = History::read(&plan.state_dir).unwrap_or_default();
    for (stack, plan) in outcome.stacks.iter_mut().zip(&plan.stacks) {
        stack.drilled = drills.remove(&stack.stack);
        let mut sizes = history.good_sizes(&stack.stack);
        let made = stack.archive.as_ref();
        let made = made.filter(|_| stack.status == StackStatus::Ok);
        sizes.extend(made.map(|archive| archive.archive_bytes));
        let known = history.last_good.get(&stack.stack);
        let newest = match made {
            Some(_) => Some(&outcome.started),
            None => stack.newest_good.as_ref().or(known.map(|good| &good.time)),
        };
        let alarms = alarms::warnings(plan, newest, &sizes, &now);
        let health = health::warnings(stack, plan.drill, &now);
        for warning in health.into_iter().chain(alarms) {
            tracing::warn!(stack = stack.stack, "{warning}");
            stack.warnings.push(warning);
        }
    }
}

/// Returns the outcome of a stack that an earlier run left stopped, or with the effect of
/// a hook, and that could not be recovered. Such a stack is not backed up: a new journal
/// entry would replace the old one, which names the containers that ran and the hooks.
fn not_recovered(recovered: &[RecoveredStack], stack: &StackPlan) -> Option<StackOutcome> {
    let found = recovered
        .iter()
        .find(|recovered| recovered.stack == stack.name)?;
    let (status, message) = match (&found.error, found.not_undone.first()) {
        (Some(error), _) => (
            StackStatus::Down,
            format!("left stopped by an earlier run, and cannot be started: {error}"),
        ),
        (None, Some(error)) => (
            StackStatus::Failed,
            format!("not backed up, because the hook of an earlier run is in effect: {error}"),
        ),
        (None, None) => return None,
    };
    let mut outcome = StackOutcome::not_run(&stack.name);
    outcome.status = status;
    outcome.add_failure(Phase::Plan, message);
    Some(outcome)
}
