//! The conversation with the server, and explanations of its errors.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Mechanism;
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;

use super::secret::Secret;
use crate::config::Encryption;
use crate::sys::format::ascii;

/// One mail for one server.
pub struct Delivery {
    pub host: String,
    pub port: u16,
    pub encryption: Encryption,
    /// Limit for connecting, and for every read and write.
    pub timeout: Duration,
    /// Set unless `encryption` is `None`.
    pub tls: Option<TlsParameters>,
    pub secret: Option<Secret>,
    pub from: Address,
    pub to: Vec<Address>,
    pub message: Vec<u8>,
}

impl Delivery {
    /// Sends the mail. Errors are printable ASCII, and never contain the password.
    pub fn send(&self) -> Result<()> {
        self.printable(self.converse())
    }

    /// Connects, logs in and disconnects.
    pub fn try_login(&self) -> Result<()> {
        self.printable(self.connect().and_then(|mut smtp| {
            self.log_in(&mut smtp)?;
            let _ = smtp.quit();
            Ok(())
        }))
    }

    fn printable(&self, result: Result<()>) -> Result<()> {
        result.map_err(|error| {
            // The password is replaced before the text is escaped: escaping could
            // change it beyond recognition.
            let text = format!("{error:#}");
            let text = match &self.secret {
                Some(secret) => secret.redact(&text),
                None => text,
            };
            anyhow!(ascii(&text))
        })
    }

    fn converse(&self) -> Result<()> {
        let mut smtp = self.connect()?;
        self.log_in(&mut smtp)?;
        self.command(
            &mut smtp,
            "cannot set the sender",
            Mail::new(Some(self.from.clone()), vec![]),
        )?;
        let refused = self.add_recipients(&mut smtp)?;
        if refused.len() == self.to.len() {
            bail!(refused.join("; "));
        }
        self.command(&mut smtp, "cannot send the message", Data)?;
        // The library ends the last line itself.
        let message = self.message.strip_suffix(b"\r\n");
        smtp.message(message.unwrap_or(&self.message))
            .map_err(|error| self.explain("cannot send the message", &error))?;
        // The server has accepted the mail; a failure to say good-bye is harmless.
        let _ = smtp.quit();
        if !refused.is_empty() {
            bail!("{}; the other recipients got the mail", refused.join("; "));
        }
        Ok(())
    }

    fn connect(&self) -> Result<SmtpConnection> {
        let addresses = self.resolve()?;
        let hello = ClientId::default();
        let wrapper = match self.encryption {
            Encryption::Tls => self.tls.as_ref(),
            Encryption::Starttls | Encryption::None => None,
        };
        let timeout = Some(self.timeout);
        let mut smtp =
            SmtpConnection::connect(addresses.as_slice(), timeout, &hello, wrapper, None)
                .map_err(|error| self.explain("cannot connect", &error))?;
        if let (Encryption::Starttls, Some(tls)) = (self.encryption, &self.tls) {
            if !smtp.can_starttls() {
                bail!(
                    "the server offers no STARTTLS; set email.encryption to \"tls\" \
                     (usually port 465)"
                );
            }
            smtp.starttls(tls, &hello)
                .map_err(|error| self.explain("cannot start TLS", &error))?;
        }
        Ok(smtp)
    }

    fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let addresses: Vec<_> = match addresses {
            Ok(addresses) => addresses.collect(),
            Err(error) => bail!(
                "cannot find the host {:?}: {error}; check email.host",
                self.host
            ),
        };
        if addresses.is_empty() {
            bail!("cannot find the host {:?}: it has no address", self.host);
        }
        Ok(addresses)
    }

    fn log_in(&self, smtp: &mut SmtpConnection) -> Result<()> {
        let Some(secret) = &self.secret else {
            return Ok(());
        };
        let known = [Mechanism::Plain, Mechanism::Login];
        if smtp.server_info().get_auth_mechanism(&known).is_none() {
            bail!(
                "cannot log in: the server offers neither PLAIN nor LOGIN; remove email.user if the \
                 server needs no log-in"
            );
        }
        let credentials = secret.credentials();
        match smtp.auth(&known, &credentials) {
            Ok(_) => Ok(()),
            Err(error) if reply_code(&error).as_deref() == Some("535") => bail!(
                "cannot log in: user {:?} or the password is wrong: {}",
                secret.user,
                self.meaning(&error)
            ),
            Err(error) => Err(self.explain("cannot log in", &error)),
        }
    }

    /// Tells the server the recipients. Returns a line for each one that it
    /// refuses.
    fn add_recipients(&self, smtp: &mut SmtpConnection) -> Result<Vec<String>> {
        let mut refused = Vec::new();
        for to in &self.to {
            let step = format!("cannot add the recipient {to}");
            match smtp.command(Rcpt::new(to.clone(), vec![])) {
                Ok(_) => {}
                Err(error) if error.status().is_some() => {
                    refused.push(self.explain(&step, &error).to_string());
                }
                Err(error) => return Err(self.explain(&step, &error)),
            }
        }
        Ok(refused)
    }

    fn command(
        &self,
        smtp: &mut SmtpConnection,
        step: &str,
        command: impl std::fmt::Display,
    ) -> Result<()> {
        match smtp.command(command) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(step, &error)),
        }
    }

    fn explain(&self, step: &str, error: &Error) -> anyhow::Error {
        anyhow!("{step}: {}", self.meaning(error))
    }

    /// Explains the error, and says what to do about it.
    fn meaning(&self, error: &Error) -> String {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        if let Some(code) = reply_code(error) {
            return format!("the server said {code} {cause}");
        }
        let io_error = error.source().and_then(|e| e.downcast_ref::<io::Error>());
        match io_error.map(io::Error::kind) {
            // The library reports a timeout of the socket as "would block".
            Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                let hint = match self.encryption {
                    Encryption::Tls => "",
                    _ => "; a server that waits for TLS needs email.encryption \"tls\"",
                };
                format!("no answer within {} s{hint}", self.timeout.as_secs())
            }
            Some(ErrorKind::ConnectionRefused) => {
                "connection refused; check email.host and email.port".to_owned()
            }
            Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                "the server closed the connection".to_owned()
            }
            _ if cause == "incomplete response" => "the server closed the connection".to_owned(),
            _ => match tls_meaning(&cause) {
                Some(meaning) => format!("{meaning} ({cause})"),
                None => error.to_string(),
            },
        }
    }
}

/// Explains an error of the TLS library by its text, because its types cannot be
/// reached from here.
fn tls_meaning(cause: &str) -> Option<&'static str> {
    let contains = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if contains(&["UnknownIssuer", "CaUsedAsEndEntity"]) {
        Some("the server's certificate is not trusted; name its CA in email.caFile")
    } else if contains(&["NotValidForName", "not valid for name"]) {
        Some("the server's certificate is for another name; set email.host to a name in it")
    } else if contains(&["expired", "Expired"]) {
        Some("the server's certificate has expired")
    } else if contains(&["not valid yet", "NotValidYet"]) {
        Some("the server's certificate is not valid yet; check this host's clock")
    } else if contains(&["corrupt message"]) {
        Some("the server does not speak TLS on this port; try email.encryption \"starttls\"")
    } else {
        None
    }
}

/// Returns the three digits of a negative reply.
fn reply_code(error: &Error) -> Option<String> {
    error.status().map(|code| code.to_string())
}
