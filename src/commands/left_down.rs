//! Says which stacks a killed command has left stopped, or with a hook that is not undone.
//! The commands that only look begin with that.

use anyhow::{Error, Result};

use super::output::print_folded;
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::guard::{self, FoundGuard};
use crate::stack::journal::{FoundEntry, Journal};
use crate::sys::lock::Lock;

/// Prints a line for each stack that is down, or logs it where JSON is printed.
pub fn print_left_down(global: &Global, plan: &Plan) -> Result<()> {
    for line in left_down(plan) {
        match global.json {
            true => tracing::error!("{line}"),
            false => print_folded(&format!("{line}\n"))?,
        }
    }
    Ok(())
}

/// Returns a line for each stack that is in the journal. There is none while a
/// command is under way that stops and starts stacks: it has the journal for that.
pub fn left_down(plan: &Plan) -> Vec<String> {
    if Lock::is_held_by_journal_writer(&plan.state_dir) {
        return Vec::new();
    }
    let stopped = Journal::of(&plan.state_dir).found();
    let stopped = stopped.map(|found| found.iter().map(line).collect());
    let updated = guard::found(&plan.state_dir).map(|found| {
        let pending = found.iter().filter(|found| found.is_pending());
        pending.map(line_of_update).collect()
    });
    let cannot_tell = |error: Error| {
        vec![format!(
            "cannot tell whether a stack was left stopped: {error:#}"
        )]
    };
    let [stopped, updated]: [Vec<String>; 2] =
        [stopped, updated].map(|found| found.unwrap_or_else(cannot_tell));
    [stopped, updated].concat()
}

fn line_of_update(found: &FoundGuard) -> String {
    let stack = &found.stack;
    match &found.entry {
        Ok(entry) => format!(
            "{stack} MAY BE HALF UPDATED: `{}` was killed before it was confirmed; \
             `docker-stack-backup recover` puts data and images back as they were at {}, \
             `docker-stack-backup recover --forget {stack}` leaves the stack as it is",
            entry.command.join(" "),
            entry.since.strftime("%F %T")
        ),
        Err(error) => format!("{stack} MAY BE HALF UPDATED: {error:#}"),
    }
}

fn line(found: &FoundEntry) -> String {
    let stack = &found.stack;
    match &found.entry {
        Ok(entry) if !entry.is_down() => {
            format!(
                "{stack}: the effect of a hook is not taken back ({}); \
                 `docker-stack-backup recover` does that",
                entry.pending_undos().join("; ")
            )
        }
        Ok(entry) => {
            format!(
                "{stack} IS DOWN ({}): stopped at {}, and not started again; start it with \
                 `docker-stack-backup recover`, or, if it was started or removed by hand, \
                 `docker-stack-backup recover --forget {stack}`",
                entry.services().join(", "),
                entry.since.strftime("%F %T")
            )
        }
        Err(error) => {
            format!(
                "{stack} MAY BE DOWN: {error:#}; once you see that it runs as it should: \
                 `docker-stack-backup recover --forget {stack}`"
            )
        }
    }
}
