//! The outcome of the last run: begun, saved while the run is under way,
//! concluded (mailed and saved as finished), and read again.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::config::MailWhen;
use crate::config::plan::Plan;
use crate::outcome::{FORMAT_VERSION, RunOutcome, StackOutcome, ToldHoles};
use crate::sys::logging::Log;
use crate::sys::state_file::{self, State};
use crate::sys::time::{OffsetTime, zone_name};
use crate::{email, report};

impl State for RunOutcome {
    const NAME: &'static str = "the last run";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;
}

/// Returns the outcome of a run that has just begun.
pub fn begin(plan: &Plan) -> RunOutcome {
    let host = nix::unistd::gethostname().unwrap_or_default();
    RunOutcome {
        format_version: FORMAT_VERSION,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host.to_string_lossy().into_owned(),
        backup_dir: plan.backup_dir.clone(),
        started: OffsetTime::now(),
        time_zone: zone_name(),
        finished: None,
        interrupted: None,
        recovered: Vec::new(),
        stacks: plan
            .stacks
            .iter()
            .map(|stack| StackOutcome::not_run(&stack.name))
            .collect(),
        holes: ToldHoles::default(),
        pruned: Vec::new(),
        store: None,
        errors: Vec::new(),
        log: Vec::new(),
    }
}

/// Returns what was told about holes by the last run and those before it.
///
/// # Errors
/// When the outcome of the last run cannot be read or parsed.
pub fn told_holes(state_dir: &Path) -> Result<ToldHoles> {
    Ok(read(state_dir)?.map(|last| last.holes).unwrap_or_default())
}

/// Logs an error that belongs to no single stack and does not end the run, and
/// adds it to the outcome.
pub fn add_error(outcome: &mut RunOutcome, error: &anyhow::Error) {
    tracing::error!("{error:#}");
    let error = format!("{error:#}");
    if !outcome.errors.contains(&error) {
        outcome.errors.push(error);
    }
}

/// Mails and saves an outcome that will not change any more.
pub fn conclude(plan: &Plan, log: &Log, outcome: &mut RunOutcome) {
    if let Some(error) = log.file_error() {
        outcome.errors.push(error.to_owned());
    }
    outcome.finished = Some(OffsetTime::now());
    tracing::info!(status = ?outcome.exit_status(), "backup ended");
    outcome.log.extend(log.lines());
    if let Err(error) = mail(plan, outcome) {
        add_error(outcome, &error);
    }
    save(plan, outcome);
}

fn mail(plan: &Plan, outcome: &RunOutcome) -> Result<()> {
    let Some(email) = &plan.email else {
        return Ok(());
    };
    if email.when == MailWhen::Failure && outcome.is_all_well() {
        return Ok(());
    }
    let subject = report::run_subject(outcome, &email.subject_tag);
    email::send(email, &subject, &report::run_text(outcome)).context("cannot mail the report")?;
    tracing::info!(to = email.to.join(" "), "report mailed");
    Ok(())
}

/// Saves an outcome. An error is added to the outcome and not returned, because
/// a full disk must not keep a stack from being started.
pub fn save(plan: &Plan, outcome: &mut RunOutcome) {
    if let Err(error) = state_file::write(&outcome_path(&plan.state_dir), outcome) {
        add_error(outcome, &error);
    }
}

/// Returns the outcome of the last run, finished or not; `None` if there was no
/// run yet.
///
/// # Errors
/// When the file cannot be read or parsed.
pub fn read(state_dir: &Path) -> Result<Option<RunOutcome>> {
    state_file::read(&outcome_path(state_dir))
}

fn outcome_path(state_dir: &Path) -> PathBuf {
    state_file::path(state_dir, "last-run")
}

/// Returns whether the run is under way, or was killed.
pub fn is_unfinished(outcome: &RunOutcome) -> bool {
    outcome.finished.is_none()
}
