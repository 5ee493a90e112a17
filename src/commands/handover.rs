//! `handover`: gives the repositories elsewhere what they lack.

use anyhow::{Result, ensure};

use super::load::load;
use super::output::{print, print_json_field, table};
use crate::cli::Global;
use crate::metrics;
use crate::outcome::{ExitStatus, HandoverOutcome};
use crate::store::identity;
use crate::sys::format::{count, human_duration, one_line};
use crate::sys::lock::{Lock, Operation};
use crate::sys::priority;
use crate::sys::signals::Signals;

pub fn handover(global: &Global, stacks: &[String]) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(stacks)?;
    ensure!(
        !plan.handover.is_empty(),
        "no repository is configured: add one to `handover` (docs/off-site.md)"
    );
    let signals = Signals::install_silently()?;
    let _lock = Lock::take(&plan.state_dir, Operation::Handover)?;
    let store = identity::open(&plan)?;
    priority::lower();
    let outcomes = crate::handover::hand_over(&plan, &store, &signals);
    if let Err(error) = metrics::update(&plan) {
        tracing::warn!("{error:#}");
    }
    match global.json {
        true => print_json_field("handovers", &outcomes)?,
        false => print(&text(&outcomes))?,
    }
    let is_done = signals.received().is_none();
    Ok(
        match is_done && !outcomes.iter().any(HandoverOutcome::has_failed) {
            true => ExitStatus::Ok,
            false => ExitStatus::Incomplete,
        },
    )
}

/// Failures and warnings were logged.
fn text(outcomes: &[HandoverOutcome]) -> String {
    let header = ["REPOSITORY", "DONE", "TOOK", ""].map(str::to_owned);
    let mut rows = vec![header];
    for outcome in outcomes {
        let name = &outcome.repository;
        rows.extend(outcome.steps.iter().map(|step| {
            let error = step.error.as_deref().map(one_line);
            [
                name.clone(),
                step.label(),
                human_duration(step.duration_ms),
                error.map_or_else(String::new, |error| format!("FAILED: {error}")),
            ]
        }));
        let left = match outcome.waiting_count {
            0 if outcome.steps.is_empty() => "has everything".to_owned(),
            0 => continue,
            waiting => format!("{} waiting", count(waiting, "archive")),
        };
        rows.push([name.clone(), left, "-".to_owned(), String::new()]);
    }
    table(&rows)
}
