//! What commands write: text and JSON on stdout, and the log file.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::cli::Global;
use crate::config::plan::Plan;
use crate::outcome::{ExitStatus, FORMAT_VERSION, RunOutcome};
use crate::report;
use crate::sys::format::{json_without_commands, without_commands};
use crate::sys::logging::Log;
use crate::sys::outlet::{write_stderr, write_stdout};
use crate::sys::terminal::{colored, stdout_wants_color, stdout_width};

/// Prints an object as JSON, with the version of its format. What each command prints is
/// in docs/json-output.schema.json.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned<'a, T: Serialize> {
        format_version: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    write_json(&Versioned {
        format_version: FORMAT_VERSION,
        value,
    })
}

/// Prints a value as the field `name` of an object.
pub fn print_json_field<T: Serialize>(name: &str, value: &T) -> Result<()> {
    print_json(&BTreeMap::from([(name, value)]))
}

/// Prints the outcome of a run as JSON, as it is saved.
pub fn print_outcome_json(outcome: &RunOutcome) -> Result<()> {
    write_json(outcome)
}

fn write_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value)? + "\n";
    write(&json_without_commands(&json))
}

/// Prints what differs between two things. The exit status is like that of diff(1), but 2
/// means that there are differences, because 1 means that the command could not run.
pub fn print_differences(
    is_json: bool,
    diff: &impl Serialize,
    text: impl FnOnce() -> String,
    is_same: bool,
) -> Result<ExitStatus> {
    match is_json {
        true => print_json(diff)?,
        false => print(&text())?,
    }
    Ok(match is_same {
        true => ExitStatus::Ok,
        false => ExitStatus::Incomplete,
    })
}

/// Prints text to stdout, without what would command a terminal. A reader that has
/// closed the pipe (`... | head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let text = without_commands(text);
    match stdout_wants_color() {
        true => write(&colored(&text)),
        false => write(&text),
    }
}

/// Prints text for people like [`print`], and breaks lines for which the terminal is too
/// narrow, so that they keep their indentation.
pub fn print_folded(text: &str) -> Result<()> {
    match stdout_width() {
        Some(width) => print(&folded(text, width)),
        None => print(text),
    }
}

/// Prints the report of a run, for as wide a terminal as there is.
pub fn print_report(run: &RunOutcome) -> Result<()> {
    print(&report::run_text(run, stdout_width()))
}

/// Prints text for programs: without colour, whoever asks for it.
pub fn print_plain(text: &str) -> Result<()> {
    write(&without_commands(text))
}

/// Shows text on stderr, beside a question or an error. It is no error if nobody
/// reads it.
pub fn show(text: &str) {
    write_stderr(without_commands(text).as_bytes());
}

fn write(text: &str) -> Result<()> {
    match write_stdout(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}

/// Prints the outcome of a run without its log, which was written to stderr
/// already. An error is logged and not returned, because it must not hide how
/// the run ended.
pub fn show_outcome(global: &Global, outcome: &RunOutcome) -> ExitStatus {
    let result = if global.json {
        print_outcome_json(outcome)
    } else if global.quiet {
        Ok(())
    } else {
        print_report(&RunOutcome {
            log: Vec::new(),
            ..outcome.clone()
        })
    };
    match result {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            tracing::error!("cannot show the report: {error:#}");
            ExitStatus::Incomplete
        }
    }
}

/// Formats rows as a table whose columns are as wide as their widest cell. The first row
/// is the header. Where stdout is not wide enough, the last columns of each row go into
/// lines of their own below it.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    fitted(rows, stdout_width())
}

fn fitted<const N: usize>(rows: &[[String; N]], width: Option<usize>) -> String {
    let length = |cell: &String| cell.chars().count();
    let widest = |column: usize| rows.iter().map(|row| length(&row[column])).max();
    let widths: Vec<usize> = (0..N).map(|column| widest(column).unwrap_or(0)).collect();
    let fits = |count: &usize| {
        let needed = widths[..*count].iter().sum::<usize>() + 2 * (count - 1);
        width.is_none_or(|width| needed <= width)
    };
    // A name that is too long stays as it is.
    let beside = (1..=N).rev().find(fits).unwrap_or(1);
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let cells = row[..beside].iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
        if i == 0 {
            continue;
        }
        let below = rows[0][beside..].iter().zip(&row[beside..]);
        let below = below.filter(|(_, cell)| !cell.is_empty() && *cell != "-");
        let below = below.map(|(name, cell)| match name.as_str() {
            "" => cell.clone(),
            name => format!("{}: {cell}", name.to_lowercase()),
        });
        text += &wrapped(
            &below.collect::<Vec<_>>().join("; "),
            width.unwrap_or(usize::MAX),
        );
    }
    text
}

