//! The outcome of the last run: begun, saved while the run is under way,
//! concluded (saved as finished, and told), and read again.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::plan::Plan;
use crate::history;
use crate::notify::{self, News};
use crate::outcome::{
    ChannelOutcome, ChannelStatus, FORMAT_VERSION, RunOutcome, StackOutcome, ToldHoles,
};
use crate::sys::logging::Log;
use crate::sys::state_file::{self, State};
use crate::sys::time::{OffsetTime, zone_name};

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
        gone: Vec::new(),
        holes: ToldHoles::default(),
        unconfigured: None,
        fail_on_warning: plan.fail_on_warning,
        handovers: Vec::new(),
        pruned: Vec::new(),
        store: None,
        errors: Vec::new(),
        channels: Vec::new(),
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

/// Saves an outcome that will not change any more, and sends the news of it.
pub fn conclude(plan: &Plan, log: &Log, outcome: &mut RunOutcome) {
    if let Some(error) = log.file_error() {
        outcome.errors.push(error.to_owned());
    }
    outcome.finished = Some(OffsetTime::now());
    tracing::info!("backup ended: {}", outcome.exit_status().meaning());
    outcome.log.extend(log.lines());
    if let Err(error) = history::add(&plan.state_dir, outcome) {
        add_error(outcome, &error);
    }
    let outbox = notify::prepare(plan, &News::Run(outcome));
    // Whoever is killed while it sends has told of the run already: its news are queued.
    save(plan, outcome);
    let channels = outbox.send();
    if channels.is_empty() {
        return;
    }
    log_channels(&channels);
    outcome.channels = channels;
    save(plan, outcome);
}

/// Logs what became of the news on each channel.
pub fn log_channels(channels: &[ChannelOutcome]) {
    for ChannelOutcome {
        channel,
        status,
        error,
    } in channels
    {
        match (status, error) {
            (_, None) => tracing::info!(channel, "news sent"),
            (ChannelStatus::Sent, Some(error)) => {
                tracing::error!(channel, "the news did not reach everybody: {error}");
            }
            (ChannelStatus::Waiting, Some(error)) => {
                tracing::error!(channel, "the news is not sent yet, but kept: {error}");
            }
            (ChannelStatus::Lost, Some(error)) => {
                tracing::error!(channel, "the news is lost: {error}");
            }
        }
    }
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
