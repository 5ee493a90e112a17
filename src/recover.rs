//! Recovering from runs, restores and drills that were killed: starts what they
//! left stopped (I3), takes back the effect of hooks, and concludes the outcome of the
//! run.
//!
//! The start needs the journal and the Engine, and nothing else. All the rest may
//! be missing, unreadable or hang, so it comes after the start; its errors are
//! reported.

use std::path::Path;

use anyhow::{Context as _, Error, Result, anyhow, bail};

use crate::config::plan::Plan;
use crate::guard::{FoundGuard, GuardEntry};
use crate::outcome::{RecoveredStack, RunOutcome, StackStatus};
use crate::stack::driver::{self, Started};
use crate::stack::hooks;
use crate::stack::journal::{FoundEntry, Journal, JournalEntry, StopProgress};
use crate::sys::lock::{Lock, LockHeld, Operation};
use crate::sys::logging::Log;
use crate::sys::signals::Signals;
use crate::worker::{Watch, Watching};
use crate::{drill, guard, last_run, metrics, restore};

/// Starts what an interrupted run left stopped, and reports that run. Returns
/// `None` if there was nothing to do: the last run ended by itself, or a run or
/// a drill is under way, which has recovered already. `problem` is an error of
/// the configuration, which is reported as well.
///
/// # Errors
/// When the lock cannot be taken.
pub fn recover(plan: &Plan, problem: Option<&Error>, log: &Log) -> Result<Option<RunOutcome>> {
    let signals = Signals::default();
    let lock = match Lock::wait(&plan.state_dir, Operation::Recover, &signals) {
        Err(error) if error.downcast_ref().is_some_and(LockHeld::holder_recovers) => {
            tracing::info!("{error:#}; it has recovered already");
            return Ok(None);
        }
        lock => lock?,
    };
    Ok(recover_locked(plan, problem, log, &signals, &lock))
}

/// Does the same as [`recover`] for a command that holds the lock already.
pub fn recover_locked(
    plan: &Plan,
    problem: Option<&Error>,
    log: &Log,
    signals: &Signals,
    _lock: &Lock,
) -> Option<RunOutcome> {
    let recovery = recover_stacks(&plan.state_dir, signals);
    let mut errors = recovery.errors;
    let last = last_run::read(&plan.state_dir).unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let holes = last.as_ref().map(|last| last.holes.clone());
    let unfinished = last.filter(last_run::is_unfinished);
    if recovery.stacks.is_empty() && unfinished.is_none() && errors.is_empty() {
        return None;
    }
    let mut outcome = match unfinished {
        Some(outcome) => RunOutcome {
            interrupted: Some("killed".to_owned()),
            ..outcome
        },
        None => RunOutcome {
            stacks: Vec::new(),
            holes: holes.unwrap_or_default(),
            ..last_run::begin(plan)
        },
    };
    add_recovered(&mut outcome, recovery.stacks);
    for error in problem.into_iter().chain(&errors) {
        last_run::add_error(&mut outcome, error);
    }
    let watch = Watch {
        plan,
        signals,
        log,
        watching: Watching::Workers,
    };
    if let Err(error) = watch.clean_store(&mut outcome) {
        last_run::add_error(&mut outcome, &error);
    }
    metrics::conclude(plan, log, &mut outcome);
    Some(outcome)
}

/// Adds the recovered stacks. One that was down when the run was killed may be up
/// now.
fn add_recovered(outcome: &mut RunOutcome, recovered: Vec<RecoveredStack>) {
    for stack in &mut outcome.stacks {
        let is_up = |found: &RecoveredStack| found.stack == stack.stack && found.error.is_none();
        if stack.status == StackStatus::Down && recovered.iter().any(is_up) {
            stack.status = StackStatus::Failed;
        }
        // What is not undone now is told of the recovered stack.
        if recovered.iter().any(|found| found.stack == stack.stack) {
            stack.not_undone.clear();
        }
    }
    outcome.recovered = recovered;
}

/// What was found of killed commands.
#[derive(Default)]
pub struct Recovery {
    pub stacks: Vec<RecoveredStack>,
    /// What could not be looked at, or put right, and is no stack.
    pub errors: Vec<Error>,
}

