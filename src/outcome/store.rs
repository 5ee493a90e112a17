//! What a run did to the store.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What retention did to the archives of one stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedStack {
    pub stack: String,
    pub kept_count: u64,
    pub removed: Vec<RemovedArchive>,
    /// Why pruning did not happen or was not completed.
    pub error: Option<String>,
}

/// An archive that retention removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedArchive {
    pub path: PathBuf,
    pub archive_bytes: u64,
    pub reason: String,
}

/// A Compose project that runs although no stack is its backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnconfiguredProject {
    pub project: String,
    /// Where it was started.
    pub dir: PathBuf,
}

impl UnconfiguredProject {
    pub fn warning(&self) -> String {
        format!(
            "it runs (from {}), but is not backed up: add it to `stacks`, or to `ignoreProjects`",
            self.dir.display()
        )
    }
}

/// The store and its file system after the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreUsage {
    /// Finished archives of all stacks in the store.
    pub archive_count: u64,
    pub archive_bytes: u64,
    pub file_system_total_bytes: u64,
    pub file_system_available_bytes: u64,
}
