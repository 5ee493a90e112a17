//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

/// Backs up Docker Compose stacks, one after another: stop, archive, start.
///
/// Archives are plain tar files, <backupDir>/<stack>/<stack>_<date>_<time>.tar.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  all good
  1  could not run at all: usage, configuration, or another run is under way (all
     else that is under way is waited for)
  2  less was done than was asked for (the report says what); every stack is up
  3  a stack that was running is still down";

#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file (JSON) [default: /etc/docker-stack-backup/config.json]
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "DOCKER_STACK_BACKUP_CONFIG"
    )]
    pub config: Option<PathBuf>,
    /// A stack's directory; may be given several times. No configuration file is read then
    #[arg(long = "stack", global = true, value_name = "DIR")]
    pub stack_dirs: Vec<PathBuf>,
    /// Where the archives are, whatever the configuration says
    #[arg(long, global = true, value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,
    /// Where the journal, the lock and the last outcome are, whatever the configuration says
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Log warnings and errors only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log every command that is run
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back up all configured stacks, prune old archives, report
    Run {
        /// Only these stacks, by name
        #[arg(value_name = "STACK")]
        stacks: Vec<String>,
        /// Keep archives for so many days; without a configuration file nothing
        /// is removed unless this is given
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
        keep_days: Option<u32>,
    },
    /// Check the configuration without touching the host
    Check {
        /// Also look at Docker, the stacks, the room for archives and the mail server
        #[arg(long)]
        live: bool,
    },
    /// Show what a run would stop, archive and leave out, changing nothing
    Plan {
        #[arg(value_name = "STACK")]
        stacks: Vec<String>,
    },
    /// List the archives in the store, or the members of one
    List {
        /// Stacks; or an archive file, and what of it: paths, volumes, services
        #[arg(value_name = "STACK|ARCHIVE")]
        what: Vec<String>,
    },
    /// Read archives back and say what is damaged
    ///
    /// An archive in the store that is damaged is marked: it no longer counts for retention, and
    /// is not restored unless its time is given. One that has no .sums beside it, and is good as far
    /// as can be told, gets them.
    Verify {
        /// Stacks or archive files; without any, all that is in the store
        #[arg(value_name = "STACK|ARCHIVE")]
        what: Vec<String>,
    },
    /// Remove the archives that retention does not keep
    Prune {
        #[arg(value_name = "STACK")]
        stacks: Vec<String>,
        /// Show what would be removed, and why the others are kept
        #[arg(long)]
        dry_run: bool,
    },
    /// Prove that an archive can be restored: start it as a throw-away project
    ///
    /// With volumes and a directory of its own, no ports, and networks without a way out; from
    /// local images. It is taken down again in any case. Exit status 2 if any did not come up. A
    /// backup that is under way, and all else but another drill, is waited for.
    Drill {
        /// Stacks (their newest good archives), STACK@TIME, or archive files; without any, all
        /// configured stacks, and the result is mailed if `email` is configured
        #[arg(value_name = "WHAT")]
        what: Vec<String>,
        /// A service and a command in it that must succeed
        #[arg(last = true, value_name = "SERVICE COMMAND")]
        command: Vec<String>,
    },
    /// Put a stack back as an archive has it, or unpack an archive
    Restore(Restore),
    /// Start what an interrupted run left stopped
    Recover {
        /// Do not start this stack, but forget that it was stopped
        #[arg(long, value_name = "STACK")]
        forget: Option<String>,
    },
    /// Show the report of the last run again
    Report {
        /// Mail it, whatever `when` says, to try the mail settings
        #[arg(long)]
        mail_test: bool,
    },
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
    /// Write man pages into a directory
    ManPages { dir: PathBuf },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("part").args(["to", "diff"]).multiple(true)))]
pub struct Restore {
    /// STACK (its newest good archive), STACK@TIME (@20261124_031500, @2026-11-24), an archive
    /// file, or - for one on standard input
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// Restore the configured stack WHAT from this archive file (or - for standard input); one
    /// without a manifest, as tar and the script make them, needs that
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub from: Option<String>,
    /// Unpack into this directory, which must be missing or empty, and touch nothing else
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Only this: a path in the archive, a volume, or a service (its volumes and binds)
    #[arg(long, value_name = "PATH", requires = "part", num_args = 1..)]
    pub only: Vec<String>,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Only show what differs between the archive and the stack, or what is in DIR: + is not in
    /// the archive, - is gone, ~ has changed. Exit status 2 if anything does
    #[arg(long, conflicts_with_all = ["dry_run", "allow_devices", "allow_damaged", "yes", "keep_old", "no_start"])]
    pub diff: bool,
    /// Make the device nodes an archive holds, which are refused otherwise unless the archive is
    /// one of a stack in the store
    #[arg(long)]
    pub allow_devices: bool,
    /// Replace the stack even by an archive that is not as it was written, as the .sums beside it
    /// say
    #[arg(long, conflicts_with = "to")]
    pub allow_damaged: bool,
    /// Replace the stack without asking
    #[arg(long, short, conflicts_with = "to")]
    pub yes: bool,
    /// Do not remove what was there, but leave it beside what is restored
    #[arg(long, conflicts_with = "to")]
    pub keep_old: bool,
    /// Leave the stack down
    #[arg(long, conflicts_with = "to")]
    pub no_start: bool,
}
