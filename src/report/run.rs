//! The report of a run: first what went wrong, then what was done, then the log.

use super::details;
use super::page::{PHONE_WIDTH, Page, WIDTH};
use super::subject::{headline, tone};
use crate::outcome::{
    ChannelOutcome, ChannelStatus, Failure, HandoverOutcome, RecoveredStack, RunOutcome,
    StackOutcome, StackStatus,
};
use crate::sys::format::{ascii, human_bytes, human_duration};
use crate::sys::time::OffsetTime;

/// Returns the whole report: printable ASCII and newlines, at most 72 columns, and fewer on
/// a terminal that has fewer.
pub fn run_text(run: &RunOutcome, terminal_width: Option<usize>) -> String {
    let width = terminal_width.map_or(WIDTH, |width| width.clamp(PHONE_WIDTH, WIDTH));
    page(run, [width, width], &[], true).finish()
}

/// Returns the report for a mail, with or without the log. The first screen, which says
/// what failed, what to do and how each stack fares, has at most 40 columns. It begins
/// with what there is to say about the mail itself.
pub fn mail_text(run: &RunOutcome, notices: &[String], with_log: bool) -> String {
    page(run, [PHONE_WIDTH, WIDTH], notices, with_log).finish()
}

/// Returns the same as HTML.
pub fn mail_html(run: &RunOutcome, notices: &[String], with_log: bool) -> String {
    page(run, [PHONE_WIDTH, WIDTH], notices, with_log).finish_html()
}

/// `widths` are those of the first screen and of the rest.
fn page(run: &RunOutcome, widths: [usize; 2], notices: &[String], with_log: bool) -> Page {
    let mut page = Page::new(widths[0]);
    page.headline(&headline(run), tone(run));
    page.line("", &when_and_where(run));
    page.notices(notices);
    problems(&mut page, run);
    stacks(&mut page, run);
    details::new_holes(&mut page, run);
    page.set_width(widths[1]);
    details::archives(&mut page, run);
    details::hooks(&mut page, run);
    details::not_covered(&mut page, run);
    details::drills(&mut page, run);
    details::handovers(&mut page, run);
    details::retention(&mut page, run);
    details::store(&mut page, run);
    details::phases(&mut page, run);
    if with_log {
        log(&mut page, run);
    }
    page.footer(&format!(
        "{} {}",
        env!("CARGO_PKG_NAME"),
        run.program_version
    ));
    page
}

/// Returns the first screen for a notification, whose title is the headline. Lines are
/// not broken, because telephones do that.
pub fn brief_text(run: &RunOutcome, notices: &[String]) -> String {
    let mut page = Page::new(usize::from(u16::MAX));
    page.notices(notices);
    problems(&mut page, run);
    page.section("STACKS");
    for stack in &run.stacks {
        let [name, status, archive, down] = stack_row(stack);
        let down = match stack.downtime_ms {
            Some(_) => format!(", down {down}"),
            None => String::new(),
        };
        page.line("", &format!("{name}: {status}, {archive}{down}"));
    }
    details::new_holes(&mut page, run);
    page.brief()
}

fn problems(page: &mut Page, run: &RunOutcome) {
    failures(page, run);
    try_again(page, run);
    warnings(page, run);
    recovered(page, run);
}

fn when_and_where(run: &RunOutcome) -> String {
    let started = run.started.strftime("%Y-%m-%d %H:%M:%S %:z");
    match &run.finished {
        Some(finished) => {
            let duration = human_duration(duration_ms(&run.started, finished));
            format!("{}, {started}, took {duration}", run.host)
        }
        None => format!("{}, {started}, not finished", run.host),
    }
}

fn duration_ms(started: &OffsetTime, finished: &OffsetTime) -> u64 {
    let duration = finished.duration_since(started);
    u64::try_from(duration.as_millis()).unwrap_or(0)
}

fn failures(page: &mut Page, run: &RunOutcome) {
    let lines = failure_lines(run);
    if !lines.is_empty() {
        page.section("FAILURES");
    }
    for line in lines {
        page.line("  ", &line);
    }
}

fn failure_lines(run: &RunOutcome) -> Vec<String> {
    let mut lines = Vec::new();
    let (down, others): (Vec<_>, Vec<_>) = run
        .stacks
        .iter()
        .partition(|stack| stack.status == StackStatus::Down);
    for stack in &down {
        lines.push(is_down_line(&stack.stack, &stack.services));
        lines.extend(stack_failure_lines(stack));
    }
    for stack in &run.recovered {
        if let Some(error) = &stack.error {
            lines.push(is_down_line(&stack.stack, &stack.services));
            lines.push(format!("{}: recover: {error}", stack.stack));
        }
        let undos = stack.not_undone.iter();
        lines.extend(undos.map(|error| format!("{}: recover: {error}", stack.stack)));
    }
    for stack in &others {
        lines.extend(stack_failure_lines(stack));
        if stack.status == StackStatus::Failed && stack.failures.is_empty() {
            lines.push(format!("{}: no reason recorded", stack.stack));
        }
    }
    if let Some(reason) = &run.interrupted {
        lines.push(format!("the run was interrupted: {reason}"));
    }
    let not_run = others.iter().filter(|s| s.status == StackStatus::NotRun);
    let not_run: Vec<&str> = not_run.map(|stack| stack.stack.as_str()).collect();
    if !not_run.is_empty() {
        lines.push(format!("not attempted: {}", not_run.join(", ")));
    }
    for stack in &run.pruned {
        if let Some(error) = &stack.error {
            lines.push(format!("{}: prune: {error}", stack.stack));
        }
    }
    lines.extend(run.handovers.iter().flat_map(HandoverOutcome::failures));
    lines.extend(run.channel_troubles().map(channel_line));
    lines.extend(run.errors.iter().cloned());
    lines
}

