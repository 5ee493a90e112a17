//! `drill`: which archives, and what is told and noted of each.

use anyhow::{Context, Result};

use super::restore::{find, in_store, is_path, manifest};
use super::{Absent, load_with, print, print_json};
use crate::checks::{Check, Checks};
use crate::cli::Global;
use crate::drill::{self as drills, Drilled};
use crate::lock::Lock;
use crate::outcome::{ExitStatus, LastDrill};
use crate::plan::Plan;
use crate::report::human_duration;
use crate::restore::Archive;
use crate::signals::Signals;
use crate::standing;
use crate::store::{Store, StoredArchive};

/// Where a stack's configuration does not say.
const START_TIMEOUT_SECS: u64 = 180;

pub fn drill(global: &Global, what: &[String], command: &[String]) -> Result<ExitStatus> {
    let plan = load_with(global, Absent::UseDefaults)?;
    let _lock = Lock::take(&plan.state_dir)?;
    let signals = Signals::install()?;
    let mut all = Vec::new();
    for name in what {
        signals.check()?;
        let (archive, stored) = match is_path(name) || name == "-" {
            true => (find(global, name)?, None),
            false => {
                let stored = in_store(global, name)?;
                (Archive::open(&stored.path)?, Some(stored))
            }
        };
        let drilled = drill_one(&plan, &archive, command, &signals)?;
        if let Some(stored) = &stored {
            note(&plan, stored, &drilled)?;
        }
        if !global.json {
            print(&text(&drilled))?;
        }
        all.push(drilled);
    }
    if global.json {
        print_json(&all)?;
    }
    Ok(
        match all.iter().all(|drilled| drilled.problems.is_empty()) {
            true => ExitStatus::Ok,
            false => ExitStatus::Incomplete,
        },
    )
}

fn drill_one(
    plan: &Plan,
    archive: &Archive,
    command: &[String],
    signals: &Signals,
) -> Result<Drilled> {
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
        start_timeout: stack.map_or(
            std::time::Duration::from_secs(START_TIMEOUT_SECS),
            |stack| stack.start_timeout,
        ),
        command: command
            .split_first()
            .map(|(service, argv)| drills::Command { service, argv }),
    };
    drills::drill(archive, &manifest, &wish).with_context(|| format!("drill {}", manifest.stack))
}

fn note(plan: &Plan, archive: &StoredArchive, drilled: &Drilled) -> Result<()> {
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

fn text(drilled: &Drilled) -> String {
    let word = if drilled.problems.is_empty() {
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
