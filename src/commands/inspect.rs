//! The commands that only look.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::civil::DateTime;
use serde::Serialize;

use super::{load, print, print_json};
use crate::cli::Global;
use crate::config::plan::{Plan, StackPlan};
use crate::config::{Retention, StopMethod};
use crate::email;
use crate::engine;
use crate::outcome::{ExitStatus, MountCoverage};
use crate::scan;
use crate::stack::survey::Survey;
use crate::store::Store;
use crate::store::prune;
use crate::sys::format::human_bytes;
use crate::sys::signals::Signals;

/// The configuration was checked while it was loaded; with `live`, all that a
/// run will need of the host is, too.
pub fn check(global: &Global, live: bool) -> Result<ExitStatus> {
    let plan = load(global)?;
    if plan.stacks.is_empty() {
        tracing::warn!("no stacks are configured");
    }
    if !live {
        return print("the configuration is valid\n").map(|()| ExitStatus::Ok);
    }
    let mut text = String::new();
    let mut problem_count = 0;
    let mut tell = |what: &str, result: Result<String>| match result {
        Ok(detail) => text.push_str(&format!("ok      {what}: {detail}\n")),
        Err(error) => {
            problem_count += 1;
            text.push_str(&format!("FAILED  {what}: {error:#}\n"));
        }
    };
    tell(
        "docker",
        engine::refuse_podman()
            .and_then(|()| engine::versions())
            .map(|(engine, compose)| format!("Engine {engine}, Compose {compose}")),
    );
    tell("backupDir", check_store(&plan));
    tell("stateDir", check_dir(&plan.state_dir));
    if let Some(path) = &plan.log_file {
        tell("logFile", check_log_file(path));
    }
    for stack in &plan.stacks {
        tell(&format!("stack {}", stack.name), check_stack(stack));
    }
    if let Some(email) = &plan.email {
        tell(
            "email",
            email::try_login(email).map(|()| format!("{} takes mail", email.host)),
        );
    }
    print(&text)?;
    Ok(if problem_count == 0 {
        ExitStatus::Ok
    } else {
        ExitStatus::CouldNotRun
    })
}

fn check_store(plan: &Plan) -> Result<String> {
    if !plan.backup_dir.exists() {
        return check_dir(&plan.backup_dir);
    }
    let available = Store::open(&plan.backup_dir)?.available_bytes()?;
    let dir = check_dir(&plan.backup_dir)?;
    Ok(format!("{dir}, {} free", human_bytes(available)))
}

/// A directory that is there, or will be made where a parent of it is.
fn check_dir(path: &Path) -> Result<String> {
    let there = path.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("/"));
    // A write is the only proof that one may write.
    tempfile::Builder::new()
        .prefix(".check-")
        .tempfile_in(there)
        .with_context(|| format!("write into {}", there.display()))?;
    Ok(match there == path {
        true => path.display().to_string(),
        false => format!("{} will be created", path.display()),
    })
}

fn check_log_file(path: &Path) -> Result<String> {
    if !path.exists() {
        check_dir(path.parent().context("a file needs a directory")?)?;
        return Ok(format!("{} will be created", path.display()));
    }
    let opened = File::options().append(true).open(path);
    opened.with_context(|| format!("append to {}", path.display()))?;
    Ok(path.display().to_string())
}

fn check_stack(stack: &StackPlan) -> Result<String> {
    let view = StackView::of(stack)?;
    let left_out = view
        .coverage
        .iter()
        .filter(|coverage| !coverage.archived)
        .count();
    Ok(format!(
        "project {}, {} running, {} to archive, {left_out} mounts not covered",
        view.project,
        view.running.len(),
        human_bytes(view.content_bytes)
    ))
}

/// What a run would do with a stack.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StackView {
    stack: String,
    path: PathBuf,
    project: String,
    stop_method: StopMethod,
    /// Containers that would be stopped (or paused) and started.
    running: Vec<String>,
    content_bytes: u64,
    member_count: u64,
    coverage: Vec<MountCoverage>,
    warnings: Vec<String>,
}

