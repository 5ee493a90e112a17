//! What earlier runs did, in short, in the state directory: a bounded number of them,
//! and the last good backup of each stack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::outcome::{RunOutcome, StackOutcome, StackStatus};
use crate::sys::state_file::{self, State};
use crate::sys::time::OffsetTime;

/// More than a year of nights.
const RUNS_MAX: usize = 400;

/// The runs that are remembered, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    format_version: u32,
    pub runs: Vec<PastRun>,
    /// By the stack's name; the backup may be of a run that is not remembered.
    pub last_good: BTreeMap<String, GoodBackup>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastRun {
    pub started: OffsetTime,
    pub stacks: Vec<PastBackup>,
}

/// What a run did to one stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastBackup {
    pub stack: String,
    pub status: StackStatus,
    pub downtime_ms: Option<u64>,
    pub archive_bytes: Option<u64>,
    /// Bytes that were written while the stack was down.
    pub down_bytes: Option<u64>,
    /// The first failure.
    pub failure: Option<String>,
}

/// A backup that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoodBackup {
    /// When its run began.
    pub time: OffsetTime,
    pub archive_bytes: u64,
}

impl State for History {
    const NAME: &'static str = "the history of runs";
    const FORMAT_VERSION: u32 = 1;
}

impl Default for History {
    fn default() -> History {
        History {
            format_version: History::FORMAT_VERSION,
            runs: Vec::new(),
            last_good: BTreeMap::new(),
        }
    }
}

impl PastBackup {
    fn of(outcome: &StackOutcome) -> PastBackup {
        let capture = outcome.capture.as_ref();
        PastBackup {
            stack: outcome.stack.clone(),
            status: outcome.status,
            downtime_ms: outcome.downtime_ms,
            archive_bytes: outcome.archive.as_ref().map(|made| made.archive_bytes),
            down_bytes: capture.map(|capture| capture.down_bytes),
            failure: outcome.failures.first().map(|first| first.message.clone()),
        }
    }
}

impl History {
    /// Reads the history; it is empty if there is none.
    ///
    /// # Errors
    /// When the file cannot be read or parsed.
    pub fn read(state_dir: &Path) -> Result<History> {
        Ok(state_file::read(&history_path(state_dir))?.unwrap_or_default())
    }

    /// Returns what the remembered runs did to a stack, oldest first.
    pub fn of_stack(&self, stack: &str) -> Vec<(&PastRun, &PastBackup)> {
        let mut found = Vec::new();
        for run in &self.runs {
            let of_stack = run.stacks.iter().filter(|past| past.stack == stack);
            found.extend(of_stack.map(|past| (run, past)));
        }
        found
    }

    /// Returns the lengths of the archives of a stack's remembered good backups, in bytes,
    /// oldest first.
    pub fn good_sizes(&self, stack: &str) -> Vec<u64> {
        let past = self.of_stack(stack).into_iter().map(|(_, past)| past);
        past.filter(|past| past.status == StackStatus::Ok)
            .filter_map(|past| past.archive_bytes)
            .collect()
    }

    fn add(&mut self, outcome: &RunOutcome) {
        for stack in &outcome.stacks {
            let made = stack.archive.as_ref();
            if let Some(made) = made.filter(|_| stack.status == StackStatus::Ok) {
                let good = GoodBackup {
                    time: outcome.started.clone(),
                    archive_bytes: made.archive_bytes,
                };
                self.last_good.insert(stack.stack.clone(), good);
            }
        }
        // A run that was killed after it was added is concluded once more.
        self.runs.retain(|run| run.started != outcome.started);
        self.runs.push(PastRun {
            started: outcome.started.clone(),
            stacks: outcome.stacks.iter().map(PastBackup::of).collect(),
        });
        let surplus = self.runs.len().saturating_sub(RUNS_MAX);
        self.runs.drain(..surplus);
    }
}

/// Adds a run that has ended. The lock must be held.
///
/// # Errors
/// When the file cannot be written. One that cannot be read is replaced.
pub fn add(state_dir: &Path, outcome: &RunOutcome) -> Result<()> {
    let mut history = History::read(state_dir).unwrap_or_else(|error| {
        tracing::warn!("{error:#}; the file is replaced");
        History::default()
    });
    history.add(outcome);
    state_file::write(&history_path(state_dir), &history)
}

fn history_path(state_dir: &Path) -> PathBuf {
    state_file::path(state_dir, "history")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::example_run;

    #[test]
    fn the_last_good_backup_is_remembered_longer_than_its_run() {
        let mut history = History::default();
        let good = example_run("2026-11-01T03:15:00+01:00", StackStatus::Ok);
        history.add(&good);
        for minute in 0..RUNS_MAX {
            let started = format!("2026-11-02T{:02}:{:02}:00+01:00", minute / 60, minute % 60);
            let bad = example_run(&started, StackStatus::Failed);
            history.add(&bad);
            history.add(&bad);
        }
        assert_eq!(history.runs.len(), RUNS_MAX);
        let past = history.of_stack("web");
        assert!(
            past.iter()
                .all(|(_, past)| past.status == StackStatus::Failed)
        );
        assert_eq!(history.last_good["web"].time, good.started);
        // The control: a later good one takes its place.
        let later = example_run("2026-11-03T03:15:00+01:00", StackStatus::Ok);
        history.add(&later);
        assert_eq!(history.last_good["web"].time, later.started);
    }

    #[test]
    fn the_sizes_of_good_backups_are_known() {
        let dir = tempfile::tempdir().unwrap();
        for (day, status) in [
            (1, StackStatus::Ok),
            (2, StackStatus::Failed),
            (3, StackStatus::Ok),
        ] {
            let started = format!("2026-11-0{day}T03:15:00+01:00");
            let mut run = example_run(&started, StackStatus::Ok);
            run.stacks[0].status = status;
            run.stacks[0].archive.as_mut().unwrap().archive_bytes = day;
            add(dir.path(), &run).unwrap();
        }
        let history = History::read(dir.path()).unwrap();
        assert_eq!(history.good_sizes("web"), [1, 3]);
        assert_eq!(history.good_sizes("db"), [0; 0]);
    }

    #[test]
    fn a_damaged_history_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(history_path(dir.path()), "{").unwrap();
        History::read(dir.path()).unwrap_err();
        let run = example_run("2026-11-01T03:15:00+01:00", StackStatus::Ok);
        add(dir.path(), &run).unwrap();
        assert_eq!(History::read(dir.path()).unwrap().runs.len(), 1);
    }
}
