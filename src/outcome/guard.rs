//! What came of an update that was guarded.

use std::path::PathBuf;

use serde::Serialize;

/// An update of a stack, for which there was an archive.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardOutcome {
    pub stack: String,
    pub status: GuardStatus,
    /// The archive that was made before the command ran.
    pub archive: PathBuf,
    pub command: Vec<String>,
    /// How the command ended: `success`, `exit status 1`, ...
    pub exit: String,
    /// The last lines that it printed.
    pub output: Vec<String>,
    pub command_ms: u64,
    /// Why the update was not confirmed; `None` if it was.
    pub reason: Option<String>,
    /// Why data or images could not be put back, or the stack not be started with them.
    pub error: Option<String>,
    /// The image of each service, before the command and now.
    pub images: Vec<ImageChange>,
    /// Directories with the data that the update had, where the roll-back kept it.
    pub kept: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum GuardStatus {
    /// The command succeeded, and the stack is up as before.
    Updated,
    /// Data, images and containers are as they were.
    RolledBack,
    /// They are not, and `recover` tries again.
    NotRolledBack,
}

/// The image of a service before and after an update; `None` if the service had no
/// container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageChange {
    pub service: String,
    pub before: Option<ImageName>,
    pub after: Option<ImageName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageName {
    pub reference: String,
    pub id: String,
}
