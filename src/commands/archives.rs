//! The commands about archives that are there: `list` and `verify`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::ZonedDateTime;
use jiff::civil::DateTime;
use serde::Serialize;

use super::inspect::table;
use super::restore::{is_path, manifest};
use super::{load, print, print_json};
use crate::archive::verify::{self as verifying, Verified};
use crate::archive::{self, Manifest};
use crate::cli::Global;
use crate::config::StopMethod;
use crate::config::plan::Plan;
use crate::outcome::ExitStatus;
use crate::restore::pick::Only;
use crate::restore::{Archive, listing};
use crate::store::checks::{Check, Checks};
use crate::store::prune;
use crate::store::{Beside, Store, StoredArchive};
use crate::sys::format::{human_bytes, human_duration};
use crate::sys::lock::{Lock, Operation};
use crate::sys::signals::Signals;

/// An archive in the store, what its manifest says of it, and what else is
/// known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArchiveView {
    stack: String,
    path: PathBuf,
    /// Local time, from the name.
    time: DateTime,
    archive_bytes: u64,
    complete: bool,
    damaged: bool,
    verified: Option<Check>,
    drilled: Option<Check>,
    /// Rules of retention that keep it, or why none does; empty for stacks
    /// that are not configured.
    retention: Vec<String>,
    /// All that follows is `null` for archives of the script.
    content_bytes: Option<u64>,
    downtime_ms: Option<u64>,
    changed_count: Option<u64>,
    /// Made of a paused stack.
    crash_consistent: Option<bool>,
    running: Option<Vec<String>>,
}

impl ArchiveView {
    fn of(archive: StoredArchive, checks: Checks, retention: Vec<String>) -> ArchiveView {
        let manifest = read_manifest(&archive).unwrap_or_else(|error| {
            tracing::warn!(path = %archive.path.display(), "{error:#}");
            None
        });
        ArchiveView {
            stack: archive.name.stack.clone(),
            path: archive.path,
            time: archive.name.time,
            archive_bytes: archive.archive_bytes,
            complete: archive.complete,
            damaged: archive.damaged,
            verified: checks.verified,
            drilled: checks.drilled,
            retention,
            content_bytes: manifest.as_ref().map(|m| m.content_bytes),
            downtime_ms: manifest.as_ref().and_then(|m| m.downtime_ms),
            changed_count: manifest.as_ref().map(|m| m.changed_count),
            crash_consistent: manifest
                .as_ref()
                .map(|m| m.stop_method == StopMethod::Pause && !m.running.is_empty()),
            running: manifest.map(|m| m.running),
        }
    }

    fn row(&self, now: &ZonedDateTime) -> [String; 9] {
        let note = match (self.complete, self.damaged, self.changed_count) {
            (false, ..) => "INCOMPLETE".to_owned(),
            (true, true, _) => "DAMAGED".to_owned(),
            (true, false, None) => "without a manifest".to_owned(),
            (true, false, Some(0)) if self.crash_consistent == Some(true) => {
                "crash-consistent".to_owned()
            }
            (true, false, Some(0)) => String::new(),
            (true, false, Some(count)) => format!("{count} files changed while read"),
        };
        let check = |check: &Option<Check>| match check {
            None => "-".to_owned(),
            Some(check) if check.problems.is_empty() => {
                format!("{} ago", age(now.datetime(), check.time.datetime()))
            }
            Some(_) => "FAILED".to_owned(),
        };
        [
            self.stack.clone(),
            self.time.strftime("%F %T").to_string(),
            age(now.datetime(), self.time),
            human_bytes(self.archive_bytes),
            self.downtime_ms
                .map_or_else(|| "-".to_owned(), human_duration),
            check(&self.verified),
            check(&self.drilled),
            self.retention.join(", "),
            note,
        ]
    }
}

fn read_manifest(archive: &StoredArchive) -> Result<Option<Manifest>> {
    let file = File::open(&archive.path)?;
    let json = archive::read_manifest(&file)?;
    json.map(|json| serde_json::from_slice(&json).context("understand the manifest"))
        .transpose()
}

fn age(now: DateTime, then: DateTime) -> String {
    let hours = now.duration_since(then).as_hours();
    match hours {
        ..0 => "future".to_owned(),
        0..48 => format!("{hours} h"),
        _ => format!("{} d", hours / 24),
    }
}

pub fn list(global: &Global, what: &[String]) -> Result<ExitStatus> {
    if let Some((archive, names)) = what.split_first()
        && is_path(archive)
    {
        return list_members(archive, names);
    }
    let plan = load(global)?;
    let store = Store::open(&plan.backup_dir)?;
    let stacks = match what {
        [] => store.stacks()?,
        stacks => stacks.to_vec(),
    };
    let mut views = Vec::new();
    for stack in &stacks {
        let reasons = retention_reasons(&plan, &store, stack)?;
        for archive in store.list(stack)? {
            let checks = Checks::of(&store, &archive.name).unwrap_or_else(|error| {
                tracing::warn!(path = %archive.path.display(), "{error:#}");
                Checks::default()
            });
            let reasons = reasons.get(&archive.path).cloned().unwrap_or_default();
            views.push(ArchiveView::of(archive, checks, reasons));
        }
    }
    if global.json {
        print_json(&views)?;
    } else if views.is_empty() {
        tracing::info!(path = %plan.backup_dir.display(), "no archives");
    } else {
        let now = ZonedDateTime::now();
        let header = [
            "STACK",
            "TIME",
            "AGE",
            "SIZE",
            "DOWNTIME",
            "VERIFIED",
            "DRILLED",
            "RETENTION",
            "",
        ];
        let rows: Vec<_> = std::iter::once(header.map(str::to_owned))
            .chain(views.iter().map(|view| view.row(&now)))
            .collect();
        print(&table(&rows))?;
    }
    Ok(ExitStatus::Ok)
}

