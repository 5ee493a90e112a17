//! `completions`: a completion script for a shell.

use anyhow::Result;
use clap::CommandFactory as _;

use super::output::print;
use crate::cli::Cli;
use crate::outcome::ExitStatus;

pub fn completions(shell: clap_complete::Shell) -> Result<ExitStatus> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&String::from_utf8(script)?).map(|()| ExitStatus::Ok)
}
