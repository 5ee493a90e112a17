//! What commands write: text and JSON on stdout, and the log file.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::cli::Global;
use crate::config::plan::Plan;
use crate::outcome::{ExitStatus, RunOutcome};
use crate::report;
use crate::sys::format::{json_without_commands, without_commands};
use crate::sys::logging::Log;

pub fn print_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value)? + "\n";
    write(&json_without_commands(&json))
}

/// Prints text to stdout, without what would command a terminal. A reader that has
/// closed the pipe (`... | head`) is no error.
pub fn print(text: &str) -> Result<()> {
    write(&without_commands(text))
}

/// Shows text on stderr, beside a question or an error. It is no error if nobody
/// reads it.
pub fn show(text: &str) {
    let _ = std::io::stderr().write_all(without_commands(text).as_bytes());
}

fn write(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}

/// Prints the outcome of a run without its log, which was written to stderr
/// already. An error is logged and not returned, because it must not hide how
/// the run ended.
pub fn show_outcome(global: &Global, outcome: &RunOutcome) -> ExitStatus {
    let result = if global.json {
        print_json(outcome)
    } else if global.quiet {
        Ok(())
    } else {
        print(&report::run_text(&RunOutcome {
            log: Vec::new(),
            ..outcome.clone()
        }))
    };
    match result {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            tracing::error!("cannot show the report: {error:#}");
            ExitStatus::Incomplete
        }
    }
}

/// Formats rows as a table whose columns are as wide as their widest cell.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Lets the log be appended to the configured file as well.
pub fn start_log_file(plan: &Plan, log: &Log) {
    if let Some(path) = &plan.log_file {
        log.append_to(path.clone());
    }
}
