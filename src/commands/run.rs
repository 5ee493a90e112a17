//! `run`: backs up the stacks.

use anyhow::{Result, bail};

use super::load::load;
use super::output::{show_outcome, start_log_file};
use crate::cli::Global;
use crate::config::Retention;
use crate::outcome::ExitStatus;
use crate::sys::logging::Log;
use crate::sys::progress;
use crate::sys::signals::Signals;

pub fn run(
    global: &Global,
    stacks: &[String],
    keep_days: Option<u32>,
    log: &Log,
) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(stacks)?;
    if plan.stacks.is_empty() {
        bail!("no stacks are configured: nothing to back up");
    }
    if keep_days.is_some() {
        plan.retention = Some(Retention {
            keep_days,
            ..plan.retention.unwrap_or_default()
        });
    }
    let signals = Signals::install()?;
    start_log_file(&plan, log);
    let progress_line = (!global.quiet && !global.json).then(progress::show);
    let outcome = crate::run::run(&plan, log, &signals)?;
    drop(progress_line);
    Ok(show_outcome(global, &outcome).max(outcome.exit_status()))
}
