//! `drill`: which archives, and what is told and noted of each.

use anyhow::{Context, Result, ensure};
use jiff::ZonedDateTime;

use super::restore::{find, in_store, is_path, manifest};
use super::{Absent, load, load_with, print, print_json, recovery_status, start_log_file};
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::config::{DEFAULT_START_TIMEOUT, MailWhen};
use crate::drill as drills;
use crate::email;
use crate::outcome::DrillOutcome;
use crate::outcome::{ExitStatus, LastDrill};
use crate::report::{drills_subject, drills_text};
use crate::restore::Archive;
use crate::run as runs;
use crate::store::checks::{Check, Checks};
use crate::store::standing;
use crate::store::{Store, StoredArchive};
use crate::sys::format::human_duration;
use crate::sys::lock::{Lock, Operation};
use crate::sys::logging::Log;
use crate::sys::signals::Signals;

/// Of what is named, or else of each configured stack the newest good archive.
/// Whatever comes of one, the others are drilled. What came of all stacks is
/// mailed, since a timer may have started this.
pub fn drill(
    global: &Global,
    what: &[String],
    command: &[String],
    log: &Log,
) -> Result<ExitStatus> {
    let is_all = what.is_empty();
    ensure!(
        !is_all || command.is_empty(),
        "name the stack that the command is for (`drillCheck` in the configuration is for all \
         drills of a stack)"
    );
    let plan = match is_all {
        true => load(global)?,
        false => load_with(global, Absent::UseDefaults)?,
    };
    let what: Vec<&str> = match is_all {
        true => plan.stacks.iter().map(|stack| &*stack.name).collect(),
        false => what.iter().map(|name| &**name).collect(),
    };
    ensure!(
        !what.is_empty(),
        "no stacks are configured: nothing to drill"
    );
    let signals = Signals::install()?;
    start_log_file(&plan, log);
    let lock = Lock::wait(&plan.state_dir, Operation::Drill, &signals)?;
    // A stack that is down must not wait until the drills are done.
    let recovered = runs::recover_first(&plan, log, &signals, &lock)?;
    let started = ZonedDateTime::now();
    let drill_this = |name: &str| {
        drill_one(global, &plan, name, command, &signals)
            .or_else(|error| failed(name, String::new(), &error, &signals))
    };
    let all = drill_each(&what, &signals, drill_this, |drilled| show(global, drilled))?;
    let mut status = recovered.map_or(ExitStatus::Ok, |outcome| recovery_status(&outcome));
    if is_all && let Err(error) = mail(&plan, &all, &started) {
        tracing::error!("{error:#}");
        status = status.max(ExitStatus::Incomplete);
    }
    Ok(conclude(global, &all)?.max(status))
}

/// Until a signal comes; what was not drilled to its end then says so.
fn drill_each(
    what: &[&str],
    signals: &Signals,
    drill: impl Fn(&str) -> Result<DrillOutcome>,
    show: impl Fn(&DrillOutcome) -> Result<()>,
) -> Result<Vec<DrillOutcome>> {
    let mut all = Vec::new();
    for name in what {
        let drilled = match signals.received() {
            Some(signal) => DrillOutcome::interrupted(name, signal),
            None => drill(name).or_else(|error| match signals.received() {
                Some(signal) => {
                    tracing::warn!("{error:#}");
                    Ok(DrillOutcome::interrupted(name, signal))
                }
                None => Err(error),
            })?,
        };
        show(&drilled)?;
        all.push(drilled);
    }
    Ok(all)
}

fn drill_one(
    global: &Global,
    plan: &Plan,
    name: &str,
    command: &[String],
    signals: &Signals,
) -> Result<DrillOutcome> {
    let stored = match is_path(name) || name == "-" {
        true => None,
        false => Some(in_store(plan, name)?),
    };
    let archive = match &stored {
        Some(stored) => Archive::open(&stored.path)?,
        None => find(global, name)?,
    };
    let drilled = attempt(plan, &archive, command, signals)
        .or_else(|error| failed(name, archive.name(), &error, signals))?;
    if let Some(stored) = stored {
        note(plan, &stored, &drilled)?;
    }
    Ok(drilled)
}