impl StackView {
    fn of(stack: &StackPlan) -> Result<StackView> {
        let survey = Survey::of(stack)?;
        let sources = survey.open_sources()?;
        let signals = Signals::default();
        let inventory = scan::scan(
            &sources,
            &stack.exclude,
            stack.exclude_caches,
            signals.flag(),
        )?;
        Ok(StackView {
            stack: stack.name.clone(),
            path: stack.dir().to_owned(),
            project: survey.project,
            stop_method: survey.stop_method,
            running: survey.running.into_iter().map(|was| was.name).collect(),
            content_bytes: inventory.content_bytes(),
            member_count: inventory.member_count(),
            coverage: survey.coverage,
            warnings: survey.warnings,
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} ({})\n  project   {}\n  {:8}  {}\n  archives  {}, {} members\n",
            self.stack,
            self.path.display(),
            self.project,
            match self.stop_method {
                StopMethod::Stop | StopMethod::Down => "stops",
                StopMethod::Pause => "pauses",
            },
            if self.running.is_empty() {
                "nothing, it is down".to_owned()
            } else {
                self.running.join(" ")
            },
            human_bytes(self.content_bytes),
            self.member_count,
        );
        for coverage in &self.coverage {
            let (mark, reason) = match &coverage.reason {
                Some(reason) => ("NOT in", format!(": {reason}")),
                None => ("in    ", String::new()),
            };
            let kind = format!("{:?}", coverage.kind).to_lowercase();
            text.push_str(&format!("  {mark}    {kind} {}{reason}\n", coverage.name));
        }
        for warning in &self.warnings {
            text.push_str(&format!("  warning   {warning}\n"));
        }
        text
    }
}

pub fn plan(global: &Global, stacks: &[String]) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(stacks)?;
    let mut views = Vec::new();
    let mut status = ExitStatus::Ok;
    for stack in &plan.stacks {
        match StackView::of(stack) {
            Ok(view) => views.push(view),
            Err(error) => {
                tracing::error!(stack = stack.name, "{error:#}");
                status = ExitStatus::Incomplete;
            }
        }
    }
    if global.json {
        print_json(&views)?;
    } else {
        print(
            &views
                .iter()
                .map(StackView::text)
                .collect::<Vec<_>>()
                .join("\n"),
        )?;
    }
    Ok(status)
}

/// Columns as wide as their widest cell.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// An archive and what would become of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecisionView {
    path: PathBuf,
    archive_bytes: u64,
    keep: bool,
    reasons: Vec<String>,
}

pub fn prune_dry_run(
    global: &Global,
    plan: &Plan,
    policy: &Retention,
    now: DateTime,
) -> Result<ExitStatus> {
    let store = Store::open(&plan.backup_dir)?;
    let mut views = Vec::new();
    for stack in &plan.stacks {
        let decisions = prune::decisions(&store, policy, &stack.name, now)?;
        views.extend(
            decisions
                .into_iter()
                .map(|(archive, decision)| DecisionView {
                    path: archive.path,
                    archive_bytes: archive.archive_bytes,
                    keep: decision.keep,
                    reasons: decision.reasons,
                }),
        );
    }
    if global.json {
        return print_json(&views).map(|()| ExitStatus::Ok);
    }
    let row = |view: &DecisionView| {
        let name = view
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let verb = if view.keep { "keep" } else { "remove" };
        [
            verb.to_owned(),
            name,
            human_bytes(view.archive_bytes),
            view.reasons.join(", "),
        ]
    };
    let rows: Vec<_> = views.iter().map(row).collect();
    let removed_bytes: u64 = views
        .iter()
        .filter(|v| !v.keep)
        .map(|v| v.archive_bytes)
        .sum();
    print(&format!(
        "{}would free {}\n",
        table(&rows),
        human_bytes(removed_bytes)
    ))?;
    Ok(ExitStatus::Ok)
}
