//! What a run did to one stack.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::coverage::MountCoverage;
use super::drill::LastDrill;
use super::hook::HookOutcome;
use crate::config::Capture;
use crate::sys::time::OffsetTime;

/// One stack in one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StackOutcome {
    pub stack: String,
    /// The project's name in Compose; `None` when planning failed.
    pub project: Option<String>,
    pub status: StackStatus,
    /// In the order in which they happened; empty after a success.
    pub failures: Vec<Failure>,
    pub warnings: Vec<String>,
    /// Services that were running before the backup, and were to be started
    /// again.
    pub services: Vec<String>,
    pub archive: Option<ArchiveOutcome>,
    /// Time from the stop being issued until all containers ran again, or, if the
    /// stack is still down, until the start was given up. `None` when nothing was
    /// running.
    pub downtime_ms: Option<u64>,
    /// Time from the stop being issued until all containers were as before, those
    /// with a health check healthy. `None` when nothing was running, or the start
    /// was not confirmed.
    #[serde(default)]
    pub healthy_ms: Option<u64>,
    /// How the data was read; `None` if it was not.
    #[serde(default)]
    pub capture: Option<CaptureOutcome>,
    pub phases: Vec<PhaseTime>,
    /// The hooks that ran, in their order.
    #[serde(default)]
    pub hooks: Vec<HookOutcome>,
    /// Hooks whose effect is not taken back.
    #[serde(default)]
    pub not_undone: Vec<String>,
    pub coverage: Vec<MountCoverage>,
    /// The last drill of any archive of the stack, before the run.
    #[serde(default)]
    pub drilled: Option<LastDrill>,
    /// Archives in the store that `verify` found damaged.
    #[serde(default)]
    pub damaged: Vec<DamagedArchive>,
    /// When the newest good archive in the store was begun, at the end of the run.
    #[serde(default)]
    pub newest_good: Option<OffsetTime>,
}

impl StackOutcome {
    /// Whether something is not archived that was, or was not there, in the run before.
    pub fn has_new_holes(&self) -> bool {
        self.coverage.iter().any(|mount| mount.is_new)
    }

    /// Adds a failure, unless it is known; a stack that was all right has failed now.
    pub fn add_failure(&mut self, phase: Phase, message: String) {
        if self.status == StackStatus::Ok {
            self.status = StackStatus::Failed;
        }
        let failure = Failure { phase, message };
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    /// Adds what came of taking back the effect of a hook.
    pub fn add_undone(&mut self, undone: HookOutcome) {
        if let Some(error) = &undone.error {
            self.add_failure(Phase::Hooks, error.clone());
        }
        self.hooks.push(undone);
    }

    /// Returns the outcome of a stack whose turn has not come.
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
            healthy_ms: None,
            capture: None,
            phases: Vec::new(),
            hooks: Vec::new(),
            not_undone: Vec::new(),
            coverage: Vec::new(),
            drilled: None,
            damaged: Vec::new(),
            newest_good: None,
        }
    }
}

/// The result of a stack's backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StackStatus {
    /// A new archive is in the store, and everything that ran before runs again.
    Ok,
    /// Something failed, but everything that ran before runs again (or was never
    /// stopped).
    Failed,
    /// A container that ran before does not run now.
    Down,
    /// Not attempted, because the run ended before the stack's turn.
    NotRun,
}

/// Why a stack's backup failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub phase: Phase,
    /// The whole chain of causes on one line, the most general first.
    pub message: String,
}

/// The phases of a stack's backup, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Plan,
    /// Sizes are added up and compared with the free space. The stack is up.
    Measure,
    /// Data is copied while the stack is up.
    Precopy,
    Stop,
    /// Nobody may have the stack's files open for writing.
    Quiet,
    Archive,
    Start,
    Finish,
    /// Commands of the administrator, wherever they run.
    Hooks,
}

impl Phase {
    /// The phase's name in reports and in the progress line.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Plan => "plan",
            Phase::Measure => "measure",
            Phase::Precopy => "pre-copy",
            Phase::Stop => "stop",
            Phase::Quiet => "quiet check",
            Phase::Archive => "archive",
            Phase::Start => "start",
            Phase::Finish => "finish",
            Phase::Hooks => "hooks",
        }
    }
}

/// How long one phase took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTime {
    pub phase: Phase,
    pub duration_ms: u64,
}

/// The archive that a run made of a stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveOutcome {
    /// The stack was paused, not stopped: the data is as after a power cut.
    #[serde(default)]
    pub crash_consistent: bool,
    pub path: PathBuf,
    /// Length of the archive file.
    pub archive_bytes: u64,
    /// Sum of the sizes of the regular files in it; hard links count once.
    pub content_bytes: u64,
    pub member_count: u64,
    /// Sockets, which cannot be archived and are left out.
    pub socket_count: u64,
    pub excluded_count: u64,
    /// Files that changed or vanished while they were read. Their members are cut
    /// or padded with zeros.
    pub changed_count: u64,
}

/// How a stack's data was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureOutcome {
    pub method: Capture,
    /// Why this is not the method that is configured.
    pub reason: Option<String>,
    /// Bytes of the archive that were read and written while the stack was down.
    pub down_bytes: u64,
    /// How often data was copied while the stack was up.
    pub pass_count: u32,
    /// File data whose blocks the archive shares with the stack. Data that was
    /// shared by several passes counts once for each.
    pub shared_bytes: u64,
    /// Files that were copied because the file system refused to share their
    /// blocks.
    pub refused_count: u64,
}

/// An archive that `verify` found damaged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedArchive {
    pub path: PathBuf,
    /// When the damage was found.
    pub time: OffsetTime,
    pub problems: Vec<String>,
}
