//! The channels of news beside mail: their fields, and a check of them before
//! anything is sent.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

use super::json;
use crate::sys::secret::check_credential_name;

/// The name of the channel that is configured as `email`.
pub const MAIL_CHANNEL: &str = "mail";
const MAX_NAME_LENGTH: usize = 40;
const DEFAULT_TIMEOUT_SECS: u32 = 20;
pub const DEFAULT_REMIND_DAYS: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    pub kind: ChannelKind,
    /// Tells channels of one kind apart. Default: the kind.
    pub name: Option<String>,
    /// File with the address, which is a secret.
    pub url_file: Option<PathBuf>,
    /// Name of a systemd credential (`LoadCredential=`) with the address. It takes
    /// precedence over `url_file` where systemd passes credentials.
    pub credential: Option<String>,
    /// PEM file with certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Default: `always` for heartbeats and `webhook`, `change` for people.
    pub when: Option<When>,
    /// With `change`: a failure that lasts is told again after this many days.
    #[serde(default = "default_remind_days")]
    pub remind_days: u32,
    /// Limit for one attempt, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelKind {
    Healthchecks,
    UptimeKuma,
    Ntfy,
    Gotify,
    Webhook,
}

/// Which runs a channel tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    #[default]
    Always,
    /// Runs with a failure or a warning.
    Failure,
    /// Runs that differ from the one before: something began to fail or works again,
    /// or there is a new warning.
    Change,
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_SECS
}

pub fn default_remind_days() -> u32 {
    DEFAULT_REMIND_DAYS
}

impl ChannelKind {
    /// Returns the kind as the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            ChannelKind::Healthchecks => "healthchecks",
            ChannelKind::UptimeKuma => "uptime-kuma",
            ChannelKind::Ntfy => "ntfy",
            ChannelKind::Gotify => "gotify",
            ChannelKind::Webhook => "webhook",
        }
    }

    /// Whether somebody is alarmed when it says nothing.
    pub fn is_heartbeat(self) -> bool {
        matches!(self, ChannelKind::Healthchecks | ChannelKind::UptimeKuma)
    }
}

impl Channel {
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.name())
    }

    pub fn when(&self) -> When {
        self.when.unwrap_or(match self.kind {
            ChannelKind::Ntfy | ChannelKind::Gotify => When::Change,
            _ => When::Always,
        })
    }

    /// Checks the settings without reading a file or asking a server.
    pub fn validate(&self) -> Result<()> {
        let name = self.name();
        check_name(name)?;
        ensure!(
            name != MAIL_CHANNEL,
            "`name`: `{MAIL_CHANNEL}` is the channel that `email` configures"
        );
        ensure!(
            self.url_file.is_some() || self.credential.is_some(),
            "needs `urlFile` or `credential`, a file or a systemd credential with the address"
        );
        if let Some(credential) = &self.credential {
            check_credential_name(credential, "`credential`", "`urlFile`")?;
        }
        for (field, path) in [("urlFile", &self.url_file), ("caFile", &self.ca_file)] {
            let is_fine = path.as_ref().is_none_or(|path| path.is_absolute());
            ensure!(is_fine, "`{field}`: must be an absolute path");
        }
        ensure!(
            !self.kind.is_heartbeat() || self.when() == When::Always,
            "`when`: {} takes silence for a failure, so it must be told of every run: use \
             `always`",
            self.kind.name()
        );
        ensure!(self.timeout > 0, "`timeout` is zero");
        ensure!(
            self.remind_days > 0,
            "`remindDays` is zero: a failure that lasts must not be forgotten"
        );
        Ok(())
    }
}

/// Checks a name that goes into those of files and credentials.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_fine = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    ensure!(
        !name.is_empty()
            && name.len() <= MAX_NAME_LENGTH
            && !name.starts_with('.')
            && name.chars().all(is_fine),
        "`name`: {name:?} must be at most {MAX_NAME_LENGTH} letters, digits and `-`, `_`, `.`"
    );
    Ok(())
}

/// Returns the problems of all channels, one a line.
pub fn problems(channels: &[Channel]) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut problems = Vec::new();
    for (i, channel) in channels.iter().enumerate() {
        let name = channel.name();
        let unique = match names.insert(name) {
            true => Ok(()),
            false => Err(anyhow::anyhow!(
                "there is another channel `{name}`: give each a `name` of its own"
            )),
        };
        let context = || format!("`notify[{i}]` ({name})");
        if let Err(error) = channel.validate().and(unique).with_context(context) {
            problems.push(format!("{error:#}"));
        }
    }
    problems
}

/// Reads the list of channels, each of which is an object.
pub fn channels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Channel>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Entry(#[serde(deserialize_with = "channel")] Channel);

    let entries = Vec::<Entry>::deserialize(deserializer)?;
    Ok(entries.into_iter().map(|Entry(channel)| channel).collect())
}

fn channel<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Channel, D::Error> {
    let expected = "an object with `kind` and `urlFile`";
    json::object(deserializer, expected)?
        .ok_or_else(|| de::Error::invalid_type(Unexpected::Unit, &expected))
}
