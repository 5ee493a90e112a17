//! `check`: checks the configuration, and with `--live` what a run needs on
//! this host.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;

use super::left_down::left_down;
use super::load::{load, load_without_looking};
use super::output::{print, print_folded, print_json};
use super::preview::Previewer;
use crate::cli::Global;
use crate::config::plan::{Plan, StackPlan, engines};
use crate::engine::Engine;
use crate::handover;
use crate::history::History;
use crate::last_run;
use crate::notify;
use crate::outcome::ExitStatus;
use crate::stack::all_engines::all_containers;
use crate::stack::unconfigured;
use crate::store::{Store, alarms, identity};
use crate::sys::format::{count, human_bytes, one_line};
use crate::sys::signals::Signals;
use crate::sys::systemd;
use crate::sys::time::OffsetTime;

pub fn check(global: &Global, live: bool) -> Result<ExitStatus> {
    // Loading checks the configuration.
    let plan = match live {
        true => load(global)?,
        false => load_without_looking(global)?,
    };
    if plan.stacks.is_empty() && (live || !plan.takes_all) {
        tracing::warn!("no stacks are configured");
    }
    let mut checked = Checked::default();
    if live {
        check_live(&plan, &mut checked);
    }
    match (global.json, live) {
        (true, _) => print_json(&checked)?,
        (false, true) => print_folded(&checked.text())?,
        (false, false) => print("the configuration is valid\n")?,
    }
    Ok(match checked.checks.iter().all(|check| check.ok) {
        true => ExitStatus::Ok,
        false => ExitStatus::CouldNotRun,
    })
}

/// What was looked at.
#[derive(Default, Serialize)]
struct Checked {
    checks: Vec<CheckedThing>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct CheckedThing {
    what: String,
    ok: bool,
    /// What was found, or why it failed.
    detail: String,
}

impl Checked {
    fn add(&mut self, what: &str, result: Result<String>) {
        self.checks.push(CheckedThing {
            what: what.to_owned(),
            ok: result.is_ok(),
            detail: result.unwrap_or_else(|error| format!("{error:#}")),
        });
    }