/// Starts stacks, rolls back restores and updates, and takes down drills that were left by a
/// killed command. Tries everything that it finds. The lock must be held.
pub fn recover_stacks(state_dir: &Path, signals: &Signals) -> Recovery {
    let journal = Journal::of(state_dir);
    let mut recovery = Recovery::default();
    // What starts the stack of an update is its roll-back.
    let guarded = recovery.note(guard::found(state_dir));
    let is_guarded = |stack: &str| {
        let mut pending = guarded.iter().filter(|guard| {
            let entry = guard.entry.as_ref();
            entry.is_ok_and(GuardEntry::is_pending)
        });
        pending.any(|guard| guard.stack == stack)
    };
    // Some of a stack's data may be old and some new until its restore is undone.
    let is_half_restored = |found: &FoundEntry| {
        let stopped_for = found.entry.as_ref().is_ok_and(|entry| entry.for_restore);
        stopped_for || restore::stack::is_unfinished(state_dir, &found.stack).unwrap_or(false)
    };
    let (half_restored, stopped): (Vec<_>, Vec<_>) = recovery
        .note(journal.found())
        .into_iter()
        .filter(|found| !is_guarded(&found.stack))
        .partition(is_half_restored);
    let mut entries = recovery.start(&journal, stopped, signals);
    let undone = recovery.note(restore::stack::recover(state_dir, &journal));
    for (stack, result) in undone {
        if let Err(error) = result {
            recovery.add(stack, Vec::new(), Err(error));
        }
    }
    let undone = half_restored.into_iter().filter_map(|found| {
        let stack = &found.stack;
        let is_failed = recovery.stacks.iter().any(|failed| failed.stack == *stack);
        // A restore that had succeeded has left no entry.
        (!is_failed && journal.has(stack)).then(|| refuse_half_restored(state_dir, found))
    });
    let undone = undone.collect();
    entries.extend(recovery.start(&journal, undone, signals));
    for found in guarded {
        recovery.end_update(state_dir, found);
    }
    for (stack, result) in recovery.note(drill::recover(state_dir)) {
        let context = || format!("cannot take down a drill of {stack} that was killed");
        let result = result.with_context(context);
        recovery.note(result);
    }
    // These come last: commands of the administrator may hang.
    for entry in entries {
        recovery.undo_hooks(&journal, entry);
    }
    recovery
}

/// Replaces the entry by an error unless its restore is undone: its data may be
/// half old, half new.
fn refuse_half_restored(state_dir: &Path, found: FoundEntry) -> FoundEntry {
    let is_unfinished = restore::stack::is_unfinished(state_dir, &found.stack);
    let refusal = match is_unfinished {
        Ok(false) => return found,
        Ok(true) => anyhow!("its restore was killed and is not undone"),
        Err(error) => error.context("its restore was killed, and may not be undone"),
    };
    FoundEntry {
        entry: found.entry.and(Err(refusal)),
        ..found
    }
}

impl Recovery {
    /// Returns what was found, or nothing, with the error noted.
    fn note<T: Default>(&mut self, found: Result<T>) -> T {
        found.unwrap_or_else(|error| {
            self.errors.push(error);
            T::default()
        })
    }

    /// Returns what is told of a stack.
    fn told(&mut self, stack: &str) -> &mut RecoveredStack {
        let known = self.stacks.iter().position(|found| found.stack == stack);
        let place = known.unwrap_or_else(|| {
            self.stacks.push(RecoveredStack {
                stack: stack.to_owned(),
                ..RecoveredStack::default()
            });
            self.stacks.len() - 1
        });
        &mut self.stacks[place]
    }

    /// Rolls back an update that was killed, or lets go of what it has left.
    fn end_update(&mut self, state_dir: &Path, found: FoundGuard) {
        let stack = found.stack;
        let span = tracing::info_span!("recover", stack);
        let _entered = span.enter();
        // Its data may be half old, half new.
        let is_failed = self.stacks.iter().any(|failed| failed.stack == stack);
        if is_failed {
            return;
        }
        let recovered = found.entry.and_then(|entry| {
            let services = entry.before.services();
            let what = format!(
                "the update `{}` was killed before it was confirmed, and was rolled back: images \
                 and containers are as before, the data is that of {}",
                entry.command.join(" "),
                entry.archive.display()
            );
            Ok(guard::recover(entry, state_dir)
                .context("cannot roll back an update that was killed")?
                .map(|done| (services, [vec![what], done.warnings].concat())))
        });
        match recovered {
            Ok(None) => {}
            Ok(Some((services, warnings))) => self.add(stack, services, Ok(warnings)),
            Err(error) => self.add(stack, Vec::new(), Err(error)),
        }
    }

