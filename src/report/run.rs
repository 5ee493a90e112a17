//! The report of a run: first what went wrong, then what was done, then the log.

use super::details::{self, sum};
use super::page::{Page, WIDTH};
use super::subject::headline;
use crate::outcome::{
    ArchiveOutcome, Failure, RecoveredStack, RunOutcome, StackOutcome, StackStatus,
};
use crate::sys::format::{ascii, human_bytes, human_duration};
use crate::sys::time::OffsetTime;

/// Returns the whole report: printable ASCII and newlines, at most 72 columns.
pub fn run_text(run: &RunOutcome) -> String {
    let mut page = Page::default();
    page.line("", &headline(run));
    page.line("", &when_and_where(run));
    failures(&mut page, run);
    warnings(&mut page, run);
    details::new_holes(&mut page, run);
    recovered(&mut page, run);
    stacks(&mut page, run);
    details::archives(&mut page, run);
    details::hooks(&mut page, run);
    details::not_covered(&mut page, run);
    details::covered(&mut page, run);
    details::drills(&mut page, run);
    details::retention(&mut page, run);
    details::store(&mut page, run);
    details::phases(&mut page, run);
    log(&mut page, run);
    page.finish()
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
    lines.extend(run.errors.iter().cloned());
    lines
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

/// Adds a table with a row for each stack. A name that is too long for its column
/// has a line of its own.
fn stacks(page: &mut Page, run: &RunOutcome) {
    if run.stacks.is_empty() {
        return;
    }
    let header = [
        "stack", "status", "archive", "content", "downtime", "duration",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(run.stacks.iter().map(stack_row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let figures: usize = (1..6).map(|column| width(column) + 2).sum();
    let name_width = width(0).min(WIDTH.saturating_sub(figures + 2));

    page.section("STACKS");
    for row in &rows {
        let mut name = row[0].as_str();
        if name.len() > name_width {
            page.line("  ", name);
            name = "";
        }
        let mut line = format!("  {name:name_width$}  {:1$}", row[1], width(1));
        for (column, cell) in row.iter().enumerate().skip(2) {
            line += &format!("  {cell:>0$}", width(column));
        }
        page.line("", &line);
    }
}

fn stack_row(stack: &StackOutcome) -> [String; 6] {
    let bytes = |of: fn(&ArchiveOutcome) -> u64| match &stack.archive {
        Some(archive) => human_bytes(of(archive)),
        None => "-".to_owned(),
    };
    let duration = match stack.phases.as_slice() {
        [] => "-".to_owned(),
        phases => human_duration(sum(phases.iter().map(|phase| phase.duration_ms))),
    };
    [
        ascii(&stack.stack),
        status_name(stack.status).to_owned(),
        bytes(|archive| archive.archive_bytes),
        bytes(|archive| archive.content_bytes),
        stack.downtime_ms.map_or("-".to_owned(), |downtime_ms| {
            let downtime = human_duration(downtime_ms);
            match stack.status {
                // It is still down.
                StackStatus::Down => format!("> {downtime}"),
                _ => downtime,
            }
        }),
        duration,
    ]
}

fn log(page: &mut Page, run: &RunOutcome) {
    if !run.log.is_empty() {
        page.section("LOG");
    }
    for line in &run.log {
        page.item("", 4, line);
    }
    page.section(&format!(
        "{} {}",
        env!("CARGO_PKG_NAME"),
        run.program_version
    ));
}

fn status_name(status: StackStatus) -> &'static str {
    match status {
        StackStatus::Ok => "ok",
        StackStatus::Failed => "FAILED",
        StackStatus::Down => "DOWN",
        StackStatus::NotRun => "not run",
    }
}
