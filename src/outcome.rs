//! What a run did. Everything that is printed, mailed or exported is made from
//! these values; nothing is made from log lines.

use std::path::PathBuf;

use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};

use crate::config::Capture;

/// Version of the JSON written to `last-run.json` and by `--json`.
pub const FORMAT_VERSION: u32 = 1;

/// One invocation of `run`, saved after every stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunOutcome {
    pub format_version: u32,
    pub program_version: String,
    pub host: String,
    pub backup_dir: PathBuf,
    pub started: ZonedDateTime,
    /// `None` while the run is under way, and for ever if it was killed.
    pub finished: Option<ZonedDateTime>,
    /// Why the run ended before it was through: a signal, or "killed" when a
    /// later `recover` found it unfinished.
    pub interrupted: Option<String>,
    /// Stacks an earlier, interrupted run had left stopped.
    pub recovered: Vec<RecoveredStack>,
    pub stacks: Vec<StackOutcome>,
    pub pruned: Vec<PrunedStack>,
    pub store: Option<StoreUsage>,
    /// Failures that belong to no single stack: pruning, mail, the log file.
    pub errors: Vec<String>,
    /// The log lines of this run, oldest first.
    pub log: Vec<String>,
}

/// One stack in one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StackOutcome {
    pub stack: String,
    /// Compose's name for it; unknown when planning failed.
    pub project: Option<String>,
    pub status: StackStatus,
    /// In the order in which they happened; empty when all went well.
    pub failures: Vec<Failure>,
    pub warnings: Vec<String>,
    /// Services that were running before, and were (to be) started again.
    pub services: Vec<String>,
    pub archive: Option<ArchiveOutcome>,
    /// From the stop being issued to the start being confirmed; `None` when
    /// nothing was running.
    pub downtime_ms: Option<u64>,
    /// How the data was read; `None` if it was not.
    #[serde(default)]
    pub capture: Option<CaptureOutcome>,
    pub phases: Vec<PhaseTime>,
    pub coverage: Vec<MountCoverage>,
    /// The last drill of any archive of the stack, before the run.
    #[serde(default)]
    pub drilled: Option<LastDrill>,
    /// Archives in the store that `verify` found damaged.
    #[serde(default)]
    pub damaged: Vec<DamagedArchive>,
}

/// One drill of one stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastDrill {
    pub archive: PathBuf,
    pub time: ZonedDateTime,
    /// Empty when all was well.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedArchive {
    pub path: PathBuf,
    /// When it was found.
    pub time: ZonedDateTime,
    pub problems: Vec<String>,
}

impl StackOutcome {
    /// Before its turn has come.
    pub fn not_run(stack: &str) -> StackOutcome {
        StackOutcome {
            stack: stack.to_owned(),
            project: None,
            status: StackStatus::NotRun,
            failures: Vec::new(),
            warnings: Vec::new(),
            services: Vec::new(),
            archive: None,
            downtime_ms: None,
            capture: None,
            phases: Vec::new(),
            coverage: Vec::new(),
            drilled: None,
            damaged: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StackStatus {
    /// A new archive is in the store, and what ran before runs again.
    Ok,
    /// Something failed, but what ran before runs again (or never stopped).
    Failed,
    /// Something that ran before does not run now.
    Down,
    /// Not attempted, because the run was interrupted before its turn.
    NotRun,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub phase: Phase,
    /// The whole chain of causes on one line, most general first.
    pub message: String,
}

/// The steps of one stack's cycle, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Plan,
    /// Sizes and the free-space check, while the stack is still up.
    Measure,
    /// The stack is still up.
    Precopy,
    Stop,
    Quiet,
    Archive,
    Start,
    Finish,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Plan => "plan",
            Phase::Measure => "measure",
            Phase::Precopy => "pre-copy",
            Phase::Stop => "stop",
            Phase::Quiet => "quiet",
            Phase::Archive => "archive",
            Phase::Start => "start",
            Phase::Finish => "finish",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTime {
    pub phase: Phase,
    pub duration_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveOutcome {
    /// The stack was paused, not stopped: the data is as after a power cut.
    #[serde(default)]
    pub crash_consistent: bool,
    pub path: PathBuf,
    /// Length of the archive file.
    pub archive_bytes: u64,
    /// Sum of the sizes of the regular files in it, hard links counted once.
    pub content_bytes: u64,
    pub member_count: u64,
    /// Sockets cannot be archived and are left out.
    pub socket_count: u64,
    pub excluded_count: u64,
    /// Files that changed or vanished while they were read; their members are
    /// cut or padded with zeros.
    pub changed_count: u64,
}

/// How a stack's data was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureOutcome {
    pub method: Capture,
    /// Why it is not the one that was asked for.
    pub reason: Option<String>,
    /// What of the archive was read and written while the stack was down.
    pub down_bytes: u64,
    /// Times that data was copied while the stack was up.
    pub pass_count: u32,
    /// File data whose blocks the archive shares with the stack (what was shared
    /// by several passes counts for each), and files that were copied because
    /// the file system refused to share theirs.
    pub shared_bytes: u64,
    pub refused_count: u64,
}

/// One place where a stack keeps data, and whether the archive holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountCoverage {
    pub kind: MountKind,
    /// A volume's name or a path on the host.
    pub name: String,
    /// Services that mount it, as `service:/path/in/container`.
    pub used_by: Vec<String>,
    pub archived: bool,
    /// Why it is not archived, or what limits it.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    Directory,
    Volume,
    Bind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveredStack {
    pub stack: String,
    pub services: Vec<String>,
    /// Why the stack is still down; `None` when it is up again.
    pub error: Option<String>,
}

/// What retention did to the archives of one stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedStack {
    pub stack: String,
    pub kept_count: u64,
    pub removed: Vec<RemovedArchive>,
    /// Why pruning did not happen or stopped half-way.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedArchive {
    pub path: PathBuf,
    pub archive_bytes: u64,
    pub reason: String,
}

/// The file system that holds the store, after the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreUsage {
    /// All finished archives of all stacks in the store.
    pub archive_count: u64,
    pub archive_bytes: u64,
    pub file_system_total_bytes: u64,
    pub file_system_available_bytes: u64,
}

/// Exit status of the program, see the README's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitStatus {
    Ok = 0,
    /// Usage, configuration or lock: nothing was attempted.
    CouldNotRun = 1,
    /// Less was done than was asked for; every stack is up again.
    Incomplete = 2,
    /// A stack that ran before is still down.
    StackDown = 3,
}

