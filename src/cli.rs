//! The command line. Its comments are the text of `--help` and the man pages.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use crate::complete;

/// Backs up Docker Compose stacks, one after another: stop, archive, start.
///
/// Each archive is a plain tar file, <backupDir>/<stack>/<stack>_<date>_<time>.tar.
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
  1  nothing was done (usage, configuration, or another command is under way: run and
     drill wait for every command except a second one of their kind, others do not
     wait), or all of it was undone (restore)
  2  less was done than was asked for (the report says what), or an update was rolled
     back (guard); every stack is up
  3  a stack that was running is still down, or a hook is not undone";

const RUN_EXAMPLES: &str = "\
Examples:
  docker-stack-backup run
  docker-stack-backup run web db
  docker-stack-backup run --stack /opt/stacks/web --backup-dir /var/backups/docker";
const CHECK_EXAMPLES: &str = "\
Examples:
  docker-stack-backup check
  docker-stack-backup check --live";
const STATUS_EXAMPLES: &str = "\
Examples:
  docker-stack-backup status
  docker-stack-backup status web
  docker-stack-backup status --json | jq '.stacks[] | select(.state != \"running\")'";
const PLAN_EXAMPLES: &str = "\
Examples:
  docker-stack-backup plan
  docker-stack-backup plan web";
const LIST_EXAMPLES: &str = "\
Examples:
  docker-stack-backup list
  docker-stack-backup list web@2026-11
  docker-stack-backup list --paths web
  docker-stack-backup list /var/backups/docker/web/web_20261124_031500.tar web/html";
const VERIFY_EXAMPLES: &str = "\
Examples:
  docker-stack-backup verify
  docker-stack-backup verify web@2026-11-24
  docker-stack-backup verify /mnt/usb/web_20261124_031500.tar";
const PRUNE_EXAMPLES: &str = "\
Examples:
  docker-stack-backup prune --dry-run
  docker-stack-backup prune web";
const HANDOVER_EXAMPLES: &str = "\
Examples:
  docker-stack-backup handover
  docker-stack-backup handover web";
const DRILL_EXAMPLES: &str = "\
Examples:
  docker-stack-backup drill
  docker-stack-backup drill web@2026-11-24
  docker-stack-backup drill web -- db pg_isready -q";
const RESTORE_EXAMPLES: &str = "\
Examples:
  docker-stack-backup restore web
  docker-stack-backup restore web@2026-11-24 --dry-run
  docker-stack-backup restore web --to /tmp/web --only web/html
  docker-stack-backup restore web --diff";
const EXPORT_EXAMPLES: &str = "\
Examples:
  docker-stack-backup export web -R /etc/backup-keys.txt > /mnt/usb/web.tar.age
  docker-stack-backup restore /mnt/usb/web.tar.age --identity key.txt";
const GUARD_EXAMPLES: &str = "\
Examples:
  docker-stack-backup guard web -- docker compose up -d --pull always
  docker-stack-backup guard web -- sh -c 'docker compose pull && docker compose up -d'
  docker-stack-backup guard web --healthy-within 600 -- ./update.sh";
const RECOVER_EXAMPLES: &str = "\
Examples:
  docker-stack-backup recover
  docker-stack-backup recover --forget web";
const REPORT_EXAMPLES: &str = "\
Examples:
  docker-stack-backup report
  docker-stack-backup report web
  docker-stack-backup report --html backups.html
  docker-stack-backup report --test";
const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  docker-stack-backup completions bash > /etc/bash_completion.d/docker-stack-backup";

