//! What a run did, as plain data. Everything that is printed, mailed or exported
//! is made from these values, and nothing from log lines.
//!
//! The names of fields and of enum variants are part of the program's JSON
//! output.

mod channel;
mod coverage;
mod drill;
mod guard;
mod handover;
mod hook;
mod stack;
mod store;

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::time::OffsetTime;

pub use channel::{ChannelOutcome, ChannelStatus};
pub use coverage::{MountCoverage, MountKind, ToldHoles};
pub use drill::{DrillOutcome, LastDrill, SkippedDrill};
pub use guard::{GuardOutcome, GuardStatus, ImageChange, ImageName};
pub use handover::{HandoverOutcome, HandoverStep, HandoverStepKind};
pub use hook::HookOutcome;
pub use stack::{
    ArchiveOutcome, CaptureOutcome, DamagedArchive, Failure, Phase, PhaseTime, StackOutcome,
    StackStatus,
};
pub use store::{PrunedStack, RemovedArchive, StoreUsage, UnconfiguredProject};

/// Version of the JSON in `last-run.json` and of the output of `--json`.
pub const FORMAT_VERSION: u32 = 1;

/// One invocation of `run`, saved after every stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunOutcome {
    pub format_version: u32,
    pub program_version: String,
    pub host: String,
    pub backup_dir: PathBuf,
    pub started: OffsetTime,
    /// Name of the time zone of the machine, if it is known.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// `None` while the run is under way. It stays so if the run is killed.
    pub finished: Option<OffsetTime>,
    /// Why the run ended early: the name of a signal, or "killed" when a later
    /// `recover` found the run unfinished.
    pub interrupted: Option<String>,
    /// Stacks that an earlier, interrupted run had left stopped.
    pub recovered: Vec<RecoveredStack>,
    pub stacks: Vec<StackOutcome>,
    /// Stacks that the run before found, and this one did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<GoneStack>,
    /// What was told about holes up to now, by this run and those before it.
    #[serde(default)]
    pub holes: ToldHoles,
    /// Projects that run without a stack; `None` if they were not looked for, because the
    /// run is not one of all stacks.
    #[serde(default)]
    pub unconfigured: Option<Vec<UnconfiguredProject>>,
    /// Whether a warning makes the run incomplete.
    #[serde(default)]
    pub fail_on_warning: bool,
    /// What was handed over to each repository that is configured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handovers: Vec<HandoverOutcome>,
    pub pruned: Vec<PrunedStack>,
    pub store: Option<StoreUsage>,
    /// Failures that belong to no single stack: pruning, the log file.
    pub errors: Vec<String>,
    /// The channels that had news to send.
    #[serde(default)]
    pub channels: Vec<ChannelOutcome>,
    /// The log lines of this run, the oldest first.
    pub log: Vec<String>,
}

/// A stack that is not on this host any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoneStack {
    pub stack: String,
    pub warnings: Vec<String>,
}

/// A stack that an interrupted run had left stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveredStack {
    pub stack: String,
    pub services: Vec<String>,
    /// Why the stack is still down; `None` when it is up again.
    pub error: Option<String>,
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Hooks whose effect was taken back.
    #[serde(default)]
    pub undone: Vec<String>,
    /// Why the effect of others could not be taken back, and what to do.
    #[serde(default)]
    pub not_undone: Vec<String>,
}

/// Exit status of the program, as in the README's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitStatus {
    Ok = 0,
    /// Nothing was attempted, because of the command line, the configuration or
    /// the lock.
    CouldNotRun = 1,
    /// Less was done than was asked for. Every stack is up again.
    Incomplete = 2,
    /// A stack that ran before is still down, or the effect of a hook is not taken back.
    StackDown = 3,
}

impl ExitStatus {
    /// Returns what it says of a run, as an end of a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            ExitStatus::Ok => "all good",
            ExitStatus::CouldNotRun => "nothing was done",
            ExitStatus::Incomplete => "less was done than was asked for; every stack is up",
            ExitStatus::StackDown => "a stack is down, or a hook is not undone",
        }
    }
}

impl RunOutcome {
    pub fn exit_status(&self) -> ExitStatus {
        let is_down = |stack: &StackOutcome| {
            stack.status == StackStatus::Down || !stack.not_undone.is_empty()
        };
        let needs_recovery =
            |stack: &RecoveredStack| stack.error.is_some() || !stack.not_undone.is_empty();
        let is_ok = |stack: &StackOutcome| stack.status == StackStatus::Ok;
        if self.stacks.iter().any(is_down) || self.recovered.iter().any(needs_recovery) {
            ExitStatus::StackDown
        } else if self.interrupted.is_some()
            || !self.errors.is_empty()
            || self.channel_troubles().next().is_some()
            || !self.stacks.iter().all(is_ok)
            || self.pruned.iter().any(|stack| stack.error.is_some())
            || self.handovers.iter().any(HandoverOutcome::has_failed)
            || self.fails_by_warnings()
        {
            ExitStatus::Incomplete
        } else {
            ExitStatus::Ok
        }
    }

