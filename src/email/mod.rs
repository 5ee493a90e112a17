//! Mails a report. Only this module uses the mail library's transport.
//!
//! The library's feature `tracing` must stay off: it logs every line that is
//! sent, including the password.

mod message;
mod secret;
mod smtp;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lettre::transport::smtp::client::{Certificate, TlsParameters};

use crate::config::Email;
use crate::config::Encryption;
use crate::config::email::{mailbox, port, validate};
use secret::Secret;
use smtp::Delivery;

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
pub fn send(config: &Email, subject: &str, body: &str) -> Result<()> {
    let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    send_with(config, credentials_dir.as_deref(), subject, body)
}

fn send_with(
    config: &Email,
    credentials_dir: Option<&Path>,
    subject: &str,
    body: &str,
) -> Result<()> {
    let server = format!("{}:{}", config.host, port(config));
    let context = || format!("cannot send mail through {server}");
    validate(config)?;
    let delivery = prepare(config, credentials_dir, subject, body).with_context(context)?;
    within_time_limit(config, move || delivery.send()).with_context(context)
}

/// Does the same as [`send`] up to the log-in: reads the password and `caFile`,
/// connects and logs in, but sends nothing.
pub fn try_login(config: &Email) -> Result<()> {
    let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let delivery = prepare(config, credentials_dir.as_deref(), "", "")?;
    within_time_limit(config, move || delivery.try_login()).with_context(|| {
        format!(
            "cannot use the mail server {}:{}",
            config.host,
            port(config)
        )
    })
}

/// Does everything that can fail without the server before connecting to it.
fn prepare(
    config: &Email,
    credentials_dir: Option<&Path>,
    subject: &str,
    body: &str,
) -> Result<Delivery> {
    let secret = match &config.user {
        Some(user) => Some(Secret::load(config, user, credentials_dir)?),
        None => None,
    };
    let tls = match config.encryption {
        Encryption::None => None,
        Encryption::Starttls | Encryption::Tls => Some(tls_parameters(config)?),
    };
    let recipients = config.to.iter().map(|to| mailbox(to));
    Ok(Delivery {
        host: config.host.clone(),
        port: port(config),
        encryption: config.encryption,
        timeout: timeout(config),
        tls,
        secret,
        from: mailbox(&config.from)?.email,
        to: recipients
            .map(|mailbox| Ok(mailbox?.email))
            .collect::<Result<_>>()?,
        message: message::format(config, subject, body)?,
    })
}

/// Runs `act` with a limit on its total time. The library limits every read and
/// write, but neither name resolution nor the total. So a thread does the work.
/// If it is late, it is left running, and ends with the process at the latest.
fn within_time_limit(
    config: &Email,
    act: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let total = timeout(config) * TOTAL_TIMEOUTS;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("email".to_owned())
        .spawn(move || sender.send(act()))
        .context("cannot start a thread")?;
    match receiver.recv_timeout(total) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(anyhow!(
            "not done after {} s; the server is too slow, or email.timeout is too short",
            total.as_secs()
        )),
        Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the mail thread panicked")),
    }
}

fn tls_parameters(config: &Email) -> Result<TlsParameters> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        builder = builder.add_root_certificate(
            read_certificates(path)
                .with_context(|| format!("cannot read email.caFile {}", path.display()))?,
        );
    }
    builder.build().context("cannot set up TLS")
}

fn read_certificates(path: &Path) -> Result<Certificate> {
    let pem = std::fs::read(path)?;
    // The library accepts a file without a certificate as an empty list.
    let marker = b"-----BEGIN CERTIFICATE-----";
    let has_certificate = pem.windows(marker.len()).any(|window| window == marker);
    ensure!(has_certificate, "no PEM certificate in it");
    Certificate::from_pem(&pem).context("cannot parse the certificates")
}

fn timeout(config: &Email) -> Duration {
    Duration::from_secs(config.timeout.into())
}
