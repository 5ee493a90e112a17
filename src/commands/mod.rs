//! The commands: a plan from the command line and the configuration, the work
//! elsewhere, and what is printed of it.

mod archives;
mod drill;
mod inspect;
mod restore;

use std::fs;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, Result, bail, ensure};
use clap::CommandFactory;
use jiff::ZonedDateTime;
use serde::Serialize;

use crate::cli::{Cli, Global};
use crate::config::plan::Plan;
use crate::config::{Config, DEFAULT_STATE_DIR, Retention, Stack, StackOptions};
use crate::outcome::{ExitStatus, PrunedStack, RunOutcome};
use crate::store::Store;
use crate::sys::format::human_bytes;
use crate::sys::lock::{Lock, Operation};
use crate::sys::logging::Log;
use crate::sys::progress;
use crate::sys::signals::Signals;
use crate::{email, report as reports, run as runs};

pub use archives::{list, verify};
pub use drill::drill;
pub use inspect::{check, plan};
pub use restore::restore;

const DEFAULT_CONFIG: &str = "/etc/docker-stack-backup/config.json";

/// The configuration file, or what stands in for it on the command line.
fn load(global: &Global) -> Result<Plan> {
    load_with(global, Absent::Refuse)
}

/// What to do without a configuration, when nothing on the command line stands
/// in for it.
#[derive(Clone, Copy, PartialEq)]
enum Absent {
    Refuse,
    /// The usual places will do.
    UseDefaults,
}

fn load_with(global: &Global, absent: Absent) -> Result<Plan> {
    let file = config_file(global, Path::new(DEFAULT_CONFIG))?;
    let says_where = global.backup_dir.is_some() || global.state_dir.is_some();
    let is_ad_hoc = !global.stack_dirs.is_empty() || says_where;
    let mut config = match file {
        Some(path) => Config::load(path)?,
        None if !is_ad_hoc && absent == Absent::Refuse => bail!(
            "no configuration: give --config FILE, make {DEFAULT_CONFIG}, or name stacks by \
             --stack DIR --backup-dir DIR"
        ),
        None => Config {
            state_dir: default_state_dir()?,
            log_file: None,
            retention: None,
            ..Config::default()
        },
    };
    if !global.stack_dirs.is_empty() && global.backup_dir.is_none() {
        bail!("--stack needs --backup-dir DIR, where the archives go");
    }
    for dir in &global.stack_dirs {
        let path = Some(resolve(dir)?);
        config.stacks.push(Stack(StackOptions {
            path,
            ..StackOptions::default()
        }));
    }
    if let Some(dir) = &global.backup_dir {
        config.backup_dir = resolve(dir)?;
    }
    if let Some(dir) = &global.state_dir {
        config.state_dir = resolve(dir)?;
    }
    Plan::new(config).with_context(|| match file {
        Some(path) => format!("config {}", path.display()),
        None => "the command line".to_owned(),
    })
}

/// The file that is read: `usual` if none is named and it is there. Stacks on
/// the command line stand in for it; --backup-dir and --state-dir do not, which
/// only say otherwise where things are.
fn config_file<'a>(global: &'a Global, usual: &'a Path) -> Result<Option<&'a Path>> {
    let is_replaced = !global.stack_dirs.is_empty();
    ensure!(
        !is_replaced || global.config.is_none(),
        "--stack and --config (or $DOCKER_STACK_BACKUP_CONFIG) exclude each other: put the stack \
         into the configuration"
    );
    let usual = (!is_replaced && usual.exists()).then_some(usual);
    Ok(global.config.as_deref().or(usual))
}

/// A path of the command line, absolute and without `..`. Symlinks stay: one
/// that is a stack's directory names the stack.
fn resolve(path: &Path) -> Result<PathBuf> {
    let context = || format!("find {}", path.display());
    if path.to_str().is_none() {
        bail!(
            "{}: a path that is not UTF-8 cannot be used",
            path.display()
        );
    }
    let mut resolved = PathBuf::new();
    for part in absolute(path).with_context(context)?.components() {
        if part == Component::ParentDir {
            resolved = fs::canonicalize(resolved).with_context(context)?;
            resolved.pop();
        } else {
            resolved.push(part);
        }
    }
    Ok(resolved)
}

/// Only root can write to the usual place.
fn default_state_dir() -> Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok(DEFAULT_STATE_DIR.into());
    }
    let home = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    let home = home.context("find a place for the journal: set HOME, or give --state-dir DIR")?;
    Ok(home.join("docker-stack-backup"))
}

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
    let shown = (!global.quiet && !global.json).then(progress::show);
    let outcome = runs::run(&plan, log, &signals)?;
    drop(shown);
    Ok(show(global, &outcome).max(outcome.exit_status()))
}

/// The log file's directory may be missing; the file itself is made on use.
/// If it cannot be, the outcome says so: that is no reason to do nothing.
fn start_log_file(plan: &Plan, log: &Log) {
    if let Some(path) = &plan.log_file {
        if let Some(dir) = path.parent() {
            let _ = fs::create_dir_all(dir);
        }
        log.append_to(path.clone());
    }
}

