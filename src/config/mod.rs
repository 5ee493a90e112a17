//! The JSON configuration: its types and their defaults. Unknown fields are
//! refused. `plan` decides what the values mean together.

mod alarm;
pub mod email;
pub mod handover;
mod hook;
mod json;
mod name_globs;
pub mod notify;
pub mod plan;
mod retention;
pub mod salvage;
mod stack;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer};

pub use alarm::{DEFAULT_SIZE_DROP, MaxAge};
pub use email::{Email, Encryption, MailLog};
pub use handover::{OffsiteRepository, RepositoryKind};
pub use hook::{
    DEFAULT_HOOK_TIMEOUT_SECS, Hook, HookCommand, HookOptions, HookPlace, HookTarget, OnError,
    VARIABLE_PREFIX, shell_words,
};
pub use name_globs::NameGlobs;
pub use notify::{Channel, ChannelKind, When};
pub use retention::Retention;
pub use stack::{
    Capture, DEFAULT_STALL_LIMIT, DEFAULT_START_TIMEOUT, OnBusy, Stack, StackOptions, Stacks,
    StopMethod, Verify,
};

/// Read if no other file is named.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/docker-stack-backup/config.json";
pub const DEFAULT_BASE_DIR: &str = "/opt/stacks";
pub const DEFAULT_BACKUP_DIR: &str = "/var/backups/docker";
pub const DEFAULT_STATE_DIR: &str = "/var/lib/docker-stack-backup";
pub const DEFAULT_LOG_FILE: &str = "/var/log/docker-backup.log";

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Stacks are backed up one after another.
    pub stacks: Stacks,
    /// Compose projects that are not backed up on purpose, as globs. Of others that run
    /// without a stack there is a warning.
    pub ignore_projects: Vec<String>,
    /// A stack without a `path` is the directory with its name in here.
    pub base_dir: PathBuf,
    /// The store. Archives are `<backupDir>/<stack>/<stack>_<date>_<time>.tar`.
    pub backup_dir: PathBuf,
    /// A directory that must be a mount point, and the store on it; `null` for none.
    pub require_mount: Option<PathBuf>,
    /// Directory of the journal, the lock and the last outcome. It must survive a
    /// reboot.
    pub state_dir: PathBuf,
    /// File to which log lines are appended; `null` for none.
    pub log_file: Option<PathBuf>,
    /// File for the textfile collector of node_exporter; `null` for none.
    pub metrics_file: Option<PathBuf>,
    /// `null` keeps every archive for ever.
    #[serde(deserialize_with = "retention_or_null")]
    pub retention: Option<Retention>,
    /// `null` sends no mail.
    #[serde(deserialize_with = "email_or_null")]
    pub email: Option<Email>,
    /// Other channels of news.
    #[serde(deserialize_with = "notify::channels")]
    pub notify: Vec<Channel>,
    /// Repositories elsewhere, to which archives are handed over.
    #[serde(deserialize_with = "handover::repositories")]
    pub handover: Vec<OffsiteRepository>,
    /// Whether a run with a warning has exit status 2.
    pub fail_on_warning: bool,
    /// Options for stacks that do not set them. Lists of patterns and volumes are
    /// added to those of the stack.
    pub defaults: Stack,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            stacks: Stacks::default(),
            ignore_projects: Vec::new(),
            base_dir: DEFAULT_BASE_DIR.into(),
            backup_dir: DEFAULT_BACKUP_DIR.into(),
            require_mount: None,
            state_dir: DEFAULT_STATE_DIR.into(),
            log_file: Some(DEFAULT_LOG_FILE.into()),
            metrics_file: None,
            retention: Some(Retention::default()),
            email: None,
            notify: Vec::new(),
            handover: Vec::new(),
            fail_on_warning: false,
            defaults: Stack::default(),
        }
    }
}

impl Config {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// They name the file, the path of the field within it, and what was
    /// probably meant.
    pub fn load(path: &Path) -> Result<Config> {
        let bytes = fs::read(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Config::parse(&bytes)
            .with_context(|| format!("cannot parse the configuration {}", path.display()))
    }

    /// Parses the content of a configuration file.
    pub fn parse(bytes: &[u8]) -> Result<Config> {
        let Whole(config) = json::parse(bytes)?;
        Ok(config)
    }
}

/// A whole configuration file: an object, and neither null nor an array.
#[derive(Deserialize)]
#[serde(transparent)]
struct Whole(#[serde(deserialize_with = "whole")] Config);

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
    let expected = "an object such as {\"stacks\": [\"web\"]}";
    json::object(deserializer, expected)?
        .ok_or_else(|| de::Error::invalid_type(Unexpected::Unit, &expected))
}

fn retention_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Retention>, D::Error> {
    let expected = "an object such as {\"keepDays\": 28}, or null to keep everything";
    json::object(deserializer, expected)
}

fn email_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Email>, D::Error> {
    let expected = "an object with `host`, `from` and `to`, or null for no mail";
    json::object(deserializer, expected)
}
