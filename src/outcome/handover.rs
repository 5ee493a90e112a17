//! What was handed over to repositories elsewhere.

use serde::{Deserialize, Serialize};

/// What was done with one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandoverOutcome {
    /// The name of the repository in the configuration.
    pub repository: String,
    /// In the order in which they happened.
    pub steps: Vec<HandoverStep>,
    /// Archives that are still to be handed over.
    pub waiting_count: u64,
    pub warnings: Vec<String>,
    /// Why nothing was done, or not all.
    pub error: Option<String>,
}

/// One program that ran for a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandoverStep {
    pub kind: HandoverStepKind,
    /// `None` if it concerns the whole repository.
    pub stack: Option<String>,
    /// The name of the archive that was handed over.
    pub archive: Option<String>,
    pub duration_ms: u64,
    /// Why it failed, with the last lines that the program printed.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HandoverStepKind {
    /// An archive was handed over.
    Archive,
    /// Old archives of a stack were removed from the repository.
    Prune,
    /// The room of what was removed was given back.
    Compact,
    /// The repository was checked.
    Check,
}

impl HandoverStep {
    /// Names what was done: `web_20261124_031500.tar`, `prune web`, `check`.
    pub fn label(&self) -> String {
        let of_stack = |verb: &str| match &self.stack {
            Some(stack) => format!("{verb} {stack}"),
            None => verb.to_owned(),
        };
        match (self.kind, &self.archive) {
            (HandoverStepKind::Archive, Some(archive)) => archive.clone(),
            (HandoverStepKind::Archive, None) => of_stack("archives of"),
            (HandoverStepKind::Prune, _) => of_stack("prune"),
            (HandoverStepKind::Compact, _) => of_stack("compact"),
            (HandoverStepKind::Check, _) => of_stack("check"),
        }
    }
}

impl HandoverOutcome {
    /// Returns the outcome of a repository with which nothing was done yet.
    pub fn new(repository: &str) -> HandoverOutcome {
        HandoverOutcome {
            repository: repository.to_owned(),
            steps: Vec::new(),
            waiting_count: 0,
            warnings: Vec::new(),
            error: None,
        }
    }

    /// Returns the steps that failed.
    pub fn failed_steps(&self) -> impl Iterator<Item = &HandoverStep> {
        self.steps.iter().filter(|step| step.error.is_some())
    }

    pub fn has_failed(&self) -> bool {
        self.error.is_some() || self.failed_steps().next().is_some()
    }

    /// Returns a line for each failure, with what failed and why.
    pub fn failures(&self) -> Vec<String> {
        let name = &self.repository;
        let steps = self.failed_steps().map(|step| {
            let error = step.error.as_deref().unwrap_or_default();
            format!("off-site {name}: {}: {error}", step.label())
        });
        let whole = self.error.iter();
        let whole = whole.map(|error| format!("off-site {name}: {error}"));
        steps.chain(whole).collect()
    }
}