/// Breaks a text between words into indented lines.
fn wrapped(text: &str, width: usize) -> String {
    const INDENT: &str = "    ";
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let is_full = INDENT.len() + line.chars().count() + 1 + word.chars().count() > width;
        if is_full && !line.is_empty() {
            lines += &format!("{INDENT}{line}\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    match line.is_empty() {
        true => lines,
        false => lines + &format!("{INDENT}{line}\n"),
    }
}

/// Breaks lines of more than `width` columns between words. What follows is indented as the
/// text after the line's label is, such as `  in        `. A command in backquotes stays
/// whole, so that it can be copied.
fn folded(text: &str, width: usize) -> String {
    let mut all = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.chars().count() > width {
            true => fold_line(line, width, &mut all),
            false => all.push_str(line),
        }
    }
    all
}

fn fold_line(line: &str, width: usize, all: &mut String) {
    let (mut earliest, indent) = hanging(line);
    let indent = indent.min(width / 2);
    let mut rest = line;
    let mut room = width;
    while let Some(at) = break_at(rest, room, earliest) {
        all.push_str(rest[..at].trim_end_matches(' '));
        all.push('\n');
        all.extend(std::iter::repeat_n(' ', indent));
        rest = rest[at..].trim_start_matches(' ');
        (earliest, room) = (0, width - indent);
    }
    all.push_str(rest);
}

/// Returns where the text of a line begins, after its indentation and a label, which ends
/// with two spaces; and by how many columns the lines below it are indented.
fn hanging(line: &str) -> (usize, usize) {
    const LABEL_LENGTH_MAX: usize = 16;
    let begin = line.len() - line.trim_start_matches(' ').len();
    let label = line[begin..].find("  ").filter(|at| *at < LABEL_LENGTH_MAX);
    match label.map(|at| begin + at) {
        Some(end) => {
            let text = line.len() - line[end..].trim_start_matches(' ').len();
            (text, line[..text].chars().count())
        }
        None => (begin, begin + 2),
    }
}

/// Returns the blank at which a line is broken: the last one for which it has room, or the
/// next one. `None` if it has room for all, or there is no blank from `earliest` on.
fn break_at(text: &str, room: usize, earliest: usize) -> Option<usize> {
    let mut is_quoted = false;
    let mut last = None;
    for (column, (at, char)) in text.char_indices().enumerate() {
        if column > room && last.is_some() {
            return last;
        }
        is_quoted ^= char == '`';
        if char == ' ' && !is_quoted && at >= earliest {
            last = Some(at);
        }
    }
    last.filter(|_| text.trim_end().chars().count() > room)
}

/// Lets the log be appended to the configured file as well.
pub fn start_log_file(plan: &Plan, log: &Log) {
    if let Some(path) = &plan.log_file {
        log.append_to(path.clone());
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn long_lines_keep_their_indentation_and_commands_stay_whole() {
        let text = "web (/opt/stacks/web)\n  in        volume web_db (db:/var/lib/postgresql)\n\
            \u{20} see more: `docker logs --tail 50 web-app-1`\n\
            /a/path/that/is/longer/than/the/whole/line and words\nFAILED  stack web: no\n";
        assert_snapshot!(folded(text, 34), @r"
        web (/opt/stacks/web)
          in        volume web_db
                    (db:/var/lib/postgresql)
          see more:
            `docker logs --tail 50 web-app-1`
        /a/path/that/is/longer/than/the/whole/line
          and words
        FAILED  stack web: no
        ");
        assert_eq!(folded(text, 80), text);
        for width in 1..60 {
            let words = |text: &str| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(words(&folded(text, width)), words(text), "{width}");
        }
    }

    #[test]
    fn a_table_fits_the_width() {
        let rows = [
            ["STACK", "SIZE", "VERIFIED", "RETENTION", ""],
            [
                "web",
                "1.0 KiB",
                "3 h",
                "within 28 days, newest good archive",
                "DAMAGED",
            ],
            ["paperless", "12.3 GiB", "-", "within 28 days", ""],
        ];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_snapshot!(fitted(&rows, None), @r"
        STACK      SIZE      VERIFIED  RETENTION
        web        1.0 KiB   3 h       within 28 days, newest good archive  DAMAGED
        paperless  12.3 GiB  -         within 28 days
        ");
        assert_snapshot!(fitted(&rows, Some(60)), @r"
        STACK      SIZE      VERIFIED
        web        1.0 KiB   3 h
            retention: within 28 days, newest good archive; DAMAGED
        paperless  12.3 GiB  -
            retention: within 28 days
        ");
        assert_snapshot!(fitted(&rows, Some(30)), @r"
        STACK      SIZE      VERIFIED
        web        1.0 KiB   3 h
            retention: within 28 days,
            newest good archive;
            DAMAGED
        paperless  12.3 GiB  -
            retention: within 28 days
        ");
        for width in 10..90 {
            let text = fitted(&rows, Some(width));
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            // The longest word, in an indented line.
            assert!(longest <= width.max(14), "{width}: {text}");
        }
    }
}
