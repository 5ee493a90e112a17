//! Runs the command of an update, and waits until the stack is up as before.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::images;
use super::journal::{GuardEntry, GuardStep, MARK};
use super::look::{GuardedStack, with_restore};
use super::roll_back::{roll_back, settle};
use crate::outcome::{GuardOutcome, GuardStatus};
use crate::restore::stack::RestorePlan;
use crate::stack::driver;
use crate::stack::journal::JournalEntry;
use crate::sys::format::last_lines;
use crate::sys::priority;
use crate::sys::process::{Exit, Program};
use crate::sys::secret::OUTPUT_LINES;
use crate::sys::signals::Signals;

/// What the user asked for.
pub struct GuardOptions<'a> {
    pub state_dir: &'a Path,
    pub command: &'a [String],
    /// After this time, the command is killed.
    pub command_limit: Duration,
    /// How long the stack may take to be up as before; `None` for its own start limit.
    pub healthy_within: Option<Duration>,
    pub allow_reachable: bool,
}

/// Runs the command. If it fails, or the stack is not up as before in time, everything is
/// put back. The caller must hold the lock.
///
/// # Errors
/// When the command was not run.
pub fn update(
    stack: GuardedStack,
    archive: &Path,
    options: &GuardOptions<'_>,
    signals: &Signals,
) -> Result<GuardOutcome> {
    let state_dir = options.state_dir;
    // The backup has lowered it, and the command inherits it.
    let _normal = priority::raise();
    // A roll-back that could not succeed is found out before it is needed.
    let check = |plan: RestorePlan<'_>| plan.check_reachable().and_then(|()| plan.check_room());
    with_restore(
        state_dir,
        &stack.plan,
        archive,
        options.allow_reachable,
        check,
    )
    .context("an update could not be rolled back")?;
    signals.check()?;
    let mut entry = GuardEntry {
        images: stack.images,
        idle: stack.idle,
        ..GuardEntry::new(
            &stack.plan,
            archive,
            options.command,
            &stack.token,
            stack.before,
        )
    };
    begin(&mut entry, state_dir)?;
    let began = Instant::now();
    let (exit, output) = run_command(&entry, options.command_limit, signals);
    let command_ms = began.elapsed().as_millis() as u64;
    for line in &output {
        tracing::info!("{line}");
    }
    let mut outcome = GuardOutcome {
        stack: stack.plan.name,
        status: GuardStatus::Updated,
        archive: archive.to_owned(),
        command: options.command.to_vec(),
        exit,
        output,
        command_ms,
        reason: None,
        error: None,
        images: Vec::new(),
        kept: Vec::new(),
        warnings: stack.warnings,
    };
    match confirm(&entry, &outcome.exit, options.healthy_within, signals) {
        Ok(warnings) => {
            outcome.warnings.extend(warnings);
            conclude(&mut entry, state_dir, &mut outcome);
        }
        Err(error) => undo(&mut entry, state_dir, &format!("{error:#}"), &mut outcome),
    }
    Ok(outcome)
}

/// Holds the images, and notes that the command may run.
fn begin(entry: &mut GuardEntry, state_dir: &Path) -> Result<()> {
    let engine = entry.before.compose.engine.clone();
    let begun = entry.write(state_dir).and_then(|()| {
        images::hold(&engine, &entry.images)?;
        entry.step = GuardStep::Guarding;
        entry.write(state_dir)
    });
    begun.map_err(|error| match settle(entry, state_dir) {
        Ok(_) => error,
        Err(second) => error.context(format!(
            "the next `recover` will put the stack back to its archive, although nothing was done \
             ({second:#})"
        )),
    })
}

/// Runs the command in the stack's directory, and returns how it ended and the end of its
/// output. It inherits no lock, which what it leaves running would hold.
fn run_command(entry: &GuardEntry, limit: Duration, signals: &Signals) -> (String, Vec<String>) {
    let Some((program, args)) = entry.command.split_first() else {
        return ("the command is empty".to_owned(), Vec::new());
    };
    tracing::info!(command = entry.command.join(" "), "updating");
    let ran = Program::new(program, args)
        .current_dir(&entry.before.compose.dir)
        .env(MARK, &entry.token)
        .inherits_nothing()
        .killed_with_this_thread()
        .limit(limit)
        .interruptible_by(signals)
        .output();
    match ran {
        Ok(output) => {
            let printed = [output.stdout, output.stderr].concat();
            let lines = last_lines(&String::from_utf8_lossy(&printed), OUTPUT_LINES);
            (output.exit.to_string(), lines)
        }
        Err(error) => (format!("{error:#}"), Vec::new()),
    }
}

/// Waits until the stack is up as before. Returns warnings.
///
/// # Errors
/// When the command has failed, or the stack is not up in time, or a signal has come.
fn confirm(
    entry: &GuardEntry,
    exit: &str,
    healthy_within: Option<Duration>,
    signals: &Signals,
) -> Result<Vec<String>> {
    signals.check()?;
    ensure!(
        exit == Exit::Success.to_string(),
        "the command failed: {exit}"
    );
    let limit = healthy_within.map(|limit| limit.as_secs());
    let expected = JournalEntry {
        start_timeout_secs: limit.unwrap_or(entry.before.start_timeout_secs),
        ..entry.before.clone()
    };
    tracing::info!("waiting until the stack is up as before");
    driver::await_start(&expected, signals).context("the stack is not up as before")
}

/// Ends an update that is confirmed.
fn conclude(entry: &mut GuardEntry, state_dir: &Path, outcome: &mut GuardOutcome) {
    note_images(entry, outcome);
    match settle(entry, state_dir) {
        Ok(warnings) => outcome.warnings.extend(warnings),
        // If it says that it is settled, `recover` does the rest. Else it rolls back.
        Err(error) => {
            outcome.status = GuardStatus::NotRolledBack;
            outcome.error = Some(format!(
                "the update works, but that could not be noted ({error:#}), so the next `recover` \
                 or run may roll it back: run `docker-stack-backup recover --forget {}` to keep it",
                outcome.stack
            ));
        }
    }
}

/// Rolls an update back for a reason.
fn undo(entry: &mut GuardEntry, state_dir: &Path, reason: &str, outcome: &mut GuardOutcome) {
    tracing::error!("{reason}");
    tracing::warn!("rolling back");
    outcome.reason = Some(reason.to_owned());
    match roll_back(entry, state_dir) {
        Ok(done) => {
            outcome.status = GuardStatus::RolledBack;
            outcome.warnings.extend(done.warnings);
            outcome.kept = done.kept;
        }
        Err(error) => {
            outcome.status = GuardStatus::NotRolledBack;
            outcome.error = Some(format!(
                "cannot roll back: {error:#}; when the cause is gone, run `docker-stack-backup \
                 recover`, which tries again, or `docker-stack-backup recover --forget {}` to \
                 leave the stack as it is",
                outcome.stack
            ));
        }
    }
    note_images(entry, outcome);
}

fn note_images(entry: &GuardEntry, outcome: &mut GuardOutcome) {
    let before = &entry.before;
    let engine = &before.compose.engine;
    match engine.compose_containers(Some(&before.project)) {
        Ok(containers) => outcome.images = images::changes(&entry.images, &containers),
        Err(error) => outcome
            .warnings
            .push(format!("the images are not known: {error:#}")),
    }
}
