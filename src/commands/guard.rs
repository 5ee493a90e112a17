//! `guard`: updates a stack, and puts it back if that fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::load::load;
use super::output::{print, print_json, show_outcome, start_log_file};
use crate::cli::{Global, GuardArgs};
use crate::config::plan::Plan;
use crate::guard::{self as guards, GuardOptions};
use crate::metrics;
use crate::outcome::{
    ExitStatus, GuardOutcome, GuardStatus, ImageChange, ImageName, RunOutcome, StackStatus,
};
use crate::run::run_locked;
use crate::sys::format::one_line;
use crate::sys::lock::{Lock, Operation};
use crate::sys::logging::Log;
use crate::sys::process::directory_of;
use crate::sys::progress;
use crate::sys::signals::Signals;
use crate::worker::{Watch, Watching};

/// How much of an image's id is shown.
const SHORT_ID_CHARS: usize = 12;

pub fn guard(global: &Global, args: &GuardArgs, log: &Log) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(std::slice::from_ref(&args.stack))?;
    let stack = plan.stacks.first().context("no stack is configured")?;
    let signals = Signals::install()?;
    start_log_file(&plan, log);
    let lock = Lock::take(&plan.state_dir, Operation::Guard)?;
    let look = || guards::look(stack, &plan.state_dir, args.allow_holes);
    // Nothing is archived for an update that is refused.
    look()?;
    check_program(&args.command, stack.dir())?;
    // What the stack writes between the archive and the command is lost by a roll-back. So
    // the next run hands the archive over.
    let before = Plan {
        handover: Vec::new(),
        ..plan.clone()
    };
    let run = back_up(global, &before, log, &signals, &lock);
    let Some(archive) = archive_of(&run, &args.stack) else {
        show_outcome(global, &run);
        tracing::error!("there is no new archive, so the command was not run");
        return Ok(match run.exit_status() {
            ExitStatus::StackDown => ExitStatus::StackDown,
            _ => ExitStatus::CouldNotRun,
        });
    };
    let options = GuardOptions {
        state_dir: &plan.state_dir,
        command: &args.command,
        command_limit: Duration::from_secs(args.limit),
        healthy_within: args.healthy_within.map(Duration::from_secs),
        allow_reachable: args.allow_reachable,
    };
    let updated = look().and_then(|looked| guards::update(looked, &archive, &options, &signals));
    if let Err(error) = metrics::update(&plan) {
        tracing::warn!("{error:#}");
    }
    let outcome = updated.context("the command was not run")?;
    for warning in &outcome.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(error) = &outcome.error {
        tracing::error!("{error}");
    }
    match global.json {
        true => print_json(&outcome)?,
        false => print(&text(&outcome))?,
    }
    Ok(exit_status(&outcome))
}

/// Checks that there is a program to run.
fn check_program(command: &[String], dir: &Path) -> Result<()> {
    let program = command.first().context("the command is empty")?;
    let is_found = match program.contains('/') {
        true => dir.join(program).is_file(),
        false => directory_of(program).is_some(),
    };
    ensure!(
        is_found,
        "cannot find the program `{program}`, and nothing was done (a command line with spaces or \
         && needs a shell: `guard STACK -- sh -c '...'`)"
    );
    Ok(())
}

fn back_up(global: &Global, plan: &Plan, log: &Log, signals: &Signals, lock: &Lock) -> RunOutcome {
    let _progress_line = (!global.quiet && !global.json).then(progress::show);
    let watch = Watch {
        plan,
        signals,
        log,
        watching: Watching::Workers,
    };
    run_locked(&watch, false, lock)
}

/// Returns the archive that a run has made, if the stack is up again and not in the effect
/// of a hook.
fn archive_of(run: &RunOutcome, stack: &str) -> Option<PathBuf> {
    let made = run.stack(stack)?;
    let is_good = made.status == StackStatus::Ok && made.not_undone.is_empty();
    let archive = made.archive.as_ref().filter(|_| is_good)?;
    Some(archive.path.clone())
}

fn exit_status(outcome: &GuardOutcome) -> ExitStatus {
    match outcome.status {
        GuardStatus::Updated => ExitStatus::Ok,
        GuardStatus::RolledBack => ExitStatus::Incomplete,
        GuardStatus::NotRolledBack => ExitStatus::StackDown,
    }
}

fn text(outcome: &GuardOutcome) -> String {
    let status = match outcome.status {
        GuardStatus::Updated => "updated, and up as before",
        GuardStatus::RolledBack => "ROLLED BACK: data, images and containers are as before",
        GuardStatus::NotRolledBack => "NOT ROLLED BACK",
    };
    let mut text = format!("{}: {status}\n", outcome.stack);
    let mut line = |label: &str, value: &str| {
        text += &format!("  {label:7}  {}\n", one_line(value));
    };
    for reason in outcome.reason.iter().chain(&outcome.error) {
        line("why", reason);
    }
    for change in &outcome.images {
        line("image", &image_line(change));
    }
    line("archive", &outcome.archive.display().to_string());
    for path in &outcome.kept {
        line("kept", &path.display().to_string());
    }
    text
}

fn image_line(change: &ImageChange) -> String {
    let shown = |image: &Option<ImageName>| match image {
        None => "none".to_owned(),
        Some(image) => format!("{} {}", image.reference, short(&image.id)),
    };
    let before = shown(&change.before);
    match change.before == change.after {
        true => format!("{}: {before}, as before", change.service),
        false => format!("{}: {before} -> {}", change.service, shown(&change.after)),
    }
}

fn short(id: &str) -> &str {
    let hash = id.strip_prefix("sha256:").unwrap_or(id);
    hash.get(..SHORT_ID_CHARS).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn what_changed_and_why_it_was_rolled_back_is_shown() {
        let image = |tag: &str, id: &str| {
            Some(ImageName {
                reference: format!("app:{tag}"),
                id: format!("sha256:{}", id.repeat(64)),
            })
        };
        let change = |service: &str, before, after| ImageChange {
            service: service.to_owned(),
            before,
            after,
        };
        let updated = GuardOutcome {
            stack: "web".to_owned(),
            status: GuardStatus::Updated,
            archive: "/b/web.tar".into(),
            command: vec!["true".to_owned()],
            exit: "success".to_owned(),
            output: Vec::new(),
            command_ms: 1,
            reason: None,
            error: None,
            images: vec![
                change("app", image("1", "a"), image("2", "b")),
                change("db", image("1", "a"), image("1", "a")),
                change("new", None, image("2", "b")),
            ],
            kept: Vec::new(),
            warnings: Vec::new(),
        };
        assert_snapshot!(text(&updated), @r"
        web: updated, and up as before
          image    app: app:1 aaaaaaaaaaaa -> app:2 bbbbbbbbbbbb
          image    db: app:1 aaaaaaaaaaaa, as before
          image    new: none -> app:2 bbbbbbbbbbbb
          archive  /b/web.tar
        ");
        let failed = GuardOutcome {
            status: GuardStatus::NotRolledBack,
            reason: Some("the command failed: exit status 1".to_owned()),
            error: Some("cannot roll back: no room\nleft".to_owned()),
            images: Vec::new(),
            ..updated
        };
        assert_snapshot!(text(&failed), @r"
        web: NOT ROLLED BACK
          why      the command failed: exit status 1
          why      cannot roll back: no room\nleft
          archive  /b/web.tar
        ");
        assert_eq!(exit_status(&failed), ExitStatus::StackDown);
    }
}
