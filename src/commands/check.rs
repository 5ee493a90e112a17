//! `check`: checks the configuration, and with `--live` what a run needs on
//! this host.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::left_down::left_down;
use super::load::{load, load_without_looking};
use super::output::print;
use super::preview::Previewer;
use crate::cli::Global;
use crate::config::plan::{Plan, StackPlan, engines};
use crate::engine::Engine;
use crate::notify;
use crate::outcome::ExitStatus;
use crate::store::{Store, identity};
use crate::sys::format::{count, human_bytes, one_line};

pub fn check(global: &Global, live: bool) -> Result<ExitStatus> {
    // Loading checks the configuration.
    let plan = match live {
        true => load(global)?,
        false => load_without_looking(global)?,
    };
    if plan.stacks.is_empty() && (live || !plan.takes_all) {
        tracing::warn!("no stacks are configured");
    }
    if !live {
        return print("the configuration is valid\n").map(|()| ExitStatus::Ok);
    }
    let mut text = String::new();
    let mut problem_count = 0;
    let mut add = |what: &str, result: Result<String>| match result {
        Ok(detail) => text.push_str(&format!("ok      {what}: {detail}\n")),
        Err(error) => {
            problem_count += 1;
            text.push_str(&format!("FAILED  {what}: {error:#}\n"));
        }
    };
    for engine in engines(&plan.stacks) {
        let what = match engine.is_default() {
            true => "docker".to_owned(),
            false => format!("engine {engine}"),
        };
        add(&what, check_engine(&engine));
    }
    add("backupDir", check_store(&plan));
    add("stateDir", check_dir(&plan.state_dir));
    for line in left_down(&plan) {
        add("journal", Err(anyhow!(line)));
    }
    if let Some(path) = &plan.log_file {
        add("logFile", check_log_file(path));
    }
    for reason in &plan.passed_over {
        add("stacks", Err(anyhow!("{reason}")));
    }
    let previewer = Previewer::new(&plan);
    for stack in &plan.stacks {
        add(
            &format!("stack {}", stack.name),
            check_stack(stack, &previewer),
        );
    }
    for (what, result) in notify::check(&plan) {
        add(&what, result);
    }
    print(&text)?;
    Ok(match problem_count {
        0 => ExitStatus::Ok,
        _ => ExitStatus::CouldNotRun,
    })
}

fn check_engine(engine: &Engine) -> Result<String> {
    let (version, compose) = engine.versions()?;
    let program = match engine.is_podman() {
        true => "Podman",
        false => "Engine",
    };
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

/// Each mount that is not covered, and each warning, has a line of its own.
fn check_stack(stack: &StackPlan, previewer: &Previewer) -> Result<String> {
    let preview = previewer.preview(stack)?;
    let holes = preview.holes("        ");
    let hole_count = holes.lines().count() as u64;
    let mut text = format!(
        "project {}, {} running, {} to archive, {} not covered\n{holes}",
        preview.project,
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
