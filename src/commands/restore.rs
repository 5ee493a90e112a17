//! `restore`: which archive is meant, and where its data goes.

use std::io::{IsTerminal, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Absent, load_with, print, print_json};
use crate::archive::Manifest;
use crate::cli::{Global, Restore};
use crate::config::plan::Plan;
use crate::outcome::ExitStatus;
use crate::restore::diff::Place;
use crate::restore::foreign::stand_in;
use crate::restore::pick::{Only, check_manifest};
use crate::restore::stack::Wish;
use crate::restore::{self as restores, Archive};
use crate::store::{Store, StoredArchive};
use crate::sys::format::human_bytes;
use crate::sys::lock::{Lock, Operation};
use crate::sys::signals::Signals;

pub fn restore(global: &Global, options: &Restore) -> Result<ExitStatus> {
    let archive = match options.from.as_deref() {
        Some("-") => Archive::stdin()?,
        Some(file) => Archive::open(Path::new(file))?,
        None => find(global, &options.what)?,
    };
    let manifest = manifest(&archive)?;
    if options.diff {
        return diff(global, options, &archive, manifest);
    }
    let Some(dir) = &options.to else {
        return restore_stack(global, options, &archive, manifest);
    };
    let only = Only::new(&options.only, manifest.as_ref())?;
    if options.dry_run {
        return print(&restores::listing(&archive, &only)?).map(|()| ExitStatus::Ok);
    }
    let signals = Signals::install()?;
    let summary =
        restores::to_directory(&archive, dir, &only, options.allow_devices, signals.flag())?;
    tracing::info!(
        members = summary.member_count,
        content = human_bytes(summary.file_bytes),
        path = %dir.display(),
        "restored"
    );
    Ok(tell_lacks(&summary.lacks))
}

/// Exit status as of `diff`, but for the number: 1 is taken.
fn diff(
    global: &Global,
    options: &Restore,
    archive: &Archive,
    manifest: Option<Manifest>,
) -> Result<ExitStatus> {
    let only = Only::new(&options.only, manifest.as_ref())?;
    let places = match &options.to {
        Some(dir) => vec![Place {
            prefix: Vec::new(),
            path: Some(dir.clone()),
        }],
        None => {
            let plan = load_with(global, Absent::UseDefaults)?;
            let manifest = told_or_made_up(options, &plan, archive, manifest)?;
            restores::host::places(&manifest, plan.stack(&manifest.stack))?
        }
    };
    let signals = Signals::install()?;
    let diff = restores::diff::diff(archive, &places, &only, signals.flag())?;
    if global.json {
        print_json(&diff)?;
    } else {
        print(&diff.text())?;
    }
    Ok(match diff.differences.as_slice() {
        [] => ExitStatus::Ok,
        _ => ExitStatus::Incomplete,
    })
}

fn restore_stack(
    global: &Global,
    options: &Restore,
    archive: &Archive,
    manifest: Option<Manifest>,
) -> Result<ExitStatus> {
    let plan = load_with(global, Absent::UseDefaults)?;
    let manifest = &told_or_made_up(options, &plan, archive, manifest)?;
    let stack = plan.stack(&manifest.stack);
    let wish = Wish {
        state_dir: &plan.state_dir,
        allow_devices: options.allow_devices || is_in_store(options),
        allow_damaged: options.allow_damaged,
        keep_old: options.keep_old,
        starts: !options.no_start,
    };
    let look = || restores::stack::Restore::plan(archive, manifest, stack, &wish);
    let shown = look()?.text();
    if options.dry_run {
        return print(&shown).map(|()| ExitStatus::Ok);
    }
    // Before the lock is taken: a run that is due waits for who holds it, and an
    // answer may never come.
    confirm(options, &shown)?;
    let _lock = Lock::take(&plan.state_dir, Operation::Restore)?;
    let planned = look()?;
    ensure!(
        planned.text() == shown,
        "what would be replaced is not any more what was shown, and nothing was done: try again"
    );
    // Not before: a question may be ended by Ctrl-C.
    let signals = Signals::install()?;
    let restored = planned.run(&signals)?;
    if global.json {
        print_json(&restored)?;
    }
    for warning in &restored.warnings {
        tracing::warn!("{warning}");
    }
    for path in &restored.kept {
        tracing::info!(path = %path.display(), "kept what was there");
    }
    tracing::info!(
        services = restored.services.join(" "),
        content = human_bytes(restored.file_bytes),
        downtime_ms = restored.downtime_ms,
        "restored"
    );
    Ok(tell_lacks(&restored.lacks))
}