/// Options of all commands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
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
    /// Directory of a stack; may be given several times. Needs --backup-dir. The default
    /// configuration file is not read then; one that is given is an error
    #[arg(long = "stack", global = true, value_name = "DIR")]
    pub stack_dirs: Vec<PathBuf>,
    /// Directory of the archives; overrides `backupDir` of the configuration
    #[arg(long, global = true, value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,
    /// Directory of the journal, the lock and the last report; overrides `stateDir` of the
    /// configuration
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Log warnings and errors only, and print no report after run and recover
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more, such as every command that is run
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at this host and print a configuration that backs up what is there
    ///
    /// Every Compose project becomes a stack. What needs a decision, such as a mount that no archive
    /// would hold, is a comment, or a line on stderr for JSON, which has none. Changes nothing.
    Init(InitArgs),
    /// Print a configuration that does what a docker-backup.py does
    ///
    /// The script is read, and never run. Changes nothing.
    ImportScript {
        /// The script
        #[arg(value_name = "FILE")]
        script: PathBuf,
        #[command(flatten)]
        args: InitArgs,
    },
    /// Back up all configured stacks, prune old archives, report
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// Names of the stacks to back up [default: all configured stacks]
        #[arg(value_name = "STACK", add = ArgValueCompleter::new(complete::stacks))]
        stacks: Vec<String>,
        /// Remove archives older than this many days, unless another rule of the configured
        /// retention keeps them; overrides `keepDays` of the configuration. Without a configuration
        /// file nothing is removed unless this option is given
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
        keep_days: Option<u32>,
        /// Use the backup directory although it is not the one that was used there before: the
        /// store was moved or replaced on purpose
        #[arg(long)]
        adopt_store: bool,
        /// Do all in this process, for a debugger or a tracer; nothing then starts a stack
        /// whose data does not answer
        #[arg(long, hide = true)]
        unwatched: bool,
    },
    /// Check the configuration; needs no Docker and changes nothing
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Also check Docker, the stacks, the directories that are written to, the mail server and
        /// the other channels of news
        #[arg(long)]
        live: bool,
    },
    /// Show whether the stacks run, how old their backups are, and what to do next
    ///
    /// The exit status is 3 if a stack was left stopped or with a hook that is not undone, and 2 if
    /// the last run of a stack failed, it was never backed up, or it is unhealthy, restarting or
    /// unknown.
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// Show the last runs of this stack
        #[arg(value_name = "STACK", add = ArgValueCompleter::new(complete::stacks))]
        stack: Option<String>,
    },
    /// Show what a run would stop, archive and leave out; changes nothing
    #[command(after_help = PLAN_EXAMPLES)]
    Plan {
        /// Names of the stacks to show [default: all configured stacks]
        #[arg(value_name = "STACK", add = ArgValueCompleter::new(complete::stacks))]
        stacks: Vec<String>,
    },
    /// List the archives in the store, or the members of one archive
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// STACK or STACK@TIME (such as @2026-11) [default: all stacks in the store]; or an archive
        /// file, and after it the members to list: paths, volumes or services [default: all members]
        #[arg(value_name = "WHAT", add = ArgValueCompleter::new(complete::archives))]
        what: Vec<String>,
        /// Show what is in an archive as a tree, with the size of each file and the sum of each
        /// directory: an archive file, STACK (its newest good archive) or STACK@TIME; after it the
        /// parts to show
        #[arg(long, requires = "what")]
        tree: bool,
        /// With --tree: show this many levels only
        #[arg(long, value_name = "N", requires = "tree")]
        depth: Option<usize>,
        /// With --tree: use the newest good archive although newer ones are incomplete, damaged,
        /// dated in the future or of another stack
        #[arg(long, requires = "tree")]
        pass_over: bool,
        /// Show the path of each archive, one a line, and nothing else
        #[arg(long)]
        paths: bool,
    },
    /// Show what was added, removed and changed between two archives, and what grew
    ///
    /// Each line begins with + (only in AFTER), - (only in BEFORE) or ~ (changed). Data is compared by
    /// the .sums files, and read only where they do not tell. The manifests are not compared, nor the
    /// times of directories. The exit status is 2 if anything differs.
    Diff {
        /// An archive: STACK@TIME, STACK (its newest good archive), or a file
        #[arg(value_name = "BEFORE")]
        before: String,
        /// The archive to compare it with
        #[arg(value_name = "AFTER")]
        after: String,
        /// Use the newest good archive of a stack although newer ones are incomplete, damaged,
        /// dated in the future or of another stack
        #[arg(long)]
        pass_over: bool,
    },
    /// Write one file of an archive to standard output
    ///
    /// Only what belongs to the file is read. If the archive has a .sums file, the content is
    /// compared with it, and the exit status is 2 if it is damaged. On a terminal, control
    /// characters are shown escaped.
    Cat {
        /// STACK:PATH (of the newest good archive), STACK@TIME:PATH, or ARCHIVE.tar:PATH. PATH is the
        /// path in the archive, the absolute path on the host, or one that begins in the stack's
        /// directory or with the name of a volume
        #[arg(value_name = "ARCHIVE:PATH")]
        what: String,
        /// Use the newest good archive although newer ones are incomplete, damaged, dated in the
        /// future or of another stack
        #[arg(long)]
        pass_over: bool,
    },
    /// Write an archive to standard output, encrypted with age
    ///
    /// For storage that others can read, such as S3 or a disk that is carried away. The archive is
    /// compared with its .sums file before, and a damaged one is not exported. `restore --identity`
    /// reads what is written, and so does the program age.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Show archives as read-only directories, by FUSE, without unpacking them
    ///
    /// Without WHAT, DIR gets a directory for each stack in the store: its newest good archive, or
    /// with --all a directory for each of its archives. Members have their sizes, times, owners,
    /// modes, links, extended attributes, ACLs and holes; devices do not work. Only the user who
    /// mounts can look at it.
    ///
    /// Runs until it gets SIGTERM or SIGINT, or until somebody unmounts DIR, or COMMAND has ended.
    /// Then DIR is unmounted, even if it is in use. If the program is killed, `umount DIR` does that,
    /// and so does the next mount at DIR. Archives that are made meanwhile are not shown; those
    /// that are removed meanwhile can be read until the end.
    Mount(MountArgs),
    /// Read archives back and report damage
    ///
    /// An archive in the store that is damaged is marked: only `keepDays` still keeps it, and it
    /// is not restored unless its time is given. An archive in the store that has no .sums file gets
    /// one if no damage is found.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// STACK, STACK@TIME (such as @2026-11), or archive files [default: all archives in the
        /// store]
        #[arg(value_name = "WHAT", add = ArgValueCompleter::new(complete::archives))]
        what: Vec<String>,
    },
    /// Remove the archives that the configured retention does not keep
    #[command(after_help = PRUNE_EXAMPLES)]
    Prune {
        /// Names of the stacks to prune [default: all configured stacks]
        #[arg(value_name = "STACK", add = ArgValueCompleter::new(complete::stacks))]
        stacks: Vec<String>,
        /// Show which archives would be removed and which kept, and why; remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Prune even after a time without a backup so long that the clock may be wrong
        #[arg(long, short, conflicts_with = "dry_run")]
        yes: bool,
    },
    /// Hand archives over to the repositories of Borg and restic that are configured
    ///
    /// Of each stack the newest good archive, and what earlier tries left, as a run does it at its
    /// end. The exit status is 2 if something could not be handed over; the next run, or this
    /// command, tries it again.
    #[command(after_help = HANDOVER_EXAMPLES)]
    Handover {
        /// Names of the stacks [default: all configured stacks]
        #[arg(value_name = "STACK", add = ArgValueCompleter::new(complete::stacks))]
        stacks: Vec<String>,
    },
    /// Prove that an archive can be restored: start it as a throw-away project
    ///
    /// The project has volumes and a directory of its own, no published ports, networks without
    /// access to the outside, and uses local images only. It is removed again in any case. Waits
    /// until a backup, or any other command that is not a drill, has ended. The exit status is 2 if
    /// a stack does not become healthy.
    #[command(after_help = DRILL_EXAMPLES)]
    Drill {
        /// Stacks (their newest good archives), STACK@TIME, or archive files [default: all
        /// configured stacks; the result is news then, by mail for example]
        #[arg(value_name = "WHAT", add = ArgValueCompleter::new(complete::archives))]
        what: Vec<String>,
        /// Drill the newest good archive of a stack although newer ones are incomplete, damaged,
        /// dated in the future or of another stack
        #[arg(long)]
        pass_over: bool,
        /// A service, and a command that must succeed in its container
        #[arg(last = true, value_name = "SERVICE COMMAND")]
        command: Vec<String>,
    },
    /// Put a stack back as it is in an archive, or unpack an archive
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Update a stack, and put data and images back if that fails
    ///
    /// Makes an archive as `run` does, runs COMMAND in the stack's directory, and waits until what
    /// ran before is up and healthy again. If the command fails, or the stack is not up in time, the
    /// data of the archive, the old images and the containers of before are put back. Killed at any
    /// time, `recover` or the next run rolls back what was not confirmed.
    ///
    /// The exit status is 0 if the stack is updated and up as before, 1 if nothing was done, 2 if the
    /// update was rolled back, and 3 if it could not be rolled back or the stack is down.
    #[command(after_help = GUARD_EXAMPLES)]
    Guard(GuardArgs),
    /// Put right what a killed command left: start stacks, undo a restore or an update, remove a
    /// drill
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover {
        /// Do not start this stack, but forget that it was stopped, or that its update was not
        /// confirmed
        #[arg(long, value_name = "STACK", add = ArgValueCompleter::new(complete::stacks))]
        forget: Option<String>,
    },
    /// Show the report of the last run again
    #[command(after_help = REPORT_EXAMPLES)]
    Report {
        /// Names of stacks of the last run [default: all of them]
        #[arg(
            value_name = "STACK",
            conflicts_with_all = ["test", "send_queued"],
            add = ArgValueCompleter::new(complete::stacks)
        )]
        stacks: Vec<String>,
        /// Write a page of HTML into this file: sizes, downtimes, archives and what retention does
        /// with them, drills and coverage of all stacks
        #[arg(long, value_name = "FILE", conflicts_with_all = ["stacks", "test", "send_queued"])]
        html: Option<PathBuf>,
        /// Send a test message by mail and on every channel of `notify`, and say what happened on
        /// each. The exit status is 1 if one failed
        #[arg(long, alias = "mail-test")]
        test: bool,
        /// Send what earlier commands could not send. The exit status is 2 if something is left
        #[arg(long, conflicts_with = "test")]
        send_queued: bool,
    },
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions { shell: clap_complete::Shell },
    /// Write the man pages into a directory
    ManPages { dir: PathBuf },
    /// Do a part of a run that another process watches
    #[command(hide = true)]
    Worker,
}

