//! The sections of a run's report on archives, coverage, drills, retention, the
//! store and the time that each phase took.

use std::path::Path;

use super::page::Page;
use crate::config::Capture;
use crate::outcome::{
    ArchiveOutcome, CaptureOutcome, HandoverOutcome, MountCoverage, PrunedStack, RunOutcome,
    StackOutcome,
};
use crate::sys::format::{ascii, ascii_path, count, human_bytes, human_duration};

/// A shorter wait for health is not worth a line.
const HEALTH_WAIT_MS: u64 = 100;

/// Lists the new archives, with their sizes and what they hold.
pub fn archives(page: &mut Page, run: &RunOutcome) {
    let stacks = run.stacks.iter();
    let archives: Vec<(&StackOutcome, &ArchiveOutcome)> = stacks
        .filter_map(|stack| Some((stack, stack.archive.as_ref()?)))
        .collect();
    if archives.is_empty() {
        return;
    }
    page.section(&format!("ARCHIVES in {}", ascii_path(&run.backup_dir)));
    let indent = "              ";
    for (stack, archive) in &archives {
        sized(page, archive.archive_bytes, &in_store(run, &archive.path));
        page.line(indent, &content(archive));
        let mounts = stack.coverage.iter().filter(|mount| mount.archived);
        for mount in mounts {
            let held = match &mount.reason {
                Some(reason) => format!("{} ({reason})", mount.label()),
                None => mount.label(),
            };
            page.line(indent, &held);
        }
    }
    if archives.len() > 1 {
        let bytes = archives.iter().map(|(_, archive)| archive.archive_bytes);
        sized(page, sum(bytes), "in total");
    }
}

/// Lists the hooks that ran, each with the end of its output.
pub fn hooks(page: &mut Page, run: &RunOutcome) {
    let stacks = run.stacks.iter();
    let hooks = stacks.flat_map(|stack| stack.hooks.iter().map(move |hook| (stack, hook)));
    for (i, (stack, hook)) in hooks.enumerate() {
        if i == 0 {
            page.section("HOOKS");
        }
        let result = match hook.error {
            Some(_) => "FAILED",
            None => "ok",
        };
        let duration = human_duration(hook.duration_ms);
        let label = hook.label();
        page.line(
            "  ",
            &format!("{}: {label}: {result}, {duration}", stack.stack),
        );
        for line in &hook.output {
            page.literal("      ", 8, line);
        }
    }
}

/// Lists what was done with each repository elsewhere.
pub fn handovers(page: &mut Page, run: &RunOutcome) {
    let has_news =
        |handover: &&HandoverOutcome| !handover.steps.is_empty() || handover.waiting_count > 0;
    for (i, handover) in run.handovers.iter().filter(has_news).enumerate() {
        if i == 0 {
            page.section("OFF-SITE");
        }
        for step in &handover.steps {
            let result = match step.error {
                Some(_) => "FAILED",
                None => "ok",
            };
            let (label, duration) = (step.label(), human_duration(step.duration_ms));
            let name = &handover.repository;
            page.line("  ", &format!("{name}: {label}: {result}, {duration}"));
        }
        if handover.waiting_count > 0 {
            let archives = count(handover.waiting_count, "archive");
            let name = &handover.repository;
            page.line(
                "  ",
                &format!("{name}: {archives} waiting for the next time"),
            );
        }
    }
}

/// Adds a line `   12.3 GiB  <what>`.
fn sized(page: &mut Page, bytes: u64, what: &str) {
    let size = format!("  {:>10}  ", human_bytes(bytes));
    page.item(&size, size.len(), what);
}

fn content(archive: &ArchiveOutcome) -> String {
    let content = human_bytes(archive.content_bytes);
    let mut parts = vec![format!(
        "{content} in {}",
        count(archive.member_count, "member")
    )];
    if archive.socket_count > 0 {
        let sockets = count(archive.socket_count, "socket");
        parts.push(format!("{sockets} left out"));
    }
    if archive.excluded_count > 0 {
        parts.push(format!("{} excluded", archive.excluded_count));
    }
    if archive.crash_consistent {
        parts.push("crash-consistent (paused, not stopped)".to_owned());
    }
    if archive.changed_count > 0 {
        let files = count(archive.changed_count, "file");
        parts.push(format!("{files} CHANGED WHILE READ"));
    }
    parts.join(", ")
}

fn in_store(run: &RunOutcome, path: &Path) -> String {
    ascii_path(path.strip_prefix(&run.backup_dir).unwrap_or(path))
}

/// Lists the mounts that no archive holds and of which no report has told before,
/// with the reason.
pub fn new_holes(page: &mut Page, run: &RunOutcome) {
    holes(page, run, "NEW: NOT IN THE ARCHIVES", |mount| mount.is_new);
}

/// Lists the other mounts that no archive holds, with the reason.
pub fn not_covered(page: &mut Page, run: &RunOutcome) {
    holes(page, run, "NOT IN THE ARCHIVES", |mount| {
        mount.is_hole() && !mount.is_new
    });
}

fn holes(page: &mut Page, run: &RunOutcome, title: &str, counts: fn(&MountCoverage) -> bool) {
    let mut titled = false;
    for stack in &run.stacks {
        for mount in stack.coverage.iter().filter(|mount| counts(mount)) {
            if !titled {
                page.section(title);
                titled = true;
            }
            page.line("  ", &format!("{}: {}", stack.stack, mount.hole()));
        }
    }
}