    /// Takes back the effect of a stack's hooks, and removes what is done from the journal.
    fn undo_hooks(&mut self, journal: &Journal, mut entry: JournalEntry) {
        let span = tracing::info_span!("recover", stack = entry.stack);
        let _entered = span.enter();
        let mut outcomes = Vec::new();
        let done = hooks::undo_all(&mut entry, journal, &mut |outcome| outcomes.push(outcome));
        for outcome in outcomes {
            let told = self.told(&entry.stack);
            match outcome.error {
                None => told.undone.push(outcome.command),
                Some(error) => told.not_undone.push(error),
            }
        }
        self.note(done.and_then(|()| journal.settle(&entry)));
    }

    fn add(&mut self, stack: String, services: Vec<String>, warnings: Result<Vec<String>>) {
        let (warnings, error) = match warnings {
            Ok(warnings) => (warnings, None),
            Err(error) => {
                tracing::error!(stack, "{error:#}");
                (Vec::new(), Some(format!("{error:#}")))
            }
        };
        for warning in &warnings {
            tracing::warn!(stack, "{warning}");
        }
        let told = self.told(&stack);
        told.services = services;
        told.error = error;
        told.warnings = warnings;
    }

    /// Starts all stacks before it looks at any of them a second time, so that
    /// none has to wait for another one's second look. Returns the entries with hooks whose
    /// effect is to be taken back, also those of stacks that did not start: what such a hook
    /// concerns may be up.
    fn start(
        &mut self,
        journal: &Journal,
        found: Vec<FoundEntry>,
        signals: &Signals,
    ) -> Vec<JournalEntry> {
        let mut started = Vec::new();
        let mut with_undos = Vec::new();
        // An Engine that does not answer is waited for, and most likely that of a user.
        let mut found = found;
        found.sort_by_key(FoundEntry::has_own_engine);
        for FoundEntry { stack, entry } in found {
            match entry {
                Ok(entry) if entry.is_down() => started.push((start_one(&entry, signals), entry)),
                Ok(entry) => with_undos.push(entry),
                Err(error) => self.add(stack, Vec::new(), Err(error)),
            }
        }
        for (started, mut entry) in started {
            let confirmed = started.and_then(|started| driver::confirm(&entry, &started, signals));
            let settled = match confirmed {
                Ok(_) => {
                    entry.step = StopProgress::Up;
                    journal.settle(&entry)
                }
                Err(_) => Ok(()),
            };
            self.add(entry.stack.clone(), entry.services(), confirmed);
            // The stack is up, whether its entry could be removed or not.
            self.note(settled);
            if !entry.undos.is_empty() {
                with_undos.push(entry);
            }
        }
        with_undos
    }
}

fn start_one(entry: &JournalEntry, signals: &Signals) -> Result<Started> {
    let span = tracing::info_span!("recover", stack = entry.stack);
    let _entered = span.enter();
    let services = entry.services().join(" ");
    tracing::warn!(services, "left stopped, starting it");
    driver::start(entry, signals)
}

/// Removes the journal entries of a stack that was started or removed by hand, or is to
/// stay as an update has left it.
///
/// # Errors
/// When the lock cannot be taken, or the journal has no entry for the stack.
pub fn forget(plan: &Plan, stack: &str) -> Result<()> {
    let _lock = Lock::take(&plan.state_dir, Operation::Recover)?;
    let journal = Journal::of(&plan.state_dir);
    if !journal.has(stack) && !guard::has(&plan.state_dir, stack) {
        bail!("the journal has no entry for a stack `{stack}`");
    }
    journal.remove(stack)?;
    guard::forget(&plan.state_dir, stack)
}