/// How a proposed configuration is handed out.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Print a NixOS module instead of JSON
    #[arg(long)]
    pub nix: bool,
    /// Write the configuration to this file, which must not exist
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(override_usage = "docker-stack-backup mount [OPTIONS] [WHAT] DIR [-- COMMAND...]")]
pub struct MountArgs {
    /// DIR, an empty directory. Before it, the one archive to show, as DIR itself: STACK (its newest
    /// good archive), STACK@TIME, or an archive file
    #[arg(value_name = "WHAT DIR", required = true, num_args = 1..=2)]
    pub places: Vec<String>,
    /// Show the newest archive of each stack [default]. A stack whose newest archive cannot be
    /// used is left out, and the exit status is 2
    #[arg(long, conflicts_with = "all")]
    pub latest: bool,
    /// Show all archives that are complete
    #[arg(long)]
    pub all: bool,
    /// Show the newest good archive of a stack although newer ones are incomplete, damaged, dated
    /// in the future or of another stack
    #[arg(long, conflicts_with = "all")]
    pub pass_over: bool,
    /// Run this command while DIR is mounted, and unmount when it has ended. The exit status is 2
    /// if it failed
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// STACK (its newest good archive), STACK@TIME, or an archive file
    #[arg(value_name = "WHAT", add = ArgValueCompleter::new(complete::archives))]
    pub what: String,
    /// A public key of age (age1...) whose owner can decrypt it; may be given several times
    #[arg(long = "recipient", short, value_name = "KEY")]
    pub recipients: Vec<String>,
    /// A file with public keys, one in a line; may be given several times
    #[arg(long = "recipients-file", short = 'R', value_name = "FILE")]
    pub recipients_files: Vec<PathBuf>,
    /// Use the newest good archive although newer ones are incomplete, damaged, dated in the
    /// future or of another stack
    #[arg(long)]
    pub pass_over: bool,
}

