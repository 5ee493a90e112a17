//! `drill`: drills archives, shows and mails the results, and notes them in the
//! store.

use anyhow::{Context, Result, bail, ensure};

use super::find_archive::{find_in_store, is_path, open_archive, read_manifest};
use super::load::{load, load_or_default};
use super::output::{print, print_json_field, start_log_file};
use super::recover::recovery_status;
use crate::cli::Global;
use crate::config::DEFAULT_START_TIMEOUT;
use crate::config::plan::Plan;
use crate::drill as drills;
use crate::engine::Engine;
use crate::last_run::log_channels;
use crate::metrics;
use crate::notify::{self, News};
use crate::outcome::{DrillOutcome, ExitStatus, LastDrill};
use crate::recover::recover_locked;
use crate::restore::Archive;
use crate::store::checks::{Check, Checks};
use crate::store::drill_results::record_drill;
use crate::store::{Store, StoredArchive};
use crate::sys::format::human_duration;
use crate::sys::lock::{Lock, Operation};
use crate::sys::logging::Log;
use crate::sys::signals::Signals;
use crate::sys::time::OffsetTime;

/// Drills the archives that are named, or the newest good archive of each
/// configured stack. A drill that fails does not keep the others from being
/// drilled. The results of all configured stacks are news, because a timer may
/// have started the command.
pub fn drill(
    global: &Global,
    what: &[String],
    command: &[String],
    pass_over: bool,
    log: &Log,
) -> Result<ExitStatus> {
    let is_all = what.is_empty();
    ensure!(
        !is_all || command.is_empty(),
        "name the stack in which the command is to be run (`drillCheck` in the configuration is \
         run by all drills of a stack)"
    );
    let plan = match is_all {
        true => load(global)?,
        false => load_or_default(global)?,
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
    // A stack that a killed run left down must not stay down until the drills
    // have ended.
    let recovered = recover_locked(&plan, None, log, &signals, &lock);
    let started = OffsetTime::now();
    let drill_this = |name: &str| match plan.stack(name) {
        Some(stack) if is_all && !stack.drill => Ok(DrillOutcome::skipped(
            name,
            String::new(),
            "`drill` is false in the configuration",
        )),
        _ => drill_one(global, &plan, name, command, pass_over, &signals)
            .or_else(|error| failed(name, String::new(), &error, &signals)),
    };
    let results = drill_each(&what, &signals, drill_this, |drilled| show(global, drilled))?;
    let mut status = recovered.map_or(ExitStatus::Ok, |outcome| recovery_status(&outcome));
    if let Err(error) = metrics::update(&plan) {
        tracing::error!("{error:#}");
        status = status.max(ExitStatus::Incomplete);
    }
    if is_all && !tell(&plan, &results, &started) {
        status = status.max(ExitStatus::Incomplete);
    }
    Ok(conclude(global, &results)?.max(status))
}

/// Calls `drill` for each archive, and `show` for each result. Once a signal has
/// come, the results of the rest are "interrupted".
fn drill_each(
    what: &[&str],
    signals: &Signals,
    drill: impl Fn(&str) -> Result<DrillOutcome>,
    show: impl Fn(&DrillOutcome) -> Result<()>,
) -> Result<Vec<DrillOutcome>> {
    let mut results = Vec::new();
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
        results.push(drilled);
    }
    Ok(results)
}

fn drill_one(
    global: &Global,
    plan: &Plan,
    name: &str,
    command: &[String],
    pass_over: bool,
    signals: &Signals,
) -> Result<DrillOutcome> {
    let stored = match is_path(name) || name == "-" {
        true => None,
        false => {
            let (stored, passed_over) = find_in_store(plan, name)?;
            passed_over.check(pass_over)?;
            if let Some(other) = stored.other_stack() {
                bail!("{} is of the stack {other}", stored.path.display());
            }
            Some(stored)
        }
    };
    let archive = match &stored {
        Some(stored) => Archive::open(&stored.path)?,
        None => open_archive(global, name)?.0,
    };
    let drilled = attempt(plan, &archive, stored.is_some(), command, signals)
        .or_else(|error| failed(name, archive.name(), &error, signals))?;
    if let Some(stored) = stored {
        record(plan, &stored, &drilled)?;
    }
    Ok(drilled)
}

/// Returns the result of a drill that ended with an error.
///
/// # Errors
/// When a signal has come, because the error may be due to that and not to the
/// archive.
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

fn conclude(global: &Global, results: &[DrillOutcome]) -> Result<ExitStatus> {
    if global.json {
        print_json_field("drills", &results)?;
    }
    Ok(match results.iter().all(DrillOutcome::is_healthy) {
        true => ExitStatus::Ok,
        false => ExitStatus::Incomplete,
    })
}

/// Sends the results to the channels that are to be told. Returns whether all got them.
fn tell(plan: &Plan, results: &[DrillOutcome], started: &OffsetTime) -> bool {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let news = News::Drills {
        results,
        host: &host.to_string_lossy(),
        started,
    };
    let channels = notify::prepare(plan, &news).send();
    log_channels(&channels);
    channels.iter().all(|channel| channel.error.is_none())
}

fn attempt(
    plan: &Plan,
    archive: &Archive,
    is_from_store: bool,
    command: &[String],
    signals: &Signals,
) -> Result<DrillOutcome> {
    let manifest = read_manifest(archive)?.context("cannot drill an archive without a manifest")?;
    let stack = plan.stack(&manifest.stack);
    let configured = stack
        .map(|stack| stack.drill_check.as_slice())
        .unwrap_or_default();
    let command = if command.is_empty() {
        configured
    } else {
        command
    };
    let wish = drills::DrillOptions {
        state_dir: &plan.state_dir,
        engine: stack.map_or(&Engine::DEFAULT, |stack| &stack.compose.engine),
        signals,
        start_timeout: stack.map_or(DEFAULT_START_TIMEOUT, |stack| stack.start_timeout),
        check: command
            .split_first()
            .map(|(service, argv)| drills::DrillCheck { service, argv }),
        // Whoever made an archive elsewhere may have given it any stack's name.
        secrets: match stack {
            Some(stack) if is_from_store => &stack.drill_secrets,
            _ => &[],
        },
    };
    drills::drill(archive, &manifest, &wish)
        .with_context(|| format!("cannot drill {}", manifest.stack))
}

/// Notes the result beside the archive, and as the last drill of its stack.
fn record(plan: &Plan, archive: &StoredArchive, drilled: &DrillOutcome) -> Result<()> {
    let check = Check::now(&drilled.problems);
    let last = LastDrill {
        archive: archive.path.clone(),
        time: check.time.clone(),
        time_zone: check.time_zone.clone(),
        problems: check.problems.clone(),
        skipped: drilled.skipped.clone(),
        skipped_later: None,
    };
    if drilled.skipped.is_none() {
        let store = Store::open(&plan.backup_dir)?;
        let mut checks = Checks::of(&store, &archive.name).unwrap_or_default();
        checks.drilled = Some(check);
        checks.write(&store, &archive.name)?;
    }
    record_drill(&plan.state_dir, &archive.name.stack, last)
}

fn text(drilled: &DrillOutcome) -> String {
    if let Some(signal) = &drilled.interrupted {
        return format!(
            "------  {}: not drilled, interrupted by {signal}\n",
            drilled.stack
        );
    }
    if let Some(reason) = &drilled.skipped {
        return format!("skipped {}: {reason}\n", drilled.stack);
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
