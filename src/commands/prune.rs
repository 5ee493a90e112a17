//! `prune`: removes the archives that retention does not keep, or shows which
//! these are.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::load::load;
use super::output::{print, print_json_field, table};
use crate::cli::Global;
use crate::config::Retention;
use crate::config::plan::Plan;
use crate::outcome::{ExitStatus, PrunedStack};
use crate::store::prune::{Pruning, prune as prune_stack};
use crate::store::{StoredArchive, identity, retention::Decision};
use crate::sys::format::human_bytes;
use crate::sys::lock::{Lock, Operation};
use crate::sys::time::OffsetTime;

pub fn prune(global: &Global, stacks: &[String], dry_run: bool, yes: bool) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(stacks)?;
    let Some(policy) = &plan.retention else {
        tracing::info!("no retention policy is configured, so nothing is pruned");
        if global.json {
            let name = if dry_run { "archives" } else { "stacks" };
            print_json_field::<[(); 0]>(name, &[])?;
        }
        return Ok(ExitStatus::Ok);
    };
    let now = OffsetTime::now();
    if dry_run {
        return show_decisions(global, &plan, policy, &now);
    }
    let _lock = Lock::take(&plan.state_dir, Operation::Prune)?;
    let store = identity::open(&plan)?;
    let pruned: Vec<PrunedStack> = plan
        .stacks
        .iter()
        .map(|stack| prune_stack(&store, policy, &stack.name, &now, yes))
        .collect();
    if global.json {
        print_json_field("stacks", &pruned)?;
    }
    let removed = || pruned.iter().flat_map(|stack| &stack.removed);
    let freed_bytes: u64 = removed().map(|archive| archive.archive_bytes).sum();
    tracing::info!(
        removed = removed().count(),
        freed = human_bytes(freed_bytes),
        "pruned"
    );
    let mut status = ExitStatus::Ok;
    for error in pruned.iter().filter_map(|stack| stack.error.as_ref()) {
        tracing::error!("{error}");
        status = ExitStatus::Incomplete;
    }
    Ok(status)
}

/// An archive, and whether prune would keep it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecisionView {
    stack: String,
    path: PathBuf,
    archive_bytes: u64,
    keep: bool,
    reasons: Vec<String>,
}

impl DecisionView {
    fn of((archive, decision): (StoredArchive, Decision)) -> DecisionView {
        DecisionView {
            stack: archive.name.stack,
            path: archive.path,
            archive_bytes: archive.archive_bytes,
            keep: decision.keep,
            reasons: decision.reasons,
        }
    }

    fn row(&self) -> [String; 4] {
        let name = self.path.file_name().unwrap_or_default();
        [
            if self.keep { "keep" } else { "remove" }.to_owned(),
            name.to_string_lossy().into_owned(),
            human_bytes(self.archive_bytes),
            self.reasons.join(", "),
        ]
    }
}

fn show_decisions(
    global: &Global,
    plan: &Plan,
    policy: &Retention,
    now: &OffsetTime,
) -> Result<ExitStatus> {
    let store = identity::open(plan)?;
    let mut views = Vec::new();
    for stack in &plan.stacks {
        let pruning = Pruning::of(&store, policy, &stack.name, now)?;
        if let Some(jump) = pruning.jump {
            tracing::warn!(stack = stack.name, "{}", jump.message(&stack.name));
        }
        views.extend(pruning.decisions.into_iter().map(DecisionView::of));
    }
    if global.json {
        return print_json_field("archives", &views).map(|()| ExitStatus::Ok);
    }
    let header = ["PRUNE", "ARCHIVE", "SIZE", "WHY"];
    let rows: Vec<_> = std::iter::once(header.map(str::to_owned))
        .chain(views.iter().map(DecisionView::row))
        .collect();
    let removed_bytes: u64 = views
        .iter()
        .filter(|view| !view.keep)
        .map(|view| view.archive_bytes)
        .sum();
    print(&format!(
        "{}would free {}\n",
        table(&rows),
        human_bytes(removed_bytes)
    ))?;
    Ok(ExitStatus::Ok)
}
