//! `mount`: archives as read-only directories, until a signal or a command ends it.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::find_archive::{find_in_store, is_path};
use super::load::{load_or_default, load_without_looking};
use super::look::NEVER;
use crate::cli::{Global, MountArgs};
use crate::config::plan::Plan;
use crate::mount::{Mounted, View, ViewedArchive, check_mount_point};
use crate::outcome::ExitStatus;
use crate::store::{Store, identity};
use crate::sys::process::{Exit, Foreground};
use crate::sys::signals::Signals;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub fn mount(global: &Global, args: &MountArgs) -> Result<ExitStatus> {
    let (what, dir) = match args.places.as_slice() {
        [dir] => (None, Path::new(dir)),
        [what, dir] => (Some(what), Path::new(dir)),
        _ => bail!("name a directory to mount at"),
    };
    ensure!(
        what.is_none() || !(args.latest || args.all),
        "--latest and --all show all stacks: name the directory only"
    );
    check_mount_point(dir)?;
    let (view, left_out) = match what {
        Some(what) => (one(global, what, args.pass_over)?, 0),
        None => {
            let plan = load_without_looking(global)?;
            match args.all {
                true => (all(&plan)?, 0),
                false => latest(&plan, args.pass_over)?,
            }
        }
    };
    // Until now, a signal ends the program.
    let signals = Signals::install_silently()?;
    let mounted = Mounted::new(view, dir)?;
    tracing::info!(path = %dir.display(), "mounted");
    let ended = match args.command.split_first() {
        Some((program, more)) => run(program, more, &signals),
        None => {
            while signals.received().is_none() && !mounted.has_ended() {
                thread::sleep(POLL_INTERVAL);
            }
            Ok(ExitStatus::Ok)
        }
    };
    mounted.unmount()?;
    tracing::info!(path = %dir.display(), "unmounted");
    match left_out {
        0 => ended,
        _ => ended.map(|status| status.max(ExitStatus::Incomplete)),
    }
}

/// Runs a program while the view is mounted. Its failure is that of this command.
fn run(program: &str, args: &[String], signals: &Signals) -> Result<ExitStatus> {
    let mut running = Foreground::start(program, args)?;
    let mut is_asked = false;
    loop {
        match running.try_wait()? {
            Some(Exit::Success) => return Ok(ExitStatus::Ok),
            Some(exit) => {
                tracing::error!("`{program}`: {exit}");
                return Ok(ExitStatus::Incomplete);
            }
            None => {}
        }
        // Ctrl-C has reached the program, too; twice would not let it end in order.
        if signals.received() == Some("SIGTERM") && !is_asked {
            running.terminate();
            is_asked = true;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// A view of one archive: the mount point is the archive.
fn one(global: &Global, what: &str, pass_over: bool) -> Result<View> {
    if what == "-" {
        bail!("an archive on standard input cannot be mounted: save it to a file first");
    }
    let path = if is_path(what) {
        Path::new(what).to_owned()
    } else {
        let (stored, passed_over) = find_in_store(&load_or_default(global)?, what)?;
        passed_over.check(pass_over)?;
        stored.path
    };
    let archive = ViewedArchive::open(&path)?;
    archive.read(&NEVER)?;
    let stack = archive.stack()?.unwrap_or_default();
    Ok(View::of_archive(archive, &stack))
}

/// A view of the newest good archive of each stack. A stack whose archive cannot be used
/// is left out, so that it does not keep a program from copying the others. Also returns
/// how many are.
///
/// # Errors
/// When there is nothing to show.
fn latest(plan: &Plan, pass_over: bool) -> Result<(View, usize)> {
    let mut view = View::of_stacks();
    let mut found = 0;
    let mut left_out = Vec::new();
    for stack in stacks(plan)? {
        match newest(plan, &stack, pass_over) {
            Ok(archive) => {
                view.add_latest(&stack, archive);
                found += 1;
            }
            Err(error) => left_out.push((stack, error)),
        }
    }
    if found == 0
        && let Some((_, error)) = left_out.pop()
    {
        return Err(error);
    }
    check_found(plan, found)?;
    for (stack, error) in &left_out {
        tracing::error!("the stack {stack} is left out: {error:#}");
    }
    Ok((view, left_out.len()))
}

/// Opens the newest good archive of a stack, and reads its headers.
fn newest(plan: &Plan, stack: &str, pass_over: bool) -> Result<ViewedArchive> {
    let (stored, passed_over) = find_in_store(plan, stack)?;
    passed_over.check(pass_over)?;
    let archive = ViewedArchive::open(&stored.path)?;
    archive.read(&NEVER)?;
    Ok(archive)
}

/// A view of all archives that are complete. Their headers are read when somebody looks
/// into them.
fn all(plan: &Plan) -> Result<View> {
    let store = Store::open(&plan.backup_dir)?;
    let mut view = View::of_stacks();
    let mut found = 0;
    for stack in stacks(plan)? {
        for stored in store.list(&stack)? {
            if !stored.complete {
                tracing::warn!("left out: {} is incomplete", stored.path.display());
                continue;
            }
            let name = stored.path.file_stem().unwrap_or_default();
            let archive = ViewedArchive::open(&stored.path)?;
            view.add_one_of_all(&stack, &name.to_string_lossy(), archive);
            found += 1;
        }
    }
    check_found(plan, found)?;
    Ok(view)
}

/// Returns the stacks that have archives.
fn stacks(plan: &Plan) -> Result<Vec<String>> {
    let store = Store::open(&plan.backup_dir)?;
    let mut stacks = store.stacks()?;
    let mut failed = None;
    stacks.retain(|stack| match store.list(stack) {
        Ok(archives) => !archives.is_empty(),
        Err(error) => {
            failed.get_or_insert(error);
            false
        }
    });
    failed.map_or(Ok(stacks), Err)
}

fn check_found(plan: &Plan, count: usize) -> Result<()> {
    if count > 0 {
        return Ok(());
    }
    identity::check(plan)?;
    Err(anyhow::anyhow!("there is no archive"))
        .with_context(|| format!("cannot mount {}", plan.backup_dir.display()))
}
