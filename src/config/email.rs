//! The mail settings: their fields, and a check of them before anything is sent.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use lettre::message::Mailbox;
use serde::Deserialize;

use super::notify::{When, default_remind_days};
use crate::sys::secret::check_credential_name;

const SMTP_PORT: u16 = 25;
const SUBMISSION_PORT: u16 = 587;
const SUBMISSIONS_PORT: u16 = 465;

const DEFAULT_SUBJECT_TAG: &str = "docker-backup";
const DEFAULT_TIMEOUT_SECS: u32 = 60;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Email {
    /// Name of the SMTP server. Its certificate must be for this name.
    pub host: String,
    /// Default: 587 for `starttls`, 465 for `tls`, 25 for `none`.
    pub port: Option<u16>,
    #[serde(default)]
    pub encryption: Encryption,
    pub user: Option<String>,
    /// File with the password. A trailing newline is dropped.
    pub password_file: Option<PathBuf>,
    /// Name of a systemd credential (`LoadCredential=`) with the password. It
    /// takes precedence over `password_file` where systemd passes credentials.
    pub password_credential: Option<String>,
    /// PEM file with certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    pub from: String,
    pub to: Vec<String>,
    /// Put in brackets before the subject.
    #[serde(default = "default_subject_tag")]
    pub subject_tag: String,
    #[serde(default)]
    pub when: When,
    /// With `change`: a failure that lasts is told again after this many days.
    #[serde(default = "default_remind_days")]
    pub remind_days: u32,
    /// Whether the log of the run is a part of the mail.
    #[serde(default)]
    pub log: MailLog,
    /// Whether the report is in the mail a second time, as HTML.
    #[serde(default)]
    pub html: bool,
    /// Limit for every single step of the SMTP conversation, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout: u32,
}

/// How the connection to the SMTP server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Encryption {
    /// The connection begins in the clear, and must be upgraded by STARTTLS.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    None,
}

/// Which mails have the log of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MailLog {
    Always,
    /// Those of runs in which something failed.
    #[default]
    Failure,
    Never,
}

fn default_subject_tag() -> String {
    DEFAULT_SUBJECT_TAG.to_owned()
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_SECS
}

/// Checks the settings without reading a file or asking a server.
pub fn validate(config: &Email) -> Result<()> {
    ensure!(!config.host.is_empty(), "email.host is empty");
    ensure!(config.timeout > 0, "email.timeout is zero");
    ensure!(
        config.remind_days > 0,
        "email.remindDays is zero: a failure that lasts must not be forgotten"
    );
    mailbox(&config.from).context("email.from")?;
    ensure!(!config.to.is_empty(), "email.to names no recipient");
    for to in &config.to {
        mailbox(to).context("email.to")?;
    }
    validate_password_source(config)?;
    for (field, path) in [
        ("passwordFile", &config.password_file),
        ("caFile", &config.ca_file),
    ] {
        // A relative path would depend on the directory the program is started in.
        let is_fine = path.as_ref().is_none_or(|path| path.is_absolute());
        ensure!(is_fine, "email.{field}: must be an absolute path");
    }
    ensure!(
        config.encryption != Encryption::Starttls || port(config) != SUBMISSIONS_PORT,
        "email.port 465 expects TLS from the first byte: add \"encryption\": \"tls\" (STARTTLS \
         uses port 587)"
    );
    ensure!(
        config.user.is_none() || config.encryption != Encryption::None || is_loopback(&config.host),
        "email.user with email.encryption \"none\" would send the password in the clear to {}; \
         use \"starttls\" or \"tls\"",
        config.host
    );
    Ok(())
}

fn validate_password_source(config: &Email) -> Result<()> {
    let credential = config.password_credential.as_deref();
    match (&config.user, &config.password_file, credential) {
        (Some(_), None, None) => {
            bail!("email.user needs email.passwordFile or email.passwordCredential")
        }
        (None, Some(_), _) => bail!("email.passwordFile needs email.user"),
        (None, _, Some(_)) => bail!("email.passwordCredential needs email.user"),
        (_, _, Some(name)) => {
            check_credential_name(name, "email.passwordCredential", "email.passwordFile")
        }
        _ => Ok(()),
    }
}

/// Returns the configured port, or the default port of the encryption.
pub fn port(config: &Email) -> u16 {
    config.port.unwrap_or(match config.encryption {
        Encryption::Starttls => SUBMISSION_PORT,
        Encryption::Tls => SUBMISSIONS_PORT,
        Encryption::None => SMTP_PORT,
    })
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Parses `name@example.org` or `Name <name@example.org>`.
pub fn mailbox(text: &str) -> Result<Mailbox> {
    text.parse()
        .with_context(|| format!("not a mail address: {text:?}"))
}
