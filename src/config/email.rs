//! Checks the mail settings before anything is sent.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use lettre::message::Mailbox;
use lettre::transport::smtp::{SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};

use crate::config::{Email, Encryption};

/// Checks the settings themselves; reads no file and asks no server.
pub fn validate(config: &Email) -> Result<()> {
    ensure!(!config.host.is_empty(), "email.host is empty");
    ensure!(config.timeout > 0, "email.timeout is zero");
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
        // Relative to where a timer starts the program it would be elsewhere.
        let is_fine = path.as_ref().is_none_or(|path| path.is_absolute());
        ensure!(is_fine, "email.{field}: must be an absolute path");
    }
    ensure!(
        config.encryption != Encryption::Starttls || port(config) != SUBMISSIONS_PORT,
        "email.port 465 is for TLS from the first byte: add \"encryption\": \"tls\" (STARTTLS is \
         at 587)"
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
        (_, _, Some("" | "." | "..")) => bail!("email.passwordCredential is no credential's name"),
        (_, _, Some(name)) if name.contains('/') => {
            bail!(
                "email.passwordCredential is a credential's name, not a path; for a path use email.passwordFile"
            )
        }
        _ => Ok(()),
    }
}

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
