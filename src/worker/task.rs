//! What is done by workers: everything that touches trees or the store.

use anyhow::{Context as _, Result};
use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::plan::Plan;
use crate::cycle::{self, Observer, RunContext};
use crate::last_run;
use crate::outcome::{RunOutcome, StackStatus};
use crate::stack::journal::Journal;
use crate::store::prune::prune;
use crate::store::{Store, health};
use crate::sys::signals::Signals;

/// Each takes what it needs of the run's outcome, and returns what it adds to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// Creates the store, and removes what killed runs left in it. Returns the
    /// [`RunOutcome`].
    OpenStore(Box<RunOutcome>),
    /// Removes what killed runs left in a store that exists. Returns the [`RunOutcome`].
    CleanStore(Box<RunOutcome>),
    /// Backs up the stack with this position in the plan. Returns its
    /// [`StackOutcome`](crate::outcome::StackOutcome).
    BackUp { stack: usize, host: String },
    /// Prunes the store, and looks for damage. Returns the [`RunOutcome`].
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
            Task::OpenStore(mut outcome) => {
                let store = Store::create(&plan.backup_dir)?;
                remove_leftovers(&store, &mut outcome);
                serde_json::to_value(outcome)
            }
            Task::CleanStore(mut outcome) => {
                if let Ok(store) = Store::open(&plan.backup_dir) {
                    remove_leftovers(&store, &mut outcome);
                    outcome.store = store.usage().ok();
                }
                serde_json::to_value(outcome)
            }
            Task::BackUp { stack, host } => {
                let store = Store::open(&plan.backup_dir)?;
                let journal = Journal::of(&plan.state_dir);
                let context = RunContext {
                    store: &store,
                    journal: &journal,
                    signals,
                    host: &host,
                    observer,
                };
                serde_json::to_value(cycle::back_up(&context, &plan.stacks[stack]))
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
    let store = Store::open(&plan.backup_dir)?;
    if let Some(policy) = &plan.retention {
        let now = ZonedDateTime::now().datetime();
        let stacks = outcome.stacks.iter();
        let good =
            stacks.filter(|stack| stack.archive.is_some() && stack.status == StackStatus::Ok);
        outcome.pruned = good
            .map(|stack| prune(&store, policy, &stack.stack, now))
            .collect();
    }
    // After pruning: an archive that was pruned needs no warning.
    for i in 0..outcome.stacks.len() {
        match health::damaged(&store, &outcome.stacks[i].stack) {
            Ok(damaged) => outcome.stacks[i].damaged = damaged,
            Err(error) => last_run::add_error(outcome, &error),
        }
    }
    outcome.store = Some(store.usage()?);
    Ok(())
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