/// # Errors
/// When a signal came: that it ended early says nothing of the archive.
fn failed(
    name: &str,
    archive: String,
    error: &anyhow::Error,
    signals: &Signals,
) -> Result<DrillOutcome> {
    signals.check()?;
    let stack = match is_path(name) {
        true => name,
        false => name.split('@').next().unwrap_or(name),
    };
    Ok(DrillOutcome::failed(stack, archive, format!("{error:#}")))
}

fn show(global: &Global, drilled: &DrillOutcome) -> Result<()> {
    match global.json {
        true => Ok(()),
        false => print(&text(drilled)),
    }
}

fn conclude(global: &Global, all: &[DrillOutcome]) -> Result<ExitStatus> {
    if global.json {
        print_json(&all)?;
    }
    Ok(match all.iter().all(DrillOutcome::is_healthy) {
        true => ExitStatus::Ok,
        false => ExitStatus::Incomplete,
    })
}

fn mail(plan: &Plan, all: &[DrillOutcome], started: &ZonedDateTime) -> Result<()> {
    let Some(email) = &plan.email else {
        return Ok(());
    };
    if email.when == MailWhen::Failure && all.iter().all(DrillOutcome::is_healthy) {
        return Ok(());
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    let body = drills_text(all, &host.to_string_lossy(), started);
    email::send(email, &drills_subject(all, &email.subject_tag), &body)
        .context("mail what came of the drills")?;
    tracing::info!(to = email.to.join(" "), "result mailed");
    Ok(())
}

fn attempt(
    plan: &Plan,
    archive: &Archive,
    command: &[String],
    signals: &Signals,
) -> Result<DrillOutcome> {
    let manifest = manifest(archive)?
        .context("only an archive in a file and with a manifest can be drilled")?;
    let stack = plan.stack(&manifest.stack);
    let configured = stack
        .map(|stack| stack.drill_check.as_slice())
        .unwrap_or_default();
    let command = if command.is_empty() {
        configured
    } else {
        command
    };
    let wish = drills::Wish {
        state_dir: &plan.state_dir,
        signals,
        start_timeout: stack.map_or(DEFAULT_START_TIMEOUT, |stack| stack.start_timeout),
        command: command
            .split_first()
            .map(|(service, argv)| drills::Command { service, argv }),
    };
    drills::drill(archive, &manifest, &wish).with_context(|| format!("drill {}", manifest.stack))
}

fn note(plan: &Plan, archive: &StoredArchive, drilled: &DrillOutcome) -> Result<()> {
    let store = Store::open(&plan.backup_dir)?;
    let mut checks = Checks::of(&store, &archive.name).unwrap_or_default();
    let check = Check::now(&drilled.problems);
    let last = LastDrill {
        archive: archive.path.clone(),
        time: check.time.clone(),
        problems: check.problems.clone(),
    };
    checks.drilled = Some(check);
    checks.write(&store, &archive.name)?;
    standing::note_drill(&plan.state_dir, &archive.name.stack, last)
}

fn text(drilled: &DrillOutcome) -> String {
    if let Some(signal) = &drilled.interrupted {
        return format!(
            "------  {}: not drilled, interrupted by {signal}\n",
            drilled.stack
        );
    }
    let word = if drilled.is_healthy() {
        "ok    "
    } else {
        "FAILED"
    };
    let mut text = format!(
        "{word}  {} from {} in {}: {}\n",
        drilled.stack,
        drilled.archive,
        human_duration(drilled.duration_ms),
        drilled.services.join(" ")
    );
    for line in drilled.problems.iter().chain(&drilled.notes) {
        text.push_str(&format!("        {line}\n"));
    }
    text
}