    fn text(&self) -> String {
        let checks = self.checks.iter().map(|check| {
            let word = if check.ok { "ok    " } else { "FAILED" };
            format!("{word}  {}: {}\n", check.what, check.detail)
        });
        let warnings = self.warnings.iter();
        let warnings = warnings.map(|warning| format!("warning {}\n", one_line(warning)));
        checks.chain(warnings).collect()
    }
}

fn check_live(plan: &Plan, checked: &mut Checked) {
    for engine in engines(&plan.stacks) {
        let what = match engine.is_default() {
            true => "docker".to_owned(),
            false => format!("engine {engine}"),
        };
        let mut stacks = plan.stacks.iter();
        let needs_compose =
            stacks.any(|stack| !stack.is_of_units() && stack.compose.engine.is_same(&engine));
        checked.add(&what, check_engine(&engine, needs_compose));
    }
    if plan.stacks.iter().any(StackPlan::is_of_units) {
        checked.add("systemd", systemd::version());
    }
    checked.add("backupDir", check_store(plan));
    checked.add("stateDir", check_dir(&plan.state_dir));
    for line in left_down(plan) {
        checked.add("journal", Err(anyhow!(line)));
    }
    if let Some(path) = &plan.log_file {
        checked.add("logFile", check_log_file(path));
    }
    for reason in &plan.passed_over {
        checked.add("stacks", Err(anyhow!("{reason}")));
    }
    if let Some(path) = &plan.metrics_file {
        checked.add("metricsFile", check_metrics_file(path));
    }
    let previewer = Previewer::new(plan);
    for stack in &plan.stacks {
        checked.add(
            &format!("stack {}", stack.name),
            check_stack(stack, &previewer),
        );
    }
    for (what, result) in notify::check(plan) {
        checked.add(&what, result);
    }
    for (name, result) in handover::probe(plan, &Signals::default()) {
        checked.add(&format!("handover {name}"), result);
    }
    if let Err(error) = add_alarms(plan, &mut checked.warnings) {
        checked.add("alarms", Err(error));
    }
}

/// Beside units there need be neither Compose nor the docker command.
fn check_engine(engine: &Engine, needs_compose: bool) -> Result<String> {
    engine.check()?;
    let program = match engine.is_podman() {
        true => "Podman",
        false => "Engine",
    };
    if !needs_compose {
        return Ok(format!("{program} answers"));
    }
    let (version, compose) = engine.versions()?;
    Ok(format!("{program} {version}, Compose {compose}"))
}

fn check_store(plan: &Plan) -> Result<String> {
    identity::check(plan)?;
    if !plan.backup_dir.exists() {
        return check_dir(&plan.backup_dir);
    }
    let available = Store::open(&plan.backup_dir)?.available_bytes()?;
    let dir = check_dir(&plan.backup_dir)?;
    Ok(format!("{dir}, {} free", human_bytes(available)))
}

/// Checks that a directory can be written to, or can be created because its
/// nearest existing parent can be written to. Only an attempt can tell.
fn check_dir(path: &Path) -> Result<String> {
    let existing = path.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    tempfile::Builder::new()
        .prefix(".check-")
        .tempfile_in(existing)
        .with_context(|| format!("cannot write into {}", existing.display()))?;
    Ok(match existing == path {
        true => path.display().to_string(),
        false => format!("{} will be created", path.display()),
    })
}

fn check_log_file(path: &Path) -> Result<String> {
    if !path.exists() {
        check_dir(path.parent().context("it is not the path of a file")?)?;
        return Ok(format!("{} will be created", path.display()));
    }
    let opened = File::options().append(true).open(path);
    opened.with_context(|| format!("cannot append to {}", path.display()))?;
    Ok(path.display().to_string())
}

/// The directory is that of the collector, so it is not created.
fn check_metrics_file(path: &Path) -> Result<String> {
    let dir = path.parent().context("it is not the path of a file")?;
    ensure!(
        dir.is_dir(),
        "the directory {} does not exist",
        dir.display()
    );
    check_dir(dir).map(|_| path.display().to_string())
}

/// Adds what a run would warn of beside its own work.
///
/// # Errors
/// When the history cannot be read, or the Engine does not answer.
fn add_alarms(plan: &Plan, warnings: &mut Vec<String>) -> Result<()> {
    let history = History::read(&plan.state_dir)?;
    let now = OffsetTime::now();
    for stack in &plan.stacks {
        let newest = history.last_good.get(&stack.name).map(|good| &good.time);
        let sizes = history.good_sizes(&stack.name);
        let alarms = alarms::warnings(stack, newest, &sizes, &now).into_iter();
        warnings.extend(alarms.map(|warning| format!("stack {}: {warning}", stack.name)));
    }
    let last = last_run::read(&plan.state_dir)?;
    let known = plan.stacks.iter().map(|stack| {
        let project = last.as_ref().and_then(|last| last.project(&stack.name));
        (stack, project)
    });
    let known: Vec<_> = known.collect();
    let asked = all_containers(&plan.stacks)?;
    let found = unconfigured::find(&known, &plan.ignore_projects, &asked);
    let found = found.iter();
    warnings.extend(found.map(|found| format!("project {}: {}", found.project, found.warning())));
    Ok(())
}

/// Each mount that is not covered, and each warning, has a line of its own.
fn check_stack(stack: &StackPlan, previewer: &Previewer) -> Result<String> {
    let preview = previewer.preview(stack)?;
    let holes = preview.holes("        ");
    let hole_count = holes.lines().count() as u64;
    let mut text = format!(
        "{} {}, {} running, {} to archive, {} not covered\n{holes}",
        if preview.units.is_empty() {
            "project"
        } else {
            "units"
        },
        preview.identity(),
        preview.running.len(),
        human_bytes(preview.content_bytes),
        count(hole_count, "mount"),
    );
    for warning in &preview.warnings {
        text.push_str(&format!(
            "warning stack {}: {}\n",
            stack.name,
            one_line(warning)
        ));
    }
    let text = text.trim_end();
    match preview.refusal {
        None => Ok(text.to_owned()),
        Some(refusal) => bail!("{}\n        {text}", one_line(&refusal)),
    }
}
