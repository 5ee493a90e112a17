//! `list`: the archives in the store, or the members of one archive.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::find_archive::{self, StackAt, is_path};
use super::left_down::print_left_down;
use super::load::load;
use super::look::LookedInto;
use super::output::{print, print_json, print_json_field, print_plain, table};
use crate::archive::tree::{ArchiveTree, ListedMember};
use crate::archive::{self, Manifest};
use crate::cli::Global;
use crate::config::StopMethod;
use crate::config::plan::Plan;
use crate::outcome::{ExitStatus, FORMAT_VERSION};
use crate::restore::selection::Selection;
use crate::restore::{Archive, listing};
use crate::store::checks::{Check, Checks};
use crate::store::{Store, StoredArchive, identity, prune};
use crate::sys::format::{human_bytes, human_duration, json_without_commands};
use crate::sys::time::OffsetTime;

/// An archive in the store, with what its manifest and its checks say.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArchiveView {
    stack: String,
    path: PathBuf,
    /// When the backup began, by the local clock of the machine that made it.
    time: OffsetTime,
    archive_bytes: u64,
    complete: bool,
    damaged: bool,
    /// The stack that the archive is of by its manifest, if it is another one.
    other_stack: Option<String>,
    verified: Option<Check>,
    drilled: Option<Check>,
    /// The rules of retention that keep the archive, or why none does; empty if
    /// the stack is not configured.
    retention: Vec<String>,
    /// This and the following fields are `null` if there is no manifest.
    content_bytes: Option<u64>,
    downtime_ms: Option<u64>,
    changed_count: Option<u64>,
    /// Whether the stack was paused, and not stopped, while it was archived.
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
            other_stack: archive.other_stack().map(str::to_owned),
            path: archive.path,
            time: archive.time,
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

    fn row(&self, now: &OffsetTime) -> [String; 9] {
        let note = match (self.complete, self.damaged, self.changed_count) {
            (false, ..) => "INCOMPLETE".to_owned(),
            (true, true, _) => "DAMAGED".to_owned(),
            (true, false, None) => "without a manifest".to_owned(),
            (true, false, Some(0)) if self.crash_consistent == Some(true) => {
                "crash-consistent".to_owned()
            }
            (true, false, Some(0)) => String::new(),
            (true, false, Some(count)) => format!("{count} files changed while they were read"),
        };
        let note = match &self.other_stack {
            Some(other) => format!("OF THE STACK {other}"),
            None if self.time > *now => "DATED IN THE FUTURE".to_owned(),
            None => note,
        };
        let check = |check: &Option<Check>| match check {
            None => "-".to_owned(),
            Some(check) if check.problems.is_empty() => {
                let part = if check.partial { "part, " } else { "" };
                format!("{part}{}", age(now, &check.time))
            }
            Some(_) => "FAILED".to_owned(),
        };
        [
            self.stack.clone(),
            self.time.strftime("%F %T").to_string(),
            age(now, &self.time),
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
    json.map(|json| serde_json::from_slice(&json).context("cannot parse the manifest"))
        .transpose()
}

pub(super) fn age(now: &OffsetTime, then: &OffsetTime) -> String {
    let hours = now.duration_since(then).as_hours();
    match hours {
        ..0 => "future".to_owned(),
        0..48 => format!("{hours} h"),
        _ => format!("{} d", hours / 24),
    }
}

pub fn list(global: &Global, what: &[String], paths: bool) -> Result<ExitStatus> {
    if let Some((archive, names)) = what.split_first()
        && is_path(archive)
    {
        return list_members(global, archive, names);
    }
    let plan = load(global)?;
    if !paths {
        print_left_down(global, &plan)?;
    }
    let store = Store::open(&plan.backup_dir)?;
    let wanted = match what {
        [] => store.stacks()?,
        wanted => wanted.to_vec(),
    };
    let mut views = Vec::new();
    for wanted in &wanted {
        let wanted = StackAt::parse(wanted)?;
        let reasons = retention_reasons(&plan, &store, wanted.stack)?;
        for archive in wanted.archives(&plan, &store)? {
            let checks = Checks::of(&store, &archive.name).unwrap_or_else(|error| {
                tracing::warn!(path = %archive.path.display(), "{error:#}");
                Checks::default()
            });
            let reasons = reasons.get(&archive.path).cloned().unwrap_or_default();
            views.push(ArchiveView::of(archive, checks, reasons));
        }
    }
    if global.json {
        print_json_field("archives", &views)?;
    } else if paths {
        let lines = views
            .iter()
            .map(|view| format!("{}\n", view.path.display()));
        print_plain(&lines.collect::<String>())?;
    } else if views.is_empty() {
        identity::check(&plan)?;
        tracing::info!(path = %plan.backup_dir.display(), "no archives");
    } else {
        let now = OffsetTime::now();
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

fn list_members(global: &Global, archive: &str, names: &[String]) -> Result<ExitStatus> {
    let archive = Archive::open(Path::new(archive))?;
    let manifest = find_archive::read_manifest(&archive)?;
    let only = Selection::new(names, manifest.as_ref())?;
    print_members(global, &archive, &only).map(|()| ExitStatus::Ok)
}

/// Prints the paths of the selected members of an archive.
pub(super) fn print_members(global: &Global, archive: &Archive, only: &Selection) -> Result<()> {
    #[derive(Serialize)]
    struct Members {
        archive: String,
        members: Vec<String>,
    }
    let members = listing(archive, only)?;
    if global.json {
        let archive = archive.name();
        return print_json(&Members { archive, members });
    }
    let lines = members.iter().map(|member| format!("{member}\n"));
    print_plain(&lines.collect::<String>())
}

/// Prints what an archive holds, or those of its members that are named, as a tree.
pub fn list_tree(
    global: &Global,
    what: &[String],
    depth: Option<usize>,
    pass_over: bool,
) -> Result<ExitStatus> {
    let Some((archive, names)) = what.split_first() else {
        bail!("--tree needs an archive: `list --tree STACK`");
    };
    let looked = LookedInto::open(global, archive, pass_over)?;
    let tops = match names {
        [] => vec![(ArchiveTree::ROOT, Vec::new())],
        names => {
            let tops = names.iter().map(|name| looked.find(Path::new(name)));
            tops.collect::<Result<_>>()?
        }
    };
    let mut printer = TreePrinter::new(global.json, &looked.name())?;
    for (top, path) in tops {
        let depth = depth.unwrap_or(usize::MAX);
        looked
            .tree
            .list(top, &path, depth, |member| printer.add(member))?;
    }
    printer.finish().map(|()| ExitStatus::Ok)
}

/// Prints members as they come: an archive may have millions.
struct TreePrinter {
    is_json: bool,
    text: String,
    is_first: bool,
}

impl TreePrinter {
    fn new(is_json: bool, archive: &str) -> Result<TreePrinter> {
        let text = match is_json {
            true => {
                let archive = json_without_commands(&serde_json::to_string(archive)?);
                let version = FORMAT_VERSION;
                format!("{{\"formatVersion\": {version}, \"archive\": {archive}, \"members\": [\n")
            }
            false => String::new(),
        };
        Ok(TreePrinter {
            is_json,
            text,
            is_first: true,
        })
    }

    fn add(&mut self, member: &ListedMember<'_>) -> Result<()> {
        if self.is_json {
            let separator = if self.is_first { "  " } else { ",\n  " };
            self.text.push_str(separator);
            let json = serde_json::to_string(member)?;
            self.text.push_str(&json_without_commands(&json));
        } else {
            self.text.push_str(&member.line());
        }
        self.is_first = false;
        if self.text.len() > 64 << 10 {
            print(&std::mem::take(&mut self.text))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if self.is_json {
            self.text.push_str("\n]}\n");
        }
        print(&self.text)
    }
}

/// Returns the reasons of retention for each archive of a stack, by the
/// archive's path.
fn retention_reasons(
    plan: &Plan,
    store: &Store,
    stack: &str,
) -> Result<HashMap<PathBuf, Vec<String>>> {
    let Some(policy) = plan
        .retention
        .as_ref()
        .filter(|_| plan.stack(stack).is_some())
    else {
        return Ok(HashMap::new());
    };
    let pruning = prune::Pruning::of(store, policy, stack, &OffsetTime::now())?;
    Ok(pruning
        .decisions
        .into_iter()
        .map(|(archive, decision)| (archive.path, decision.reasons))
        .collect())
}
