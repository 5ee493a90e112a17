//! The subject of the mail about a run: the whole run in one line.

use crate::outcome::{ExitStatus, HandoverOutcome, RunOutcome, StackOutcome, StackStatus};
use crate::sys::format::{ascii, count, human_bytes, list_names};

/// The greatest length of a subject. Mail programs show less, so the most
/// important words come first.
const MAX_SUBJECT_LENGTH: usize = 150;
/// The greatest length of a tag, a stack's name or a reason in it.
const MAX_PART_LENGTH: usize = 40;
/// How many names are listed before "and 3 more".
pub const MAX_NAMES: usize = 3;

/// Returns the subject of the mail: one line of at most 150 printable ASCII
/// characters.
///
/// `[tag] SUCCESS on nas: 3 stacks backed up, 12.3 GiB`,
/// `[tag] FAILURE on nas: immich IS DOWN; 2 of 3 stacks backed up`.
pub fn run_subject(run: &RunOutcome, tag: &str) -> String {
    let (label, clauses) = headline_parts(run);
    subject_line(tag, format!("{label}{}: {clauses}", on_host(&run.host)))
}

/// Returns ` on HOST`. Mails of several hosts may go to one mailbox.
pub fn on_host(host: &str) -> String {
    match host {
        "" => String::new(),
        host => format!(" on {}", brief(host)),
    }
}

/// Puts the tag in front of a headline, and shortens both where necessary.
pub fn subject_line(tag: &str, headline: String) -> String {
    let tag = brief(tag.trim());
    let subject = match tag.as_str() {
        "" => headline,
        // Some people configure the brackets, too.
        tag if tag.starts_with('[') && tag.ends_with(']') => format!("{tag} {headline}"),
        tag => format!("[{tag}] {headline}"),
    };
    shorten(subject, MAX_SUBJECT_LENGTH)
}

/// Returns the class of the headline in HTML: `good`, `warn` or `bad`.
pub fn tone(run: &RunOutcome) -> &'static str {
    match label(run) {
        _ if run.is_all_well() => "good",
        "SUCCESS" | "WARNING" => "warn",
        _ => "bad",
    }
}

/// Describes the whole run in one line of printable ASCII.
pub fn headline(run: &RunOutcome) -> String {
    let (label, clauses) = headline_parts(run);
    format!("{label}: {clauses}")
}

/// Returns how the run ended, and what that means.
fn headline_parts(run: &RunOutcome) -> (String, String) {
    let label = label(run);
    let interrupted = run.interrupted.as_deref().map(brief);
    let mut clauses = problems(run);
    if label == "FAILURE" {
        match &interrupted {
            Some(reason) => clauses.push(format!("interrupted ({reason})")),
            None if run.finished.is_none() => clauses.push("unfinished".to_owned()),
            None => {}
        }
    }
    clauses.extend(backed_up(run));
    let remark = match label {
        "SUCCESS" | "WARNING" => remarks(run),
        "INTERRUPTED" => interrupted,
        _ => None,
    };
    let label = match remark {
        Some(remark) => format!("{label} ({remark})"),
        None => label.to_owned(),
    };
    (label, clauses.join("; "))
}

fn label(run: &RunOutcome) -> &'static str {
    let failed = |stack: &StackOutcome| match stack.status {
        StackStatus::Ok => false,
        StackStatus::Failed | StackStatus::Down => true,
        StackStatus::NotRun => run.interrupted.is_none() && run.finished.is_some(),
    };
    if run.exit_status() == ExitStatus::StackDown
        || run.stacks.iter().any(failed)
        || run.pruned.iter().any(|pruned| pruned.error.is_some())
        || !run.errors.is_empty()
        || run.handovers.iter().any(HandoverOutcome::has_failed)
        || run.channel_troubles().next().is_some()
    {
        "FAILURE"
    } else if run.interrupted.is_some() {
        "INTERRUPTED"
    } else if run.finished.is_none() {
        "UNFINISHED"
    } else if run.fails_by_warnings() {
        "WARNING"
    } else {
        "SUCCESS"
    }
}

