//! See README.md for what the program does, docs/architecture.md for how.

use std::process::ExitCode;

use clap::Parser;

use docker_stack_backup::cli::{Cli, Command};
use docker_stack_backup::outcome::ExitStatus;
use docker_stack_backup::restore::stack::StillDown;
use docker_stack_backup::{commands, sys};

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
    let log = sys::logging::init(verbosity);
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
