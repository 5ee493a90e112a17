//! The program `docker-stack-backup`. README.md says what it does,
//! docs/architecture.md how it is built.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use docker_stack_backup::cli::{Cli, Command};
use docker_stack_backup::outcome::ExitStatus;
use docker_stack_backup::{commands, sys, worker};

fn main() -> ExitCode {
    // Answers a shell that asks how a command line could go on, and ends then.
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Not clap's own exit status, because 2 has another meaning here.
            let status = match error.use_stderr() {
                true => ExitStatus::CouldNotRun,
                // --help and --version are no errors.
                false => ExitStatus::Ok,
            };
            return ExitCode::from(status as u8);
        }
    };
    sys::limits::raise_open_files();
    if let Err(error) = sys::signals::outlive_those_without_a_meaning() {
        eprintln!("error: {error:#}");
        return ExitCode::from(ExitStatus::CouldNotRun as u8);
    }
    if matches!(cli.command, Command::Worker) {
        return serve();
    }
    let verbosity = i8::from(cli.global.verbose) - i8::from(cli.global.quiet);
    let log = sys::logging::init(verbosity);
    let status = commands::execute(&cli, &log);
    log.flush();
    ExitCode::from(status as u8)
}

fn serve() -> ExitCode {
    match worker::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("error: {error:#}");
            eprintln!("{}", sys::format::without_commands(&text));
            ExitCode::from(ExitStatus::CouldNotRun as u8)
        }
    }
}
