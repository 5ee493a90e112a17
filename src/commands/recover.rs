//! `recover`: starts what an interrupted run left stopped.

use anyhow::Result;

use super::load::{Recoverable, load_to_recover};
use super::output::{print_json_field, show_outcome, start_log_file};
use crate::cli::Global;
use crate::metrics;
use crate::outcome::{ExitStatus, RunOutcome};
use crate::recover as recovery;
use crate::sys::logging::Log;

pub fn recover(global: &Global, forget: Option<&str>, log: &Log) -> Result<ExitStatus> {
    let Recoverable { plan, problem } = load_to_recover(global)?;
    if let Some(stack) = forget {
        recovery::forget(&plan, stack)?;
        metrics::update(&plan)?;
        if global.json {
            print_json_field("forgotten", &stack)?;
        }
        return Ok(ExitStatus::Ok);
    }
    start_log_file(&plan, log);
    let recovered = recovery::recover(&plan, problem.as_ref(), log)?;
    match (recovered, problem) {
        (Some(outcome), _) => Ok(show_outcome(global, &outcome).max(recovery_status(&outcome))),
        (None, Some(problem)) => Err(problem),
        (None, None) => {
            tracing::info!("nothing to recover");
            metrics::update(&plan)?;
            if global.json {
                print_json_field::<[(); 0]>("recovered", &[])?;
            }
            Ok(ExitStatus::Ok)
        }
    }
}

/// Returns the exit status of a recovery that led to `outcome`. That the run
/// was interrupted, which makes it incomplete, is not a failure of the recovery.
pub(super) fn recovery_status(outcome: &RunOutcome) -> ExitStatus {
    match outcome.exit_status() {
        ExitStatus::Incomplete
            if outcome.errors.is_empty() && outcome.channel_troubles().next().is_none() =>
        {
            ExitStatus::Ok
        }
        status => status,
    }
}