impl RunOutcome {
    pub fn exit_status(&self) -> ExitStatus {
        let down = self
            .stacks
            .iter()
            .any(|stack| stack.status == StackStatus::Down)
            || self.recovered.iter().any(|stack| stack.error.is_some());
        if down {
            ExitStatus::StackDown
        } else if self.interrupted.is_some()
            || !self.errors.is_empty()
            || self
                .stacks
                .iter()
                .any(|stack| stack.status != StackStatus::Ok)
            || self.pruned.iter().any(|stack| stack.error.is_some())
        {
            ExitStatus::Incomplete
        } else {
            ExitStatus::Ok
        }
    }

    /// Whether nothing failed, nothing is warned of, and nothing had been left
    /// stopped.
    pub fn is_all_well(&self) -> bool {
        self.exit_status() == ExitStatus::Ok
            && self.recovered.is_empty()
            && self.stacks.iter().all(|stack| stack.warnings.is_empty())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillOutcome {
    pub stack: String,
    /// Empty if there is none.
    pub archive: String,
    /// Services that ran and became healthy.
    pub services: Vec<String>,
    pub duration_ms: u64,
    /// Empty when all is well.
    pub problems: Vec<String>,
    /// The signal that came before it was done; nothing is known then.
    pub interrupted: Option<String>,
    /// What the throw-away project lacks of the real one.
    pub notes: Vec<String>,
}

impl DrillOutcome {
    /// What could not even be tried.
    pub fn failed(stack: &str, archive: String, problem: String) -> DrillOutcome {
        DrillOutcome {
            stack: stack.to_owned(),
            archive,
            services: Vec::new(),
            duration_ms: 0,
            problems: vec![problem],
            interrupted: None,
            notes: Vec::new(),
        }
    }

    /// One that did not come to its end, or whose turn did not come.
    pub fn interrupted(stack: &str, signal: &str) -> DrillOutcome {
        DrillOutcome {
            problems: Vec::new(),
            interrupted: Some(signal.to_owned()),
            ..DrillOutcome::failed(stack, String::new(), String::new())
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty() && self.interrupted.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_or_a_recovery_is_no_failure_and_yet_not_all_well() {
        let stack = StackOutcome {
            status: StackStatus::Ok,
            ..StackOutcome::not_run("web")
        };
        let run = RunOutcome {
            format_version: FORMAT_VERSION,
            program_version: String::new(),
            host: String::new(),
            backup_dir: PathBuf::new(),
            started: ZonedDateTime::now(),
            finished: Some(ZonedDateTime::now()),
            interrupted: None,
            recovered: Vec::new(),
            stacks: vec![stack],
            pruned: Vec::new(),
            store: None,
            errors: Vec::new(),
            log: Vec::new(),
        };
        assert!(run.is_all_well());
        let mut warned = run.clone();
        warned.stacks[0].warnings.push("it is damaged".to_owned());
        let mut recovered = run.clone();
        recovered.recovered.push(RecoveredStack {
            stack: "web".to_owned(),
            services: Vec::new(),
            error: None,
        });
        for run in [warned, recovered] {
            assert_eq!(run.exit_status(), ExitStatus::Ok);
            assert!(!run.is_all_well());
        }
        let failed = RunOutcome {
            errors: vec!["the disk is full".to_owned()],
            ..run
        };
        assert!(!failed.is_all_well());
    }
}