/// Lists the last drill of each stack, if there was ever one of any.
pub fn drills(page: &mut Page, run: &RunOutcome) {
    if run.stacks.iter().all(|stack| stack.drilled.is_none()) {
        return;
    }
    page.section("LAST DRILLS");
    for stack in &run.stacks {
        let last = match &stack.drilled {
            None => "never".to_owned(),
            Some(drill) => {
                let result = match (&drill.skipped, drill.problems.as_slice()) {
                    (Some(reason), _) => format!("skipped, {reason}"),
                    (None, []) => "healthy".to_owned(),
                    (None, _) => "FAILED".to_owned(),
                };
                let time = drill.time.strftime("%F %H:%M");
                let skipped = drill.skipped_later.as_ref().map(|skipped| {
                    let time = skipped.time.strftime("%F %H:%M");
                    format!("; {time} skipped, {}", skipped.reason)
                });
                format!(
                    "{time} {result} ({}){}",
                    in_store(run, &drill.archive),
                    skipped.unwrap_or_default()
                )
            }
        };
        page.line("  ", &format!("{}: {last}", stack.stack));
    }
}

/// Lists the archives that retention removed.
pub fn retention(page: &mut Page, run: &RunOutcome) {
    if run.pruned.is_empty() {
        return;
    }
    let removed = || run.pruned.iter().flat_map(|stack| &stack.removed);
    let title = format!(
        "RETENTION: {} removed, {} freed, {} kept",
        count(removed().count() as u64, "archive"),
        human_bytes(sum(removed().map(|archive| archive.archive_bytes))),
        sum(run.pruned.iter().map(|stack| stack.kept_count)),
    );
    page.section(&title);
    for stack in &run.pruned {
        page.line("  ", &pruned_line(stack));
        for archive in &stack.removed {
            let path = in_store(run, &archive.path);
            let what = format!("{path}: {}", archive.reason);
            sized(page, archive.archive_bytes, &what);
        }
    }
}

fn pruned_line(pruned: &PrunedStack) -> String {
    let failed = match pruned.error {
        Some(_) => ", NOT FULLY PRUNED",
        None => "",
    };
    format!(
        "{}: {} kept, {} removed{failed}",
        pruned.stack,
        pruned.kept_count,
        pruned.removed.len()
    )
}

/// Shows how full the store and its file system are.
pub fn store(page: &mut Page, run: &RunOutcome) {
    let Some(usage) = &run.store else { return };
    let (total, available) = (
        usage.file_system_total_bytes,
        usage.file_system_available_bytes,
    );
    let used = total.saturating_sub(available);
    let percent = (u128::from(used) * 100).div_ceil(u128::from(total.max(1)));
    page.section(&format!("STORE {}", ascii_path(&run.backup_dir)));
    let archives = count(usage.archive_count, "archive");
    let size = human_bytes(usage.archive_bytes);
    page.line("  ", &format!("{archives}, {size}"));
    let line = format!(
        "file system: {} of {} used ({percent} %), {} available",
        human_bytes(used),
        human_bytes(total),
        human_bytes(available),
    );
    page.line("  ", &line);
}

/// Lists the duration of each phase, and how the data was read.
pub fn phases(page: &mut Page, run: &RunOutcome) {
    let stacks = || run.stacks.iter().filter(|stack| !stack.phases.is_empty());
    let width = stacks().map(|stack| ascii(&stack.stack).len()).max();
    let Some(width) = width else { return };
    let width = width.min(20);
    page.section("PHASES");
    for stack in stacks() {
        let label = format!("  {:width$}  ", ascii(&stack.stack));
        let phases: Vec<String> = stack
            .phases
            .iter()
            .map(|phase| {
                let name = phase.phase.name();
                format!("{name} {}", human_duration(phase.duration_ms))
            })
            .collect();
        page.list(&label, width + 4, &phases);
        if let Some(line) = health_line(stack) {
            page.line(&" ".repeat(width + 4), &line);
        }
        if let Some(capture) = &stack.capture {
            page.line(&" ".repeat(width + 4), &capture_line(capture));
        }
    }
}

/// Tells when the stack was healthy, if it was not at once when it ran.
fn health_line(stack: &StackOutcome) -> Option<String> {
    let waited_ms = stack.healthy_ms?.checked_sub(stack.downtime_ms?)?;
    let waited = human_duration(waited_ms);
    (waited_ms >= HEALTH_WAIT_MS).then(|| format!("healthy {waited} after its downtime"))
}

fn capture_line(capture: &CaptureOutcome) -> String {
    let down = human_bytes(capture.down_bytes);
    let mut line = match capture.method {
        Capture::Precopy => format!("copied while the stack was up, {down} while it was down"),
        Capture::Offline => format!("{down} copied while the stack was down"),
    };
    if capture.shared_bytes > 0 {
        line += &format!(
            ", {} shared with the stack's files",
            human_bytes(capture.shared_bytes)
        );
    }
    if capture.refused_count > 0 {
        line += &format!(
            ", {} could not be shared",
            count(capture.refused_count, "file")
        );
    }
    match &capture.reason {
        Some(reason) => format!("{line} ({reason})"),
        None => line,
    }
}

/// Adds numbers; a sum that is too large becomes the largest number.
pub fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
