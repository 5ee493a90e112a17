//! `man-pages`: a man page for each command, and one for the configuration file.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::roff::{self, section};
use crate::cli::Cli;
use crate::outcome::ExitStatus;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const PROGRAM: &str = env!("CARGO_PKG_NAME");

const FILES: [(&str, &str); 4] = [
    (
        "/etc/docker-stack-backup/config.json",
        "the configuration, see docker-stack-backup-config(5)",
    ),
    ("/var/backups/docker", "the archives"),
    (
        "/var/lib/docker-stack-backup",
        "the journal, the lock, the last report, earlier runs",
    ),
    ("/var/log/docker-backup.log", "the log"),
];
const ENVIRONMENT: [(&str, &str); 5] = [
    (
        "DOCKER_STACK_BACKUP_CONFIG",
        "the configuration file, if --config is not given",
    ),
    (
        "DOCKER_HOST, DOCKER_CONTEXT",
        "the Docker Engine, as for docker(1)",
    ),
    ("NO_COLOR", "no colour if it is not empty"),
    (
        "CLICOLOR_FORCE",
        "colour also where no terminal is, unless it is empty or 0",
    ),
    ("COLUMNS", "the width of tables where no terminal tells it"),
];
const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "All is well."),
    ("1", "Nothing was done, or all of it was undone."),
    ("2", "Less was done than was asked for. Every stack is up."),
    (
        "3",
        "A stack that was running is still down, or a hook is not undone.",
    ),
];

pub fn man_pages(dir: &Path) -> Result<ExitStatus> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut pages: Vec<(String, Vec<u8>)> = commands
        .map(|command| page(command.clone()))
        .collect::<Result<_>>()?;
    pages.push(page(program.clone())?);
    let configuration = roff::from_markdown(CONFIGURATION, "docker-stack-backup-config", 5);
    pages.push((format!("{PROGRAM}-config.5"), configuration.into_bytes()));
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitStatus::Ok)
}

/// Returns the name of a command's page, and the page.
fn page(command: Command) -> Result<(String, Vec<u8>)> {
    let examples = command.get_after_help().map(ToString::to_string);
    let examples = examples.unwrap_or_default();
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command);
    let name = man.get_filename();
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(examples) = examples.strip_prefix("Examples:\n") {
        page.write_all(roff::example_section("EXAMPLES", examples).as_bytes())?;
    }
    for (title, items) in [
        ("FILES", &FILES[..]),
        ("ENVIRONMENT", &ENVIRONMENT),
        ("EXIT STATUS", &EXIT_STATUS),
    ] {
        page.write_all(section(title, items).as_bytes())?;
    }
    let others = ".SH SEE ALSO\n.BR docker\\-stack\\-backup (1),\n.BR docker\\-stack\\-backup\\-config (5)\n";
    page.write_all(others.as_bytes())?;
    Ok((name, page))
}
