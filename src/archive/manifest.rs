//! What an archive says of itself, as JSON in its first member.

use std::collections::BTreeMap;

use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Capture, StopMethod};
use crate::engine::Volume;
use crate::outcome::Coverage;

/// Version of the archive format, see `docs/archive-format.md`.
pub const FORMAT_VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format_version: u32,
    pub program_version: String,
    pub stack: String,
    /// Compose's name for the stack.
    pub project: String,
    pub host: String,
    /// Where the trees were, by their member path.
    pub trees: BTreeMap<String, String>,
    /// Without symlinks, if there were any on the way. The compose file may
    /// name it by either.
    #[serde(default)]
    pub real_trees: BTreeMap<String, String>,
    pub capture: Capture,
    pub stop_method: StopMethod,
    /// What Compose was told to read instead of what it finds by itself, as paths
    /// from the stack's directory, or absolute ones outside of it.
    #[serde(default)]
    pub files: Vec<String>,
    #[serde(default)]
    pub env_files: Vec<String>,
    /// When the last byte could have changed: the stop was confirmed.
    pub captured: ZonedDateTime,
    pub downtime_ms: Option<u64>,
    /// Services that were running before the stop.
    pub running: Vec<String>,
    /// How many containers of each of them ran.
    #[serde(default)]
    pub replicas: BTreeMap<String, usize>,
    pub images: Vec<ServiceImage>,
    pub volumes: Vec<Volume>,
    pub coverage: Vec<Coverage>,
    /// Length of the archive file: one that is shorter was cut.
    pub archive_bytes: u64,
    pub content_bytes: u64,
    pub member_count: u64,
    pub socket_count: u64,
    pub excluded_count: u64,
    /// Files that changed while they were read, whose members are not to be
    /// trusted; the first of them by name.
    pub changed_count: u64,
    pub changed: Vec<String>,
    /// As `docker compose config --format json` printed it; `null` when the
    /// compose file could not be read.
    pub compose: Value,
    /// Not read from an archive, but made up for one that has none: what ran,
    /// and possibly the project, is only known when the restored compose file
    /// can be read.
    #[serde(skip)]
    pub is_stand_in: bool,
}

/// The image that a service's container was made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImage {
    pub service: String,
    pub reference: String,
    pub id: String,
    pub digests: Vec<String>,
}