/// Prints an outcome; not its log, which was on stderr already. That it cannot
/// be printed must not hide how the run ended.
fn show(global: &Global, outcome: &RunOutcome) -> ExitStatus {
    let shown = if global.json {
        print_json(outcome)
    } else if global.quiet {
        Ok(())
    } else {
        print(&reports::run_text(&RunOutcome {
            log: Vec::new(),
            ..outcome.clone()
        }))
    };
    match shown {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            tracing::error!("show the outcome: {error:#}");
            ExitStatus::Incomplete
        }
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // `... | head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to stdout"),
    }
}

pub fn prune(global: &Global, stacks: &[String], dry_run: bool) -> Result<ExitStatus> {
    let mut plan = load(global)?;
    plan.select(stacks)?;
    let Some(policy) = &plan.retention else {
        tracing::info!("retention is null: every archive is kept");
        return Ok(ExitStatus::Ok);
    };
    let now = ZonedDateTime::now().datetime();
    if dry_run {
        return inspect::prune_dry_run(global, &plan, policy, now);
    }
    let _lock = Lock::take(&plan.state_dir, Operation::Prune)?;
    let store = Store::open(&plan.backup_dir)?;
    let pruned: Vec<PrunedStack> = plan
        .stacks
        .iter()
        .map(|stack| crate::store::prune::prune(&store, policy, &stack.name, now))
        .collect();
    if global.json {
        print_json(&pruned)?;
    }
    let removed = || pruned.iter().flat_map(|stack| &stack.removed);
    let freed_bytes: u64 = removed().map(|archive| archive.archive_bytes).sum();
    tracing::info!(
        removed = removed().count(),
        freed = human_bytes(freed_bytes),
        "pruned"
    );
    let errors = || pruned.iter().filter_map(|stack| stack.error.as_ref());
    for error in errors() {
        tracing::error!("{error}");
    }
    Ok(if errors().next().is_some() {
        ExitStatus::Incomplete
    } else {
        ExitStatus::Ok
    })
}

pub fn recover(global: &Global, forget: Option<&str>, log: &Log) -> Result<ExitStatus> {
    // A run without a configuration has to be recovered without one.
    let plan = load_with(global, Absent::UseDefaults)?;
    if let Some(stack) = forget {
        runs::forget(&plan, stack)?;
        return Ok(ExitStatus::Ok);
    }
    start_log_file(&plan, log);
    let Some(outcome) = runs::recover(&plan, log)? else {
        tracing::info!("nothing to recover");
        return Ok(ExitStatus::Ok);
    };
    Ok(show(global, &outcome).max(recovery_status(&outcome)))
}

/// That the run was interrupted is what was asked to be mended.
fn recovery_status(outcome: &RunOutcome) -> ExitStatus {
    match outcome.exit_status() {
        ExitStatus::Incomplete if outcome.errors.is_empty() => ExitStatus::Ok,
        status => status,
    }
}

pub fn report(global: &Global, mail_test: bool) -> Result<ExitStatus> {
    let plan = load(global)?;
    let last = runs::last_run(&plan.state_dir)?;
    if mail_test {
        let Some(email) = &plan.email else {
            bail!("no `email` is configured")
        };
        let body = match &last {
            Some(outcome) => reports::run_text(outcome),
            None => "There was no run yet.\n".to_owned(),
        };
        email::send(
            email,
            &format!("[{}] TEST: mail works", email.subject_tag),
            &body,
        )?;
        tracing::info!(to = email.to.join(" "), "test mail sent");
        return Ok(ExitStatus::Ok);
    }
    let Some(outcome) = last else {
        bail!("there was no run yet")
    };
    if global.json {
        print_json(&outcome)?;
    } else {
        print(&reports::run_text(&outcome))?;
    }
    Ok(ExitStatus::Ok)
}

pub fn completions(shell: clap_complete::Shell) -> Result<ExitStatus> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&String::from_utf8(script)?).map(|()| ExitStatus::Ok)
}

pub fn man_pages(dir: &Path) -> Result<ExitStatus> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("write man pages into {}", dir.display()))?;
    Ok(ExitStatus::Ok)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn only_stacks_on_the_command_line_stand_in_for_the_usual_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let usual = dir.path().join("config.json");
        let read = |args: &str| {
            let args = format!("docker-stack-backup list {args}");
            let mut global = Cli::try_parse_from(args.split_whitespace()).unwrap().global;
            // The environment may name one.
            global.config = global.config.filter(|_| args.contains("--config"));
            let found = config_file(&global, &usual);
            found.map(|path| path.map(Path::to_owned)).ok()
        };
        let elsewhere = Some(Some(PathBuf::from("/c.json")));
        assert_eq!(read(""), Some(None));
        assert_eq!(read("--config /c.json --backup-dir /b"), elsewhere);
        fs::write(&usual, "{}").unwrap();
        let usual = Some(Some(usual.clone()));
        for args in ["", "--backup-dir /b", "--state-dir /s --backup-dir /b"] {
            assert_eq!(read(args), usual, "{args}");
        }
        assert_eq!(read("--config /c.json --backup-dir /b"), elsewhere);
        assert_eq!(read("--stack /web --backup-dir /b"), Some(None));
        assert_eq!(read("--stack /web --config /c.json"), None);
    }
}