    /// Whether nothing failed, there is no warning, no stack had to be recovered, and
    /// no hole in the archives is new.
    pub fn is_all_well(&self) -> bool {
        self.exit_status() == ExitStatus::Ok
            && self.recovered.is_empty()
            && self.warnings().is_empty()
            && !self.stacks.iter().any(StackOutcome::has_new_holes)
    }

    /// Keeps only what concerns these stacks.
    pub fn select(&mut self, stacks: &[String]) {
        self.stacks.retain(|stack| stacks.contains(&stack.stack));
        self.recovered.retain(|stack| stacks.contains(&stack.stack));
        self.pruned.retain(|stack| stacks.contains(&stack.stack));
        self.handovers.clear();
        self.unconfigured = None;
    }

    /// Returns the outcome of a stack; `None` if the run is not one of this stack.
    pub fn stack(&self, name: &str) -> Option<&StackOutcome> {
        self.stacks.iter().find(|stack| stack.stack == name)
    }

    /// Returns the project that a stack was, as far as the run looked at it.
    pub fn project(&self, stack: &str) -> Option<&str> {
        self.stack(stack)?.project.as_deref()
    }

    /// Returns the channels that did not do all they were to do.
    pub fn channel_troubles(&self) -> impl Iterator<Item = &ChannelOutcome> {
        let channels = self.channels.iter();
        channels.filter(|channel| channel.error.is_some())
    }

    /// Whether a warning is what makes the run incomplete, if nothing else does.
    pub fn fails_by_warnings(&self) -> bool {
        self.fail_on_warning && !self.warnings().is_empty()
    }

    /// Returns the warnings about all stacks, and about projects without a stack, each
    /// with its name.
    pub fn warnings(&self) -> Vec<(&str, Cow<'_, str>)> {
        let recovered = self.recovered.iter().map(|s| (&s.stack, &s.warnings));
        let stacks = self.stacks.iter().map(|s| (&s.stack, &s.warnings));
        let gone = self.gone.iter().map(|s| (&s.stack, &s.warnings));
        let of_stacks = recovered
            .chain(stacks)
            .chain(gone)
            .flat_map(|(stack, warnings)| {
                let warnings = warnings.iter().map(|warning| Cow::from(warning.as_str()));
                warnings.map(|warning| (stack.as_str(), warning))
            });
        let of_repositories = self.handovers.iter().flat_map(|handover| {
            let warnings = handover.warnings.iter();
            warnings.map(|warning| (&*handover.repository, Cow::from(warning.as_str())))
        });
        let unconfigured = self.unconfigured.iter().flatten();
        let of_projects =
            unconfigured.map(|found| (found.project.as_str(), found.warning().into()));
        of_stacks
            .chain(of_repositories)
            .chain(of_projects)
            .collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run of the stack `web`.
    pub fn example_run(started: &str, status: StackStatus) -> RunOutcome {
        let archive = ArchiveOutcome {
            crash_consistent: false,
            path: "/backup/web/web_20261101_031500.tar".into(),
            archive_bytes: 4096,
            content_bytes: 1000,
            member_count: 3,
            socket_count: 0,
            excluded_count: 0,
            changed_count: 0,
        };
        let stack = StackOutcome {
            status,
            archive: (status == StackStatus::Ok).then_some(archive),
            downtime_ms: Some(1500),
            ..StackOutcome::not_run("web")
        };
        RunOutcome {
            format_version: FORMAT_VERSION,
            program_version: String::new(),
            host: String::new(),
            backup_dir: PathBuf::new(),
            started: started.parse().unwrap(),
            time_zone: None,
            finished: Some(started.parse().unwrap()),
            interrupted: None,
            recovered: Vec::new(),
            stacks: vec![stack],
            gone: Vec::new(),
            holes: ToldHoles::default(),
            unconfigured: None,
            fail_on_warning: false,
            handovers: Vec::new(),
            pruned: Vec::new(),
            store: None,
            errors: Vec::new(),
            channels: Vec::new(),
            log: Vec::new(),
        }
    }

    #[test]
    fn a_run_with_a_warning_or_a_recovery_succeeds_but_is_not_all_well() {
        let run = example_run("2026-11-01T03:15:00+01:00", StackStatus::Ok);
        assert!(run.is_all_well());
        let mut warned = run.clone();
        warned.stacks[0].warnings.push("it is damaged".to_owned());
        let mut recovered = run.clone();
        recovered.recovered.push(RecoveredStack {
            stack: "web".to_owned(),
            ..RecoveredStack::default()
        });
        for not_undone in [true, false] {
            let mut pending = recovered.clone();
            match not_undone {
                true => pending.recovered[0].not_undone.push("x".to_owned()),
                false => pending.stacks[0].not_undone.push("x".to_owned()),
            }
            assert_eq!(pending.exit_status(), ExitStatus::StackDown);
        }
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
