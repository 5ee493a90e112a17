//! The whole run: lock, recover, every stack, prune, report.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::ZonedDateTime;

use crate::config::MailWhen;
use crate::config::plan::{Plan, StackPlan};
use crate::cycle::{self, Context};
use crate::outcome::{
    FORMAT_VERSION, Failure, Phase, RecoveredStack, RunOutcome, StackOutcome, StackStatus,
};
use crate::stack::journal::Journal;
use crate::stack::lifecycle;
use crate::store::Store;
use crate::store::prune::prune;
use crate::store::standing;
use crate::sys::durable::write_durably;
use crate::sys::lock::{Lock, LockHeld, Operation};
use crate::sys::logging::Log;
use crate::sys::priority;
use crate::sys::progress;
use crate::sys::signals::Signals;
use crate::{drill, email, report, restore};

/// Backs up every stack of the plan.
///
/// # Errors
/// Only when nothing could be attempted (another run holds the lock; all else
/// that holds it is waited for); all other errors are in the outcome.
pub fn run(plan: &Plan, log: &Log, signals: &Signals) -> Result<RunOutcome> {
    let _lock = Lock::wait(&plan.state_dir, Operation::Run, signals)?;
    let mut outcome = begin(plan);
    match last_run(&plan.state_dir) {
        Ok(Some(last)) if is_unfinished(&last) => {
            let started = last.started.strftime("%F %T").to_string();
            tracing::warn!(started, "the run before this one was killed");
        }
        Ok(_) => {}
        Err(error) => note(&mut outcome, &error),
    }
    save_or_note(plan, &mut outcome);
    tracing::info!(stacks = plan.stacks.len(), "backup started");
    if let Err(error) = attempt(plan, signals, &mut outcome) {
        note(&mut outcome, &error);
    }
    outcome.interrupted = signals.received().map(str::to_owned);
    conclude(plan, log, &mut outcome);
    Ok(outcome)
}

