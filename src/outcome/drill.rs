//! What drills did.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::time::OffsetTime;

/// The last drill of a stack, as it is remembered for later reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastDrill {
    pub archive: PathBuf,
    pub time: OffsetTime,
    /// Name of the time zone of the machine, if it is known.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// Empty after a success.
    pub problems: Vec<String>,
    /// Why nothing was drilled, although nothing is wrong.
    #[serde(default)]
    pub skipped: Option<String>,
    /// The last drill since then that was skipped.
    #[serde(default)]
    pub skipped_later: Option<SkippedDrill>,
}

/// A drill for which there was nothing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedDrill {
    pub time: OffsetTime,
    pub reason: String,
}

impl LastDrill {
    /// Returns what to remember after `later`. One that was skipped proves nothing, so it
    /// does not replace one that was done.
    pub fn followed_by(self, later: LastDrill) -> LastDrill {
        match later.skipped {
            Some(reason) if self.skipped.is_none() => LastDrill {
                skipped_later: Some(SkippedDrill {
                    time: later.time,
                    reason,
                }),
                ..self
            },
            _ => later,
        }
    }

    /// Returns when a drill of the stack was last tried.
    pub fn last_tried(&self) -> &OffsetTime {
        let later = self.skipped_later.as_ref();
        later.map_or(&self.time, |skipped| &skipped.time)
    }
}

/// What one drill of one stack did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillOutcome {
    pub stack: String,
    /// Path of the archive; empty if there is none.
    pub archive: String,
    /// Services that ran and became healthy.
    pub services: Vec<String>,
    pub duration_ms: u64,
    /// Empty after a success.
    pub problems: Vec<String>,
    /// The signal that arrived before the drill was complete. Its result is
    /// unknown then.
    pub interrupted: Option<String>,
    /// Why there was nothing to drill. Nothing is wrong then.
    pub skipped: Option<String>,
    /// How the throw-away project differs from the real one.
    pub notes: Vec<String>,
}

impl DrillOutcome {
    /// Returns the outcome of a drill that could not be tried.
    pub fn failed(stack: &str, archive: String, problem: String) -> DrillOutcome {
        DrillOutcome {
            stack: stack.to_owned(),
            archive,
            services: Vec::new(),
            duration_ms: 0,
            problems: vec![problem],
            interrupted: None,
            skipped: None,
            notes: Vec::new(),
        }
    }

    /// Returns the outcome of a drill that a signal ended, or that had not begun
    /// when the signal arrived.
    pub fn interrupted(stack: &str, signal: &str) -> DrillOutcome {
        DrillOutcome {
            problems: Vec::new(),
            interrupted: Some(signal.to_owned()),
            ..DrillOutcome::failed(stack, String::new(), String::new())
        }
    }

    /// Returns the outcome of a drill that is not done, for a reason that is no
    /// fault.
    pub fn skipped(stack: &str, archive: String, reason: &str) -> DrillOutcome {
        DrillOutcome {
            problems: Vec::new(),
            skipped: Some(reason.to_owned()),
            ..DrillOutcome::failed(stack, archive, String::new())
        }
    }

    /// Returns whether nothing is wrong. A drill that was skipped counts, too.
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty() && self.interrupted.is_none()
    }
}
