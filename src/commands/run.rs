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
use crate::worker::Watching;

pub fn run(
    global: &Global,
    stacks: &[String],
    keep_days: Option<u32>,
    adopts_store: bool,
    is_unwatched: bool,
    log: &Log,
) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(stacks)?;
    // Where all stacks were looked for and none was found, the run tells that.
    if plan.stacks.is_empty() && !plan.takes_all {
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
    let watching = match is_unwatched {
        true => Watching::Nothing,
        false => Watching::Workers,
    };
    let outcome = crate::run::run(&plan, adopts_store, log, &signals, watching)?;
    drop(progress_line);
    Ok(show_outcome(global, &outcome).max(outcome.exit_status()))
}