fn attempt(plan: &Plan, signals: &Signals, outcome: &mut RunOutcome) -> Result<()> {
    let journal = Journal::open(&plan.state_dir)?;
    outcome.recovered = recover_all(&plan.state_dir, &journal, signals)?;
    priority::lower();
    let store = Store::create(&plan.backup_dir)?;
    remove_leftovers(&store, outcome);
    let host = outcome.host.clone();
    let context = Context {
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
        save_or_note(plan, outcome);
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
    note_standing(plan, &store, outcome);
    outcome.store = Some(store.usage()?);
    Ok(())
}

/// After pruning: what is gone needs no warning.
fn note_standing(plan: &Plan, store: &Store, outcome: &mut RunOutcome) {
    let now = ZonedDateTime::now();
    let mut drills = standing::drills(&plan.state_dir).unwrap_or_else(|error| {
        note(outcome, &error);
        BTreeMap::new()
    });
    for i in 0..outcome.stacks.len() {
        let name = outcome.stacks[i].stack.clone();
        outcome.stacks[i].drilled = drills.remove(&name);
        match standing::damaged(store, &name) {
            Ok(damaged) => outcome.stacks[i].damaged = damaged,
            Err(error) => note(outcome, &error),
        }
        for warning in standing::warnings(&outcome.stacks[i], &now) {
            tracing::warn!(stack = name, "{warning}");
            outcome.stacks[i].warnings.push(warning);
        }
    }
}

/// A directory in the store that cannot be looked at is no reason not to back
/// up the stacks that have nothing to do with it.
fn remove_leftovers(store: &Store, outcome: &mut RunOutcome) {
    match store.remove_partials(None) {
        Ok(removed) => {
            for path in removed {
                tracing::warn!(path = %path.display(), "removed what a killed run left");
            }
        }
        Err(error) => note(outcome, &error),
    }
}

/// An error that belongs to no stack, and keeps nothing from going on.
fn note(outcome: &mut RunOutcome, error: &anyhow::Error) {
    tracing::error!("{error:#}");
    let error = format!("{error:#}");
    if !outcome.errors.contains(&error) {
        outcome.errors.push(error);
    }
}

/// A stack that an earlier run left stopped and that does not start must not
/// be journalled anew: what ran before would be forgotten.
fn still_down(recovered: &[RecoveredStack], stack: &StackPlan) -> Option<StackOutcome> {
    let found = recovered
        .iter()
        .find(|recovered| recovered.stack == stack.name)?;
    let error = found.error.as_ref()?;
    let mut outcome = StackOutcome::not_run(&stack.name);
    outcome.status = StackStatus::Down;
    outcome.failures.push(Failure {
        phase: Phase::Plan,
        message: format!("left stopped by an earlier run, and not started: {error}"),
    });
    Some(outcome)
}

fn begin(plan: &Plan) -> RunOutcome {
    let host = nix::unistd::gethostname().unwrap_or_default();
    RunOutcome {
        format_version: FORMAT_VERSION,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host.to_string_lossy().into_owned(),
        backup_dir: plan.backup_dir.clone(),
        started: ZonedDateTime::now(),
        finished: None,
        interrupted: None,
        recovered: Vec::new(),
        stacks: plan
            .stacks
            .iter()
            .map(|stack| StackOutcome::not_run(&stack.name))
            .collect(),
        pruned: Vec::new(),
        store: None,
        errors: Vec::new(),
        log: Vec::new(),
    }
}

/// Saves and mails an outcome to which nothing more will happen.
fn conclude(plan: &Plan, log: &Log, outcome: &mut RunOutcome) {
    if let Some(error) = log.file_error() {
        outcome.errors.push(error.to_owned());
    }
    outcome.finished = Some(ZonedDateTime::now());
    tracing::info!(status = ?outcome.exit_status(), "backup ended");
    outcome.log.extend(log.lines());
    if let Err(error) = mail(plan, outcome) {
        note(outcome, &error);
    }
    save_or_note(plan, outcome);
}

/// That the outcome cannot be saved (a full disk) must keep no stack from
/// being started.
fn save_or_note(plan: &Plan, outcome: &mut RunOutcome) {
    if let Err(error) = save(plan, outcome) {
        note(outcome, &error);
    }
}

fn mail(plan: &Plan, outcome: &RunOutcome) -> Result<()> {
    let Some(email) = &plan.email else {
        return Ok(());
    };
    if email.when == MailWhen::Failure && outcome.is_all_well() {
        return Ok(());
    }
    let subject = report::run_subject(outcome, &email.subject_tag);
    email::send(email, &subject, &report::run_text(outcome)).context("mail the report")?;
    tracing::info!(to = email.to.join(" "), "report mailed");
    Ok(())
}

/// Starts what an interrupted run left stopped, and reports that run. Does
/// nothing, and says nothing, when the last run ended by itself, or when a run
/// or a drill is under way, which began with this.
///
/// # Errors
/// When the lock cannot be taken, or the journal not be read.
pub fn recover(plan: &Plan, log: &Log) -> Result<Option<RunOutcome>> {
    let signals = Signals::default();
    let lock = match Lock::wait(&plan.state_dir, Operation::Recover, &signals) {
        Err(error) if error.downcast_ref().is_some_and(LockHeld::holder_recovers) => {
            tracing::info!("{error:#}; it began by recovering");
            return Ok(None);
        }
        lock => lock?,
    };
    recover_first(plan, log, &signals, &lock)
}

/// [`recover`], for a drill, which holds the lock.
///
/// # Errors
/// When the journal cannot be read.
pub fn recover_first(
    plan: &Plan,
    log: &Log,
    signals: &Signals,
    _lock: &Lock,
) -> Result<Option<RunOutcome>> {
    let journal = Journal::open(&plan.state_dir)?;
    let recovered = recover_all(&plan.state_dir, &journal, signals)?;
    let last = last_run(&plan.state_dir);
    if recovered.is_empty()
        && matches!(&last, Ok(last) if !last.as_ref().is_some_and(is_unfinished))
    {
        return Ok(None);
    }
    let (unfinished, error) = match last {
        Ok(last) => (last.filter(is_unfinished), None),
        Err(error) => (None, Some(error)),
    };
    let mut outcome = match unfinished {
        Some(outcome) => RunOutcome {
            interrupted: Some("killed".to_owned()),
            ..outcome
        },
        None => RunOutcome {
            stacks: Vec::new(),
            ..begin(plan)
        },
    };
    outcome.recovered = recovered;
    if let Some(error) = error {
        note(&mut outcome, &error);
    }
    if let Ok(store) = Store::open(&outcome.backup_dir) {
        remove_leftovers(&store, &mut outcome);
        outcome.store = store.usage().ok();
    }
    conclude(plan, log, &mut outcome);
    Ok(Some(outcome))
}

fn is_unfinished(outcome: &RunOutcome) -> bool {
    outcome.finished.is_none()
}

fn recover_all(
    state_dir: &Path,
    journal: &Journal,
    signals: &Signals,
) -> Result<Vec<RecoveredStack>> {
    let mut recovered = Vec::new();
    let mut half_restored = Vec::new();
    let drills = drill::recover(state_dir)?
        .into_iter()
        .map(|(stack, result)| {
            let result = result.context("take down a drill that was killed");
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
        // Its data may be neither the old nor the new.
        if half_restored.contains(&found.stack) {
            continue;
        }
        let span = tracing::info_span!("recover", stack = found.stack);
        let _entered = span.enter();
        let result = found.entry.and_then(|entry| {
            let services = entry.services();
            tracing::warn!(services = services.join(" "), "left stopped, starting it");
            lifecycle::start(&entry, signals)?;
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

/// Drops the journal of a stack that was seen to by hand.
pub fn forget(plan: &Plan, stack: &str) -> Result<()> {
    let _lock = Lock::take(&plan.state_dir, Operation::Recover)?;
    let journal = Journal::open(&plan.state_dir)?;
    if !journal.found()?.iter().any(|found| found.stack == stack) {
        bail!("nothing is journalled of a stack `{stack}`");
    }
    journal.remove(stack)
}

fn outcome_path(state_dir: &Path) -> PathBuf {
    state_dir.join("last-run.json")
}

fn save(plan: &Plan, outcome: &RunOutcome) -> Result<()> {
    let path = outcome_path(&plan.state_dir);
    write_durably(&path, &serde_json::to_vec_pretty(outcome)?)
        .with_context(|| format!("write {}", path.display()))
}

/// The last run, finished or not; `None` when there never was one.
pub fn last_run(state_dir: &Path) -> Result<Option<RunOutcome>> {
    let path = outcome_path(state_dir);
    let json = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        json => json.with_context(|| format!("read {}", path.display()))?,
    };
    let outcome = serde_json::from_slice(&json);
    outcome
        .map(Some)
        .with_context(|| format!("understand {}", path.display()))
}
