//! `report --html`: what the state directory and the store say, as a page.

use std::path::{Path, absolute};

use anyhow::{Context as _, Result};

use super::output::print_json_field;
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::history::History;
use crate::outcome::{ExitStatus, RunOutcome};
use crate::report::{HtmlArchive, HtmlReport, HtmlStack, html_page};
use crate::store::{Store, drill_results, identity, prune::Pruning};
use crate::sys::durable::write_durably;
use crate::sys::time::OffsetTime;

/// Writes the page into a file, in one step. Only its owner can read it: it has the paths
/// and names of all data.
pub fn write_html(
    global: &Global,
    plan: &Plan,
    last: Option<&RunOutcome>,
    file: &Path,
) -> Result<ExitStatus> {
    let history = History::read(&plan.state_dir)?;
    let drills = drill_results::last_drills(&plan.state_dir)?;
    let now = OffsetTime::now();
    let host = nix::unistd::gethostname().unwrap_or_default();
    let store = identity::open(plan);
    let archives = |stack: &str| match &store {
        Ok(store) => archives(plan, store, stack, &now).map_err(|error| format!("{error:#}")),
        Err(error) => Err(format!("{error:#}")),
    };
    let stacks = plan.stacks.iter().map(|stack| HtmlStack {
        name: &stack.name,
        drilled: drills.get(&stack.name),
        archives: archives(&stack.name),
    });
    let page = html_page(&HtmlReport {
        host: &host.to_string_lossy(),
        now: &now,
        last,
        history: &history,
        stacks: stacks.collect(),
    });
    // Its directory is synced, which a name alone does not have.
    let file = absolute(file).context("cannot write the page")?;
    write_durably(&file, page.as_bytes()).context("cannot write the page")?;
    if global.json {
        print_json_field("written", &file)?;
    }
    Ok(ExitStatus::Ok)
}

/// Returns the archives of a stack, and what retention does with each.
fn archives(plan: &Plan, store: &Store, stack: &str, now: &OffsetTime) -> Result<Vec<HtmlArchive>> {
    let keeps_all = plan.retention.is_none();
    let policy = plan.retention.clone().unwrap_or_default();
    let decisions = Pruning::of(store, &policy, stack, now)?
        .decisions
        .into_iter();
    let archives = decisions.map(|(archive, decision)| HtmlArchive {
        is_good: archive.is_good(),
        time: archive.time,
        archive_bytes: archive.archive_bytes,
        keep: keeps_all || decision.keep,
        reasons: match keeps_all {
            true => vec!["every archive is kept".to_owned()],
            false => decision.reasons,
        },
    });
    Ok(archives.collect())
}