#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Name of the stack
    #[arg(value_name = "STACK", add = ArgValueCompleter::new(complete::stacks))]
    pub stack: String,
    /// Kill the command after this time. What it has done is rolled back
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub limit: u64,
    /// How long the stack may take to be up and healthy after the command [default: `startTimeout`
    /// of the stack]
    #[arg(long, value_name = "SECONDS")]
    pub healthy_within: Option<u64>,
    /// Update although containers can write data that is in no archive, and that stays as the
    /// update leaves it
    #[arg(long)]
    pub allow_holes: bool,
    /// Update although a running container can write to a directory above the data, and so to what a
    /// roll-back unpacks there
    #[arg(long)]
    pub allow_reachable: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// STACK (its newest good archive), STACK@TIME (such as @20261124_031500 or @2026-11-24), an
    /// archive file, or - for an archive on standard input
    #[arg(value_name = "WHAT", add = ArgValueCompleter::new(complete::archives))]
    pub what: String,
    /// Restore the configured stack WHAT from this archive file (- for standard input). Needed for
    /// archive files without a manifest, such as those made by tar or by docker-backup.py
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub from: Option<String>,
    /// Restore the stack WHAT from the files of a mounted archive that were copied to this
    /// directory, by restic for example. They are compared with the manifest and the sums among
    /// them, and copied once more beside DIR
    #[arg(long, value_name = "DIR", conflicts_with_all = ["from", "to", "pass_over"])]
    pub from_tree: Option<PathBuf>,
    /// The archive is encrypted, and this file has a secret key of age that fits, as age-keygen
    /// writes it; may be given several times. An archive that is not encrypted is refused then
    #[arg(
        long = "identity",
        short = 'i',
        value_name = "FILE",
        conflicts_with_all = ["from_tree", "pass_over"]
    )]
    pub identities: Vec<PathBuf>,
    /// Unpack into this directory, which must be missing or empty, and change nothing else
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Only these parts: volumes, services (their volumes and binds), or paths: relative to the
    /// stack's directory, on the host, in a container (SERVICE:/PATH, or /PATH) or in the archive.
    /// Paths may be globs. In place, the stack is stopped, the parts are exchanged, and what ran is
    /// started again
    #[arg(long, value_name = "PART", num_args = 1..)]
    pub only: Vec<String>,
    /// With --only: leave the stack running while files or directories are exchanged. Services
    /// keep files open as they were, and may write over what is restored
    #[arg(long, requires = "only", conflicts_with_all = ["to", "diff", "no_start"])]
    pub live: bool,
    /// Create the external networks and volumes that are missing: networks with the driver bridge,
    /// volumes empty
    #[arg(long, conflicts_with_all = ["to", "diff"])]
    pub create_external: bool,
    /// Show what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what differs between the archive and the stack (or DIR of --to), and change nothing: +
    /// is not in the archive, - is only in the archive, ~ has changed. The exit status is 2 if
    /// anything differs
    #[arg(long, conflicts_with_all = ["dry_run", "allow_devices", "allow_volume_options", "allow_damaged", "yes", "keep_old", "no_start"])]
    pub diff: bool,
    /// Create the device nodes in the archive. They are refused otherwise, unless the archive is
    /// one of a stack in the store
    #[arg(long)]
    pub allow_devices: bool,
    /// Create missing volumes with the driver and options that an archive from
    /// outside of the store gives them.
    #[arg(long)]
    pub allow_volume_options: bool,
    /// Replace the stack even if the archive does not match its .sums file
    #[arg(long, conflicts_with = "to")]
    pub allow_damaged: bool,
    /// With --yes: replace the stack although a running container can write to a directory above
    /// what is replaced, and so to what is unpacked there
    #[arg(long, requires = "yes")]
    pub allow_reachable: bool,
    /// Replace the stack without asking
    #[arg(long, short, conflicts_with = "to")]
    pub yes: bool,
    /// Use the newest good archive although newer ones are incomplete, damaged, dated in the
    /// future or of another stack
    #[arg(long, conflicts_with = "from")]
    pub pass_over: bool,
    /// Keep the replaced data beside the restored data instead of removing it
    #[arg(long, conflicts_with = "to")]
    pub keep_old: bool,
    /// Leave the restored stack stopped
    #[arg(long, conflicts_with = "to")]
    pub no_start: bool,
}