/// # Errors
/// Unless `--yes` was given or the answer on the terminal is yes.
fn confirm(options: &Restore, text: &str) -> Result<()> {
    let mut out = std::io::stderr();
    let _ = write!(out, "{text}");
    if options.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to be asked: give --yes to replace the stack");
    }
    let _ = write!(out, "go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("not confirmed: nothing was done"),
    }
}

/// What is not as it was makes the restore incomplete.
pub fn tell_lacks(lacks: &[String]) -> ExitStatus {
    for lack in lacks {
        tracing::warn!("not restored: {lack}");
    }
    match lacks {
        [] => ExitStatus::Ok,
        _ => ExitStatus::Incomplete,
    }
}

/// `-`, a path, or a stack's archive in the store.
pub fn find(global: &Global, what: &str) -> Result<Archive> {
    if what == "-" {
        return Archive::stdin();
    }
    if is_path(what) {
        return Archive::open(Path::new(what));
    }
    let plan = load_with(global, Absent::UseDefaults)?;
    Archive::open(&in_store(&plan, what)?.path)
}

/// What has a slash or ends as an archive does names a file, all else a stack.
pub fn is_path(what: &str) -> bool {
    what.contains('/') || what.ends_with(".tar")
}

fn is_of_stack(what: &str) -> bool {
    what != "-" && !is_path(what)
}

/// Whether an archive in the store is meant: whoever can write there is root.
fn is_in_store(options: &Restore) -> bool {
    options.from.is_none() && is_of_stack(&options.what)
}

/// The archive's own manifest, or one made up for the stack that is named.
fn told_or_made_up(
    options: &Restore,
    plan: &Plan,
    archive: &Archive,
    manifest: Option<Manifest>,
) -> Result<Manifest> {
    if options.from.is_some() {
        let is_stack = is_of_stack(&options.what) && !options.what.contains('@');
        ensure!(
            is_stack,
            "--from FILE is for a stack: `restore STACK --from FILE`"
        );
    }
    let named = options.what.split('@').next();
    let named = named.filter(|_| is_of_stack(&options.what));
    match (manifest, named) {
        (Some(manifest), Some(named)) if options.from.is_some() && manifest.stack != named => {
            bail!(
                "{} is of stack {}, not of {named}: unpack it with --to DIR",
                archive.name(),
                manifest.stack
            )
        }
        (Some(manifest), _) => Ok(manifest),
        (None, Some(named)) => {
            let stack = plan.stack(named).with_context(|| {
                format!(
                    "{} has no manifest, and no stack {named} is configured: where it belongs is \
                     not known; configure it, or unpack with --to DIR",
                    archive.name()
                )
            })?;
            stand_in(archive, stack)
        }
        (None, None) => bail!(
            "{} has no manifest that tells which stack it is of: name that (`restore STACK --from \
             FILE`), or unpack with --to DIR",
            archive.name()
        ),
    }
}

/// The archive that `STACK` or `STACK@TIME` means: the newest good one, or the
/// newest of those whose time begins with these digits.
pub fn in_store(plan: &Plan, what: &str) -> Result<StoredArchive> {
    let (stack, time) = what.split_once('@').unwrap_or((what, ""));
    let digits: String = time.chars().filter(char::is_ascii_digit).collect();
    let is_separator = |c: char| "-_:T ".contains(c);
    ensure!(
        time.chars().all(|c| c.is_ascii_digit() || is_separator(c))
            && digits.is_empty() == time.is_empty(),
        "{time:?} is no time: give the first digits of it, as in {stack}@20261124_03 or \
         {stack}@2026-11-24 (`list {stack}` shows all)"
    );
    let store = Store::open(&plan.backup_dir)?;
    let mut archives = store.list(stack)?;
    if archives.is_empty() {
        bail!(
            "there is no archive of a stack {stack} in {}",
            plan.backup_dir.display()
        );
    }
    archives.retain(|archive| {
        let name = archive.name.time.strftime("%Y%m%d%H%M%S").to_string();
        name.starts_with(&digits) && (archive.is_good() || !digits.is_empty())
    });
    archives.pop().with_context(|| match time {
        "" => format!("no archive of {stack} is good"),
        _ => format!("no archive of {stack} is of {time} (`list {stack}` shows all)"),
    })
}

/// `None` for archives of other programs.
pub fn manifest(archive: &Archive) -> Result<Option<Manifest>> {
    let context = || format!("read the manifest of {}", archive.name());
    let json = archive.manifest().with_context(context)?;
    let Some(json) = json else { return Ok(None) };
    let manifest: Manifest = serde_json::from_slice(&json).with_context(context)?;
    check_manifest(&manifest).with_context(context)?;
    Ok(Some(manifest))
}
