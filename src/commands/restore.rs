//! `restore`: replaces a stack, unpacks into a directory, or shows differences.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::find_archive::{PassedOver, is_stack, open_archive, read_manifest};
use super::list::print_members;
use super::load::load_or_default;
use super::look::NEVER;
use super::output::{print, print_differences, print_json, show};
use crate::archive::Manifest;
use crate::cli::{Global, RestoreArgs};
use crate::config::plan::Plan;
use crate::guard;
use crate::metrics;
use crate::outcome::ExitStatus;
use crate::restore::diff::HostTree;
use crate::restore::foreign::guess;
use crate::restore::selection::Selection;
use crate::restore::stack::RestoreOptions;
use crate::restore::{self as restores, Archive, ArchiveFacts, Parts};
use crate::sys::encryption::Identities;
use crate::sys::format::human_bytes;
use crate::sys::lock::{Lock, Operation};
use crate::sys::signals::Signals;

/// How long the question is open.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

pub fn restore(global: &Global, args: &RestoreArgs) -> Result<ExitStatus> {
    let (archive, passed_over) = match (args.from.as_deref(), &args.from_tree) {
        _ if !args.identities.is_empty() => (open_encrypted(args)?, PassedOver::default()),
        (Some("-"), _) => (Archive::stdin(None)?, PassedOver::default()),
        (Some(file), _) => (Archive::open(Path::new(file))?, PassedOver::default()),
        (None, Some(tree)) => (open_tree(args, tree)?, PassedOver::default()),
        (None, None) => open_archive(global, &args.what)?,
    };
    let manifest = read_manifest(&archive)?;
    if args.diff {
        passed_over.check(args.pass_over)?;
        return diff(global, args, &archive, manifest);
    }
    let Some(dir) = &args.to else {
        return restore_stack(global, args, &archive, manifest, &passed_over);
    };
    passed_over.check(args.pass_over || args.dry_run)?;
    let only = Selection::new(&args.only, manifest.as_ref())?;
    if args.dry_run {
        return print_members(global, &archive, &only).map(|()| ExitStatus::Ok);
    }
    let signals = Signals::install()?;
    let summary = restores::to_directory(&archive, dir, &only, args.allow_devices, signals.flag())?;
    tracing::info!(
        members = summary.member_count,
        content = human_bytes(summary.file_bytes),
        path = %dir.display(),
        "restored"
    );
    if global.json {
        print_json(&Unpacked {
            archive: archive.name(),
            dir,
            member_count: summary.member_count,
            file_bytes: summary.file_bytes,
            lacks: &summary.unrestored,
        })?;
    }
    Ok(warn_of_lacks(&summary.unrestored))
}

/// Opens an archive that must be encrypted.
fn open_encrypted(args: &RestoreArgs) -> Result<Archive> {
    let file = args.from.as_deref().unwrap_or(&args.what);
    ensure!(
        args.from.is_some() || !is_stack(file),
        "archives in the store are not encrypted, and --identity needs an archive file: for one \
         in this directory, give ./{file}"
    );
    let identities = Identities::read(&args.identities)?;
    match file {
        "-" => Archive::stdin(Some(&identities)),
        file => Archive::open_encrypted(Path::new(file), &identities),
    }
}

/// Makes an archive of a tree that was copied from a mounted one. Until it is ready a
/// signal ends the program; nothing was done then.
fn open_tree(args: &RestoreArgs, tree: &Path) -> Result<Archive> {
    ensure!(
        is_stack(&args.what) && !args.what.contains('@'),
        "--from-tree DIR needs the name of a stack: `restore STACK --from-tree DIR`"
    );
    restores::archive_of_tree(tree, &args.what, args.allow_damaged, &NEVER)
}

/// What came of unpacking into a directory.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unpacked<'a> {
    archive: String,
    dir: &'a Path,
    member_count: u64,
    file_bytes: u64,
    /// Messages on what could not be restored.
    lacks: &'a [String],
}

fn diff(
    global: &Global,
    args: &RestoreArgs,
    archive: &Archive,
    manifest: Option<Manifest>,
) -> Result<ExitStatus> {
    let only = Selection::new(&args.only, manifest.as_ref())?;
    let places = match &args.to {
        Some(dir) => vec![HostTree {
            prefix: Vec::new(),
            path: Some(dir.clone()),
        }],
        None => {
            let plan = load_or_default(global)?;
            let facts = facts_for_stack(args, &plan, archive, manifest)?;
            restores::host::host_trees(&facts, plan.stack(facts.stack()))?
        }
    };
    let diff = restores::diff::diff(archive, &places, &only, &NEVER)?;
    let is_same = diff.differences.is_empty();
    print_differences(global.json, &diff, || diff.text(), is_same)
}

