//! Mails a report. This program speaks SMTP itself, because the library does not check
//! that nothing was sent in the clear behind the reply to STARTTLS, and trusts no
//! certificate of one's own.

mod connection;
mod message;
mod secret;
mod smtp;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::config::Email;
use crate::config::Encryption;
use crate::config::email::{mailbox, port, validate};
use crate::sys::format::ascii;
use crate::sys::secret::credentials_dir;
use crate::sys::tls;
use secret::Secret;
use smtp::Delivery;

pub use message::MailContent;
pub use smtp::Undelivered;

/// The whole delivery may take this many times `timeout`. Every step has its own
/// timeout, but name resolution has none, and a server may send a byte now and
/// then for ever.
const TOTAL_TIMEOUTS: u32 = 5;

/// Sends one mail to all recipients, and waits until the server has accepted it.
///
/// # Errors
/// They say what to change, and never contain the password. If the server
/// refuses some of the recipients, the others still get the mail, and the error
/// names those that do not.
pub fn send(config: &Email, content: MailContent) -> Result<(), Undelivered> {
    send_with(config, credentials_dir().as_deref(), content)
}

fn send_with(
    config: &Email,
    credentials_dir: Option<&Path>,
    content: MailContent,
) -> Result<(), Undelivered> {
    let attempt = validate(config)
        .and_then(|()| prepare(config, credentials_dir, content))
        .map_err(|error| whole_failure(config, &error, false))
        .and_then(|delivery| within_time_limit(config, move || delivery.send()));
    let server = format!("{}:{}", config.host, port(config));
    attempt.map_err(|undelivered| Undelivered {
        reason: format!("cannot send mail through {server}: {}", undelivered.reason),
        ..undelivered
    })
}

fn whole_failure(config: &Email, error: &anyhow::Error, is_temporary: bool) -> Undelivered {
    Undelivered {
        reason: ascii(&format!("{error:#}")),
        is_temporary,
        missing: config.to.clone(),
    }
}

/// Does the same as [`send`] up to the log-in: reads the password and `caFile`,
/// connects and logs in, but sends nothing.
pub fn try_login(config: &Email) -> Result<()> {
    let delivery = prepare(config, credentials_dir().as_deref(), MailContent::default())?;
    within_time_limit(config, move || delivery.try_login()).map_err(|undelivered| {
        anyhow!(
            "cannot use the mail server {}:{}: {}",
            config.host,
            port(config),
            undelivered.reason
        )
    })
}

/// How long one delivery takes at most.
pub fn total_timeout(config: &Email) -> Duration {
    timeout(config) * TOTAL_TIMEOUTS
}

/// Does everything that can fail without the server before connecting to it.
fn prepare(
    config: &Email,
    credentials_dir: Option<&Path>,
    content: MailContent,
) -> Result<Delivery> {
    let secret = match &config.user {
        Some(user) => Some(Secret::load(config, user, credentials_dir)?),
        None => None,
    };
    let tls = match config.encryption {
        Encryption::None => None,
        Encryption::Starttls | Encryption::Tls => {
            Some(tls::client_config(config.ca_file.as_deref())?)
        }
    };
    let recipients = config.to.iter().map(|to| Ok((to.clone(), mailbox(to)?)));
    Ok(Delivery {
        host: config.host.clone(),
        port: port(config),
        encryption: config.encryption,
        timeout: timeout(config),
        tls,
        secret,
        from: mailbox(&config.from)?,
        to: recipients.collect::<Result<_>>()?,
        content,
    })
}

/// Runs `act` with a limit on its total time. Every read and write has a limit, but
/// neither name resolution has one nor the total. So a thread does the work.
/// If it is late, it is left running, and ends with the process at the latest.
fn within_time_limit(
    config: &Email,
    act: impl FnOnce() -> Result<(), Undelivered> + Send + 'static,
) -> Result<(), Undelivered> {
    let total = total_timeout(config);
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("email".to_owned())
        .spawn(move || sender.send(act()))
        .context("cannot start a thread")
        .map_err(|error| whole_failure(config, &error, true))?;
    receiver.recv_timeout(total).unwrap_or_else(|error| {
        let error = match error {
            RecvTimeoutError::Timeout => anyhow!(
                "not done after {} s; the server is too slow, or email.timeout is too short",
                total.as_secs()
            ),
            RecvTimeoutError::Disconnected => anyhow!("the mail thread panicked"),
        };
        Err(whole_failure(config, &error, true))
    })
}

fn timeout(config: &Email) -> Duration {
    Duration::from_secs(config.timeout.into())
}