fn list_members(archive: &str, names: &[String]) -> Result<ExitStatus> {
    let archive = Archive::open(Path::new(archive))?;
    let manifest = manifest(&archive)?;
    let only = Only::new(names, manifest.as_ref())?;
    print(&listing(&archive, &only)?).map(|()| ExitStatus::Ok)
}

/// By the archive's path.
fn retention_reasons(
    plan: &Plan,
    store: &Store,
    stack: &str,
) -> Result<HashMap<PathBuf, Vec<String>>> {
    let Some(policy) = &plan.retention else {
        return Ok(HashMap::new());
    };
    if !plan
        .stacks
        .iter()
        .any(|configured| configured.name == *stack)
    {
        return Ok(HashMap::new());
    }
    let now = ZonedDateTime::now().datetime();
    let decisions = prune::decisions(store, policy, stack, now)?;
    Ok(decisions
        .into_iter()
        .map(|(archive, decision)| (archive.path, decision.reasons))
        .collect())
}

/// An archive to be verified; with its name if it is one in the store.
struct Candidate {
    path: PathBuf,
    stored: Option<StoredArchive>,
}

pub fn verify(global: &Global, what: &[String]) -> Result<ExitStatus> {
    let files_only = !what.is_empty() && what.iter().all(|name| is_path(name));
    let (store, _lock) = match load(global) {
        Ok(plan) => {
            let lock = Lock::take(&plan.state_dir, Operation::Verify)?;
            (Store::open(&plan.backup_dir).ok(), Some(lock))
        }
        // A file needs no configuration.
        Err(_) if files_only => (None, None),
        Err(error) => return Err(error),
    };
    let signals = Signals::install()?;
    let mut found = Vec::new();
    for candidate in candidates(store.as_ref(), what)? {
        signals.check()?;
        let verified = verify_one(store.as_ref(), &candidate, &signals)?;
        if !global.json {
            print(&text(&verified))?;
        }
        found.push(verified);
    }
    if global.json {
        print_json(&found)?;
    }
    Ok(
        match found.iter().all(|verified| verified.problems.is_empty()) {
            true => ExitStatus::Ok,
            false => ExitStatus::Incomplete,
        },
    )
}

fn candidates(store: Option<&Store>, what: &[String]) -> Result<Vec<Candidate>> {
    let of_stack = |stack: &str| -> Result<Vec<StoredArchive>> {
        let store = store.context("there is no store yet")?;
        store.list(stack)
    };
    let mut all = Vec::new();
    let names = match what {
        [] => store.context("there is no store yet")?.stacks()?,
        names => names.to_vec(),
    };
    for name in &names {
        if !is_path(name) {
            let archives = of_stack(name)?;
            if archives.is_empty() && !what.is_empty() {
                bail!("there is no archive of a stack {name}");
            }
            all.extend(archives.into_iter().map(|archive| Candidate {
                path: archive.path.clone(),
                stored: Some(archive),
            }));
            continue;
        }
        let path = fs::canonicalize(name).with_context(|| format!("find {name}"))?;
        let dir = path.parent().and_then(Path::file_name).unwrap_or_default();
        let same = dir
            .to_str()
            .and_then(|stack| of_stack(stack).ok())
            .unwrap_or_default();
        let stored = same
            .into_iter()
            .find(|archive| fs::canonicalize(&archive.path).is_ok_and(|p| p == path));
        all.push(Candidate { path, stored });
    }
    Ok(all)
}

fn verify_one(store: Option<&Store>, candidate: &Candidate, signals: &Signals) -> Result<Verified> {
    let path = candidate.path.clone();
    let context = || format!("verify {}", path.display());
    let file = File::open(&path).with_context(context)?;
    let place = store.zip(candidate.stored.as_ref());
    let sums = match place {
        Some((store, archive)) => store.read_beside(&archive.name, Beside::Sums)?,
        None => fs::read(path.with_extension("sums")).ok(),
    };
    let mut verified = verifying::verify(path.clone(), &file, sums.as_deref(), signals.flag())
        .with_context(context)?;
    if let Some((store, archive)) = place {
        if let Some(sums) = &verified.missing_sums {
            store.write_beside(&archive.name, Beside::Sums, |out| sums.write(out))?;
            verified
                .notes
                .push("they were made now: from here on, damage is told by the file".to_owned());
        }
        let mut checks = Checks::of(store, &archive.name).unwrap_or_default();
        checks.verified = Some(Check::now(&verified.problems));
        checks.write(store, &archive.name)?;
    }
    Ok(verified)
}

fn text(verified: &Verified) -> String {
    let word = if verified.problems.is_empty() {
        "ok     "
    } else {
        "DAMAGED"
    };
    let mut text = format!(
        "{word} {} ({}, {} members)\n",
        verified.path.display(),
        human_bytes(verified.archive_bytes),
        verified.member_count
    );
    for line in verified.problems.iter().chain(&verified.notes) {
        text.push_str(&format!("        {line}\n"));
    }
    text
}
