//! `recover`: starts what an interrupted run left stopped.

use anyhow::Result;

use super::load::load_or_default;
use super::output::{show_outcome, start_log_file};
use crate::cli::Global;
use crate::outcome::{ExitStatus, RunOutcome};
use crate::recover as recovery;
use crate::sys::logging::Log;

pub fn recover(global: &Global, forget: Option<&str>, log: &Log) -> Result<ExitStatus> {
    // The interrupted run may have had no configuration either.
    let plan = load_or_default(global)?;
    if let Some(stack) = forget {
        recovery::forget(&plan, stack)?;
        return Ok(ExitStatus::Ok);
    }
    start_log_file(&plan, log);
    let Some(outcome) = recovery::recover(&plan, log)? else {
        tracing::info!("nothing to recover");
        return Ok(ExitStatus::Ok);
    };
    Ok(show_outcome(global, &outcome).max(recovery_status(&outcome)))
}

/// Returns the exit status of a recovery that led to `outcome`. That the run
/// was interrupted, which makes it incomplete, is not a failure of the recovery.
pub(super) fn recovery_status(outcome: &RunOutcome) -> ExitStatus {
    match outcome.exit_status() {
        ExitStatus::Incomplete if outcome.errors.is_empty() => ExitStatus::Ok,
        status => status,
    }
}
