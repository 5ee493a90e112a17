//! What came of a hook.

use serde::{Deserialize, Serialize};

use crate::config::HookPlace;

/// A hook, or the command that takes its effect back, that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookOutcome {
    /// The place of the hook.
    pub when: HookPlace,
    /// Whether this is the command that takes the hook's effect back.
    pub is_undo: bool,
    /// Where it ran, and the command.
    pub command: String,
    pub duration_ms: u64,
    /// Why it failed; `None` after a success.
    pub error: Option<String>,
    /// The last lines that it printed.
    pub output: Vec<String>,
}

impl HookOutcome {
    /// Names what ran: `beforeStop app: occ ...`, or `undo of beforeStop app: occ ...`.
    pub fn label(&self) -> String {
        let undo = if self.is_undo { "undo of " } else { "" };
        format!("{undo}{} {}", self.when.name(), self.command)
    }
}
