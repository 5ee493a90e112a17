//! The JSON configuration: serde types and their defaults. Unknown fields are
//! refused. What the values mean together is decided in `plan.rs`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    pub keep_days: Option<u32>,
    pub keep_last: Option<u32>,
    pub keep_daily: Option<u32>,
    pub keep_weekly: Option<u32>,
    pub keep_monthly: Option<u32>,
    pub keep_yearly: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Email {
    /// SMTP server, by name: its certificate is checked against it.
    pub host: String,
    /// Default: 587 for `starttls`, 465 for `tls`, 25 for `none`.
    pub port: Option<u16>,
    #[serde(default)]
    pub encryption: Encryption,
    pub user: Option<String>,
    /// File with the password; a trailing newline is dropped.
    pub password_file: Option<PathBuf>,
    /// Name of a systemd credential (`LoadCredential=`) with the password.
    pub password_credential: Option<String>,
    /// PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    pub from: String,
    pub to: Vec<String>,
    /// Put in brackets before the subject.
    #[serde(default = "default_subject_tag")]
    pub subject_tag: String,
    #[serde(default)]
    pub when: MailWhen,
    /// For every single step of the SMTP conversation, in seconds.
    #[serde(default = "default_mail_timeout")]
    pub timeout: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Encryption {
    /// Plain connection upgraded by STARTTLS, which is required.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MailWhen {
    #[default]
    Always,
    Failure,
}

fn default_subject_tag() -> String {
    "docker-backup".to_owned()
}

fn default_mail_timeout() -> u32 {
    60
}