fn channel_line(channel: &ChannelOutcome) -> String {
    let error = channel.error.as_deref().unwrap_or_default();
    let (verb, then) = match channel.status {
        ChannelStatus::Sent => ("not sent to everybody", ""),
        ChannelStatus::Waiting => ("not sent yet", "; it is kept, and sent later"),
        ChannelStatus::Lost => ("not sent", ""),
    };
    format!("{}: {verb}: {error}{then}", channel.channel)
}

/// Names the commands that do what was not done, for when its cause is gone.
fn try_again(page: &mut Page, run: &RunOutcome) {
    let is_left = |stack: &&StackOutcome| {
        let status = stack.status;
        status == StackStatus::NotRun || status == StackStatus::Failed && stack.archive.is_none()
    };
    let stacks: Vec<&str> = run
        .stacks
        .iter()
        .filter(is_left)
        .map(|s| &*s.stack)
        .collect();
    let pruned = run.pruned.iter().filter(|stack| stack.error.is_some());
    let pruned: Vec<&str> = pruned.map(|stack| &*stack.stack).collect();
    let all = stacks.len() == run.stacks.len();
    let mut commands: Vec<String> = [("run", stacks, all), ("prune", pruned, false)]
        .into_iter()
        .filter(|(_, stacks, _)| !stacks.is_empty())
        .map(|(command, stacks, all)| match all {
            true => format!("{} {command}", env!("CARGO_PKG_NAME")),
            false => format!("{} {command} {}", env!("CARGO_PKG_NAME"), stacks.join(" ")),
        })
        .collect();
    if run.handovers.iter().any(HandoverOutcome::has_failed) {
        commands.push(concat!(env!("CARGO_PKG_NAME"), " handover").to_owned());
    }
    if !commands.is_empty() {
        page.section("TRY AGAIN, when the cause is gone");
    }
    for command in commands {
        page.literal("  ", 4, &command);
    }
}

fn is_down_line(stack: &str, services: &[String]) -> String {
    let recover = concat!(env!("CARGO_PKG_NAME"), " recover");
    let services = match services {
        [] => String::new(),
        _ => format!(" ({})", services.join(", ")),
    };
    format!("{stack} IS DOWN{services}; start it with `{recover}`")
}

fn stack_failure_lines(stack: &StackOutcome) -> Vec<String> {
    let line = |failure: &Failure| {
        let phase = failure.phase.name();
        format!("{}: {phase}: {}", stack.stack, failure.message)
    };
    stack.failures.iter().map(line).collect()
}

fn warnings(page: &mut Page, run: &RunOutcome) {
    let warnings = run.warnings();
    if !warnings.is_empty() {
        page.section("WARNINGS");
    }
    for (stack, warning) in warnings {
        page.line("  ", &format!("{stack}: {warning}"));
    }
}

fn recovered(page: &mut Page, run: &RunOutcome) {
    let had_hooks = |s: &RecoveredStack| !s.undone.is_empty() || !s.not_undone.is_empty();
    let started =
        |s: &&RecoveredStack| s.error.is_none() && (!s.services.is_empty() || !had_hooks(s));
    let up: Vec<_> = run.recovered.iter().filter(started).collect();
    if !up.is_empty() {
        page.section("RECOVERED (left stopped by an interrupted run, started again now)");
    }
    for stack in up {
        let services = stack.services.join(", ");
        page.line("  ", &format!("{}: {services}", stack.stack));
    }
    let undone = run.recovered.iter().filter(|s| !s.undone.is_empty());
    for (i, stack) in undone.enumerate() {
        if i == 0 {
            page.section("UNDONE (hooks of an interrupted run, whose effect is taken back now)");
        }
        for command in &stack.undone {
            page.line("  ", &format!("{}: {command}", stack.stack));
        }
    }
}

/// Adds a table with a row for each stack.
fn stacks(page: &mut Page, run: &RunOutcome) {
    if run.stacks.is_empty() {
        return;
    }
    let header = ["stack", "status", "archive", "down"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(run.stacks.iter().map(stack_row));
    page.section("STACKS");
    page.table(&rows);
}

fn stack_row(stack: &StackOutcome) -> [String; 4] {
    let archive = stack.archive.as_ref();
    [
        ascii(&stack.stack),
        status_name(stack.status).to_owned(),
        archive.map_or("-".to_owned(), |archive| human_bytes(archive.archive_bytes)),
        stack.downtime_ms.map_or("-".to_owned(), |downtime_ms| {
            let downtime = human_duration(downtime_ms);
            match stack.status {
                // It is still down.
                StackStatus::Down => format!("> {downtime}"),
                _ => downtime,
            }
        }),
    ]
}

fn log(page: &mut Page, run: &RunOutcome) {
    if !run.log.is_empty() {
        page.section("LOG");
    }
    for line in &run.log {
        page.literal("", 4, line);
    }
}

fn status_name(status: StackStatus) -> &'static str {
    match status {
        StackStatus::Ok => "ok",
        StackStatus::Failed => "FAILED",
        StackStatus::Down => "DOWN",
        StackStatus::NotRun => "not run",
    }
}