/// Lists what went wrong, the worst first.
fn problems(run: &RunOutcome) -> Vec<String> {
    let mut clauses = Vec::new();
    let mut add = |names: Vec<String>, one: &str, many: &str| match names.len() {
        0 => {}
        1 => clauses.push(format!("{} {one}", names[0])),
        _ => clauses.push(format!("{} {many}", list_names(&names, MAX_NAMES))),
    };
    let with = |status: StackStatus, has_archive: Option<bool>| -> Vec<String> {
        run.stacks
            .iter()
            .filter(|stack| stack.status == status)
            .filter(|stack| has_archive.is_none_or(|has| has == stack.archive.is_some()))
            .map(|stack| brief(&stack.stack))
            .collect()
    };
    add(down(run), "IS DOWN", "ARE DOWN");
    add(with_hooks(run), "is not undone", "are not undone");
    let failed = with(StackStatus::Failed, Some(false));
    add(failed, "not backed up", "not backed up");
    let failed = with(StackStatus::Failed, Some(true));
    add(failed, "backed up with errors", "backed up with errors");
    let not_run = with(StackStatus::NotRun, None);
    add(not_run, "not attempted", "not attempted");
    let pruned = run.pruned.iter().filter(|pruned| pruned.error.is_some());
    let pruned = pruned.map(|pruned| brief(&pruned.stack)).collect();
    add(pruned, "not pruned", "not pruned");
    let handovers = run
        .handovers
        .iter()
        .filter(|handover| handover.has_failed());
    let handovers = handovers
        .map(|handover| brief(&handover.repository))
        .collect();
    add(handovers, "not up to date", "not up to date");
    let channels = run.channel_troubles();
    let channels: Vec<String> = channels.map(|channel| brief(&channel.channel)).collect();
    add(channels, "not reached", "not reached");
    if !run.errors.is_empty() {
        clauses.push(count(run.errors.len() as u64, "other error"));
    }
    clauses
}

/// Returns the names of the stacks with a hook whose effect is not taken back, each once.
fn with_hooks(run: &RunOutcome) -> Vec<String> {
    let in_run = run.stacks.iter().map(|s| (&s.stack, &s.not_undone));
    let recovered = run.recovered.iter().map(|s| (&s.stack, &s.not_undone));
    let mut names: Vec<String> = Vec::new();
    for (stack, _) in in_run
        .chain(recovered)
        .filter(|(_, undos)| !undos.is_empty())
    {
        let name = format!("a hook of {}", brief(stack));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns the names of the stacks that are down, each once.
fn down(run: &RunOutcome) -> Vec<String> {
    let in_run = run.stacks.iter().filter(|s| s.status == StackStatus::Down);
    let recovered = run.recovered.iter().filter(|stack| stack.error.is_some());
    let mut names: Vec<String> = in_run.map(|stack| brief(&stack.stack)).collect();
    for name in recovered.map(|stack| brief(&stack.stack)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Says how many stacks were backed up. Returns `None` where that would only
/// repeat the failure.
fn backed_up(run: &RunOutcome) -> Option<String> {
    let archives: Vec<u64> = run
        .stacks
        .iter()
        .filter_map(|stack| stack.archive.as_ref())
        .map(|archive| archive.archive_bytes)
        .collect();
    let total = run.stacks.len();
    let size = human_bytes(archives.iter().fold(0, |sum, n| sum.saturating_add(*n)));
    match archives.len() {
        0 if total == 0 => Some("no stacks to back up".to_owned()),
        0 if total == 1 => None,
        0 => Some(format!("none of {total} stacks backed up")),
        n if n == total => {
            let stacks = count(n as u64, "stack");
            Some(format!("{stacks} backed up, {size}"))
        }
        n => Some(format!("{n} of {total} stacks backed up, {size}")),
    }
}

/// Counts what is not a failure but deserves attention.
fn remarks(run: &RunOutcome) -> Option<String> {
    let warnings = run.warnings().len();
    let mut remarks = Vec::new();
    if !run.recovered.is_empty() {
        let stacks = count(run.recovered.len() as u64, "stack");
        remarks.push(format!("{stacks} recovered"));
    }
    if warnings > 0 {
        remarks.push(count(warnings as u64, "warning"));
    }
    (!remarks.is_empty()).then(|| remarks.join(", "))
}

fn brief(text: &str) -> String {
    shorten(ascii(text), MAX_PART_LENGTH)
}

/// Shortens a text, which must be ASCII.
fn shorten(mut text: String, length: usize) -> String {
    if text.len() > length {
        text.truncate(length - 3);
        text.push_str("...");
    }
    text
}