fn restore_stack(
    global: &Global,
    args: &RestoreArgs,
    archive: &Archive,
    manifest: Option<Manifest>,
    passed_over: &PassedOver,
) -> Result<ExitStatus> {
    let plan = load_or_default(global)?;
    let facts = &facts_for_stack(args, &plan, archive, manifest)?;
    let stack = plan.stack(facts.stack());
    let only = Selection::new(&args.only, facts.manifest())?;
    let parts = Parts::find(archive, &only, &facts.trees())?;
    let options = RestoreOptions {
        state_dir: &plan.state_dir,
        allow_devices: args.allow_devices || is_in_store(args),
        allow_volume_options: args.allow_volume_options || is_in_store(args),
        allow_damaged: args.allow_damaged,
        keep_old: args.keep_old,
        allow_reachable: args.allow_reachable || !args.yes,
        starts: !args.no_start,
        live: args.live,
        create_external: args.create_external,
        parts: &parts,
    };
    let look = || restores::stack::RestorePlan::new(archive, facts, stack, &options);
    // The lock is taken before the question, so that what is answered can be done.
    let _lock = match args.dry_run {
        true => None,
        false => Some(Lock::take(&plan.state_dir, Operation::Restore)?),
    };
    ensure!(
        args.dry_run || !guard::has(&plan.state_dir, facts.stack()),
        "an update of {0} was killed: run `docker-stack-backup recover` first, which rolls it back, \
         or `docker-stack-backup recover --forget {0}`",
        facts.stack()
    );
    let looked = look()?;
    let shown = looked.text();
    let notes: String = passed_over
        .lines()
        .map(|line| format!("  passes over: {line}\n"))
        .collect();
    let preview = format!("{shown}{notes}");
    if args.dry_run {
        match global.json {
            true => print_json(&looked.view())?,
            false => print(&preview)?,
        }
        return Ok(ExitStatus::Ok);
    }
    if let Err(error) = passed_over.check(args.pass_over) {
        show(&preview);
        return Err(error);
    }
    looked.check_reachable()?;
    confirm(args, &preview)?;
    let planned = look()?;
    ensure!(
        planned.text() == shown,
        "the stack changed after the preview was shown; nothing was done, run the command again"
    );
    // Signals are not handled any earlier, so that Ctrl-C ends the question.
    let signals = Signals::install()?;
    let restored = planned.run(&signals);
    if let Err(error) = metrics::update(&plan) {
        tracing::warn!("{error:#}");
    }
    let restored = restored?;
    if global.json {
        print_json(&restored)?;
    }
    for warning in &restored.warnings {
        tracing::warn!("{warning}");
    }
    for path in &restored.old_paths {
        tracing::info!(path = %path.display(), "kept the replaced data");
    }
    tracing::info!(
        services = restored.services.join(" "),
        content = human_bytes(restored.file_bytes),
        downtime_ms = restored.downtime_ms,
        healthy_ms = restored.healthy_ms,
        "restored"
    );
    Ok(warn_of_lacks(&restored.unrestored))
}

/// Shows the preview and asks whether to go on, unless --yes was given.
///
/// # Errors
/// When the answer is not yes, or there is no terminal to ask on.
fn confirm(args: &RestoreArgs, text: &str) -> Result<()> {
    show(text);
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("cannot ask for confirmation without a terminal: give --yes to replace the stack");
    }
    show("Go on? [y/N] ");
    wait_for_answer()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("not confirmed; nothing was done"),
    }
}

/// Waits until there is something to read on standard input.
///
/// # Errors
/// When there is nothing in time. A run that is due waits for the lock that is held meanwhile.
fn wait_for_answer() -> Result<()> {
    let stdin = std::io::stdin();
    let mut watched = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let until = Instant::now() + ANSWER_WITHIN;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(0) => bail!(
                "no answer within {} minutes; nothing was done",
                ANSWER_WITHIN.as_secs() / 60
            ),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the answer"),
        }
    }
}

/// Logs what could not be restored, which makes the restore incomplete.
fn warn_of_lacks(lacks: &[String]) -> ExitStatus {
    for lack in lacks {
        tracing::warn!("not restored: {lack}");
    }
    match lacks {
        [] => ExitStatus::Ok,
        _ => ExitStatus::Incomplete,
    }
}

/// Returns whether the archive is one in the store. Such an archive is trusted,
/// because only root can write there.
fn is_in_store(args: &RestoreArgs) -> bool {
    args.from.is_none() && args.from_tree.is_none() && is_stack(&args.what)
}

/// Returns the archive's manifest. If it has none, guesses what it would say about
/// the stack that is named on the command line.
///
/// # Errors
/// When the archive belongs to another stack, or the stack is not known.
fn facts_for_stack(
    args: &RestoreArgs,
    plan: &Plan,
    archive: &Archive,
    manifest: Option<Manifest>,
) -> Result<ArchiveFacts> {
    if args.from.is_some() {
        let is_stack = is_stack(&args.what) && !args.what.contains('@');
        ensure!(
            is_stack,
            "--from FILE needs the name of a stack: `restore STACK --from FILE`"
        );
    }
    let named = args.what.split('@').next();
    let named = named.filter(|_| is_stack(&args.what));
    match (manifest, named) {
        (Some(manifest), Some(named)) if manifest.stack != named => {
            bail!(
                "{} belongs to the stack {}, not to {named}: unpack it with --to DIR",
                archive.name(),
                manifest.stack
            )
        }
        (Some(manifest), _) => Ok(ArchiveFacts::Described(Box::new(manifest))),
        (None, Some(named)) => {
            let stack = plan.stack(named).with_context(|| {
                format!(
                    "{} has no manifest, and no stack {named} is configured, so its place is not \
                     known: configure the stack, or unpack the archive with --to DIR",
                    archive.name()
                )
            })?;
            guess(archive, stack).map(|guessed| ArchiveFacts::Guessed(Box::new(guessed)))
        }
        (None, None) => bail!(
            "{} has no manifest, so its stack is not known: name the stack (`restore STACK --from \
             FILE`), or unpack the archive with --to DIR",
            archive.name()
        ),
    }
}
