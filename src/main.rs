//! See README.md for what the program does, docs/design.md for how.

mod archive;
mod capture;
mod checks;
mod cli;
mod commands;
mod config;
mod coverage;
mod cycle;
mod docker;
mod drill;
mod email;
mod journal;
mod lifecycle;
mod lock;
mod logging;
mod outcome;
mod plan;
mod precopy;
mod priority;
mod process;
mod progress;
mod prune;
mod quiet;
mod report;
mod restore;
mod retention;
mod run;
mod signals;
mod standing;
mod store;
mod survey;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use outcome::ExitStatus;
use restore::stack::StillDown;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors; clap's 2 means something else here.
            let status = if error.use_stderr() {
                ExitStatus::CouldNotRun
            } else {
                ExitStatus::Ok
            };
            return ExitCode::from(status as u8);
        }
    };
    let verbosity = i8::from(cli.global.verbose) - i8::from(cli.global.quiet);
    let log = logging::init(verbosity);
    let global = &cli.global;
    let result = match &cli.command {
        Command::Run { stacks, keep_days } => commands::run(global, stacks, *keep_days, &log),
        Command::Check { live } => commands::check(global, *live),
        Command::Plan { stacks } => commands::plan(global, stacks),
        Command::List { what } => commands::list(global, what),
        Command::Verify { what } => commands::verify(global, what),
        Command::Prune { stacks, dry_run } => commands::prune(global, stacks, *dry_run),
        Command::Drill { what, command } => commands::drill(global, what, command, &log),
        Command::Restore(options) => commands::restore(global, options),
        Command::Recover { forget } => commands::recover(global, forget.as_deref(), &log),
        Command::Report { mail_test } => commands::report(global, *mail_test),
        Command::Completions { shell } => commands::completions(*shell),
        Command::ManPages { dir } => commands::man_pages(dir),
    };
    let status = result.unwrap_or_else(|error| {
        // Of a configuration all that is wrong is told, a line each.
        for line in format!("{error:#}").lines() {
            tracing::error!("{line}");
        }
        match error.is::<StillDown>() {
            true => ExitStatus::StackDown,
            false => ExitStatus::CouldNotRun,
        }
    });
    ExitCode::from(status as u8)
}
