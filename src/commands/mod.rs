//! The commands: each makes a plan of the command line and the configuration,
//! has the work done by the wings below, and prints the result.

mod all_stacks;
mod cat;
mod check;
mod completions;
mod diff;
mod drill;
mod export;
mod find_archive;
mod guard;
mod handover;
mod html_report;
mod init;
mod left_down;
mod list;
mod load;
mod look;
mod man_pages;
mod mount;
mod output;
mod plan;
mod preview;
mod prune;
mod recover;
mod report;
mod restore;
mod roff;
mod run;
mod status;
mod verify;

use crate::cli::{Cli, Command};
use crate::outcome::ExitStatus;
use crate::restore::stack::StillDown;
use crate::sys::logging::Log;

/// Executes the command and logs its error, if there is one.
pub fn execute(cli: &Cli, log: &Log) -> ExitStatus {
    let global = &cli.global;
    let result = match &cli.command {
        Command::Run {
            stacks,
            keep_days,
            adopt_store,
            unwatched,
        } => run::run(global, stacks, *keep_days, *adopt_store, *unwatched, log),
        Command::Init(args) => init::init(global, args),
        Command::ImportScript { script, args } => init::import_script(global, script, args),
        Command::Check { live } => check::check(global, *live),
        Command::Status { stack } => status::status(global, stack.as_deref()),
        Command::Plan { stacks } => plan::plan(global, stacks),
        Command::List {
            what,
            tree,
            depth,
            pass_over,
            paths,
        } => match *tree {
            true => list::list_tree(global, what, *depth, *pass_over),
            false => list::list(global, what, *paths),
        },
        Command::Diff {
            before,
            after,
            pass_over,
        } => diff::diff(global, before, after, *pass_over),
        Command::Mount(args) => mount::mount(global, args),
        Command::Export(args) => export::export(global, args),
        Command::Cat { what, pass_over } => cat::cat(global, what, *pass_over),
        Command::Verify { what } => verify::verify(global, what),
        Command::Prune {
            stacks,
            dry_run,
            yes,
        } => prune::prune(global, stacks, *dry_run, *yes),
        Command::Handover { stacks } => handover::handover(global, stacks),
        Command::Drill {
            what,
            command,
            pass_over,
        } => drill::drill(global, what, command, *pass_over, log),
        Command::Restore(args) => restore::restore(global, args),
        Command::Guard(args) => guard::guard(global, args, log),
        Command::Recover { forget } => recover::recover(global, forget.as_deref(), log),
        Command::Report {
            stacks,
            html,
            test,
            send_queued,
        } => report::report(global, stacks, html.as_deref(), *test, *send_queued),
        Command::Completions { shell } => completions::completions(*shell),
        Command::ManPages { dir } => man_pages::man_pages(dir),
        Command::Worker => unreachable!("main has served it"),
    };
    result.unwrap_or_else(|error| {
        // The errors of a configuration are one line each.
        for line in format!("{error:#}").lines() {
            tracing::error!("{line}");
        }
        match error.is::<StillDown>() {
            true => ExitStatus::StackDown,
            false => ExitStatus::CouldNotRun,
        }
    })
}
