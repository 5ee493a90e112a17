//! What is done by workers: everything that touches trees or the store.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::plan::Plan;
use crate::cycle::{self, Observer, RunContext};
use crate::last_run;
use crate::outcome::{RunOutcome, StackOutcome, StackStatus};
use crate::stack::journal::Journal;
use crate::store::prune::prune;
use crate::store::{Store, health, identity};
use crate::sys::signals::Signals;
use crate::sys::time::OffsetTime;
use crate::{drill, handover, restore};

/// Each takes what it needs of the run's outcome, and returns what it adds to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// Creates the store, or checks that it is the one of before unless it is to be
    /// adopted, and removes what killed runs left in it. Returns the [`RunOutcome`].
    OpenStore {
        outcome: Box<RunOutcome>,
        adopts: bool,
    },
    /// Removes what killed runs left in a store that exists. Returns the [`RunOutcome`].
    CleanStore(Box<RunOutcome>),
    /// Backs up the stack with this position in the plan. Returns its [`StackOutcome`].
    BackUp { stack: usize, host: String },
    /// Runs the hooks that follow the backup of the stack with this position in the plan,
    /// whatever came of it. Returns its [`StackOutcome`].
    Finally {
        stack: usize,
        outcome: Box<StackOutcome>,
    },
    /// Hands archives over to the repositories. Returns the [`RunOutcome`].
    HandOver(Box<RunOutcome>),
    /// Prunes the store, looks for damage, and tries again to remove what restores and
    /// drills could not remove. Returns the [`RunOutcome`].
    TidyStore(Box<RunOutcome>),
}

impl Task {
    /// Performs the task in this process.
    pub(super) fn perform(
        self,
        plan: &Plan,
        signals: &Signals,
        observer: &dyn Observer,
    ) -> Result<Value> {
        let done = match self {
            Task::OpenStore {
                mut outcome,
                adopts,
            } => {
                let store = match adopts {
                    true => identity::adopt(plan)?,
                    false => identity::open_or_create(plan)?,
                };
                if let Err(error) = identity::remember(plan, &store) {
                    last_run::add_error(&mut outcome, &error);
                }
                remove_leftovers(&store, &mut outcome);
                serde_json::to_value(outcome)
            }
            Task::CleanStore(mut outcome) => {
                if let Ok(store) = identity::open(plan) {
                    remove_leftovers(&store, &mut outcome);
                    outcome.store = store.usage().ok();
                }
                serde_json::to_value(outcome)
            }
            Task::BackUp { stack, host } => {
                let stack = &plan.stacks[stack];
                let span = tracing::info_span!("stack", stack = stack.name);
                let _entered = span.enter();
                let store = identity::open(plan)?;
                let journal = Journal::of(&plan.state_dir);
                let context = RunContext {
                    store: &store,
                    journal: &journal,
                    signals,
                    host: &host,
                    observer,
                };
                serde_json::to_value(cycle::back_up(&context, stack))
            }
            Task::Finally { stack, mut outcome } => {
                let stack = &plan.stacks[stack];
                let span = tracing::info_span!("stack", stack = stack.name);
                let _entered = span.enter();
                cycle::run_finally(stack, &mut outcome);
                serde_json::to_value(outcome)
            }
            Task::HandOver(mut outcome) => {
                let store = identity::open(plan)?;
                outcome.handovers = handover::hand_over(plan, &store, signals);
                serde_json::to_value(outcome)
            }
            Task::TidyStore(mut outcome) => {
                tidy_store(plan, &mut outcome)?;
                serde_json::to_value(outcome)
            }
        };
        done.context("cannot return what was done")
    }
}

fn tidy_store(plan: &Plan, outcome: &mut RunOutcome) -> Result<()> {
    let store = identity::open(plan)?;
    let now = OffsetTime::now();
    // Of workers that were given up.
    remove_leftovers(&store, outcome);
    if let Some(policy) = &plan.retention {
        let stacks = outcome.stacks.iter();
        let good =
            stacks.filter(|stack| stack.archive.is_some() && stack.status == StackStatus::Ok);
        outcome.pruned = good
            .map(|stack| prune(&store, policy, &stack.stack, &now, false))
            .collect();
    }
    // After pruning: an archive that was pruned needs no warning.
    let leftovers = restore::stack::clean_leftovers(&plan.state_dir).unwrap_or_else(|error| {
        last_run::add_error(outcome, &error);
        Vec::new()
    });
    for i in 0..outcome.stacks.len() {
        let name = outcome.stacks[i].stack.clone();
        match health::damaged(&store, &name) {
            Ok(damaged) => outcome.stacks[i].damaged = damaged,
            Err(error) => last_run::add_error(outcome, &error),
        }
        match newest_good(&store, &name, &now) {
            Ok(newest) => outcome.stacks[i].newest_good = newest,
            Err(error) => last_run::add_error(outcome, &error),
        }
        let misplaced = health::misplaced(&store, &name, &now).unwrap_or_else(|error| {
            last_run::add_error(outcome, &error);
            Vec::new()
        });
        let of_restores = leftovers.iter().filter(|(stack, _)| *stack == name);
        let of_restores = of_restores.map(|(_, warning)| warning.clone());
        let of_drills = drill::clean_leftovers(&plan.state_dir, &name);
        for warning in misplaced.into_iter().chain(of_restores).chain(of_drills) {
            tracing::warn!(stack = name, "{warning}");
            outcome.stacks[i].warnings.push(warning);
        }
    }
    outcome.store = Some(store.usage()?);
    Ok(())
}

/// Returns when the newest good archive of a stack was begun.
fn newest_good(store: &Store, stack: &str, now: &OffsetTime) -> Result<Option<OffsetTime>> {
    let archives = store.list(stack)?.into_iter();
    let mut good = archives.filter(|archive| archive.objection(now).is_none());
    Ok(good.next_back().map(|archive| archive.time))
}

/// Removes the unfinished archives that killed runs left. An error is added to
/// the outcome and not returned, because a directory that cannot be read does
/// not concern the backups of other stacks.
fn remove_leftovers(store: &Store, outcome: &mut RunOutcome) {
    match store.remove_leftovers(None) {
        Ok(removed) => {
            for path in removed {
                tracing::warn!(path = %path.display(), "removed a file that a killed run left");
            }
        }
        Err(error) => last_run::add_error(outcome, &error),
    }
}
