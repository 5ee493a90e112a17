//! The delivery of one mail, and explanations of what went wrong.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use rustls::ClientConfig;
use thiserror::Error;

use super::connection::{Reply, SmtpConnection, SmtpError};
use super::message::{self, Envelope, MailContent};
use super::secret::Secret;
use crate::config::Encryption;
use crate::sys::format::ascii;
use crate::sys::tls;

/// One mail for one server.
pub struct Delivery {
    pub host: String,
    pub port: u16,
    pub encryption: Encryption,
    /// Limit for connecting, and for every read and write.
    pub timeout: Duration,
    /// Set unless `encryption` is `None`.
    pub tls: Option<Arc<ClientConfig>>,
    pub secret: Option<Secret>,
    pub from: Mailbox,
    /// Each as it is configured, and what that means.
    pub to: Vec<(String, Mailbox)>,
    pub content: MailContent,
}

/// Why a message did not reach everybody.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct Undelivered {
    /// Printable ASCII, without any secret.
    pub reason: String,
    /// Whether the same may succeed in a moment.
    pub is_temporary: bool,
    /// The recipients to whom it should be sent again, as they are configured.
    pub missing: Vec<String>,
}

/// A step that failed, before it is known who has got the mail.
pub struct Failed {
    pub reason: String,
    pub is_temporary: bool,
}

/// A recipient that the server refused.
struct Refused<'a> {
    to: &'a str,
    failed: Failed,
}

impl Delivery {
    /// Sends the mail.
    pub fn send(&self) -> Result<(), Undelivered> {
        let refused = match self.converse() {
            Ok(refused) => refused,
            Err(failed) => return Err(self.undelivered(failed, self.to.iter().map(|to| &*to.0))),
        };
        if refused.is_empty() {
            return Ok(());
        }
        let reasons: Vec<&str> = refused.iter().map(|r| r.failed.reason.as_str()).collect();
        let mut reason = reasons.join("; ");
        let all_refused = refused.len() == self.to.len();
        if !all_refused {
            reason += "; the other recipients got the mail";
        }
        // Those whom the server does not know are not tried again, unless nobody got it.
        let again = refused
            .iter()
            .filter(|r| all_refused || r.failed.is_temporary);
        let again: Vec<&str> = again.map(|refused| refused.to).collect();
        let is_temporary = refused.iter().any(|refused| refused.failed.is_temporary);
        let failed = Failed {
            reason,
            is_temporary,
        };
        Err(self.undelivered(failed, again.into_iter()))
    }

    /// Connects, logs in and disconnects.
    pub fn try_login(&self) -> Result<(), Undelivered> {
        let logged_in = self.connect().and_then(|(mut connection, hello)| {
            self.log_in(&mut connection, &hello)?;
            let _ = connection.command("QUIT");
            Ok(())
        });
        logged_in.map_err(|failed| self.undelivered(failed, std::iter::empty()))
    }

    fn undelivered<'a>(&self, failed: Failed, to: impl Iterator<Item = &'a str>) -> Undelivered {
        // The password is replaced before the text is escaped: escaping could change it
        // beyond recognition.
        let reason = match &self.secret {
            Some(secret) => secret.redact(&failed.reason),
            None => failed.reason,
        };
        Undelivered {
            reason: ascii(&reason),
            is_temporary: failed.is_temporary,
            missing: to.map(str::to_owned).collect(),
        }
    }

    /// Returns the recipients that were refused. If all were, nothing was sent.
    fn converse(&self) -> Result<Vec<Refused<'_>>, Failed> {
        let (mut connection, hello) = self.connect()?;
        self.log_in(&mut connection, &hello)?;
        let envelope = Envelope::new(&self.from, &self.to, hello.offers("SMTPUTF8"));
        let envelope = envelope.map_err(|reason| Failed {
            reason,
            is_temporary: false,
        })?;
        let step = "cannot set the sender";
        let sender = format!(
            "MAIL FROM:<{}>{}",
            envelope.from,
            envelope.parameters(&hello)
        );
        self.command(&mut connection, step, &sender)?;
        let refused = self.add_recipients(&mut connection, &envelope)?;
        if refused.len() == self.to.len() {
            return Ok(refused);
        }
        let step = "cannot send the message";
        self.command(&mut connection, step, "DATA")?;
        let content = message::format(&envelope, &self.content);
        let content = content.map_err(|error| Failed {
            reason: format!("{error:#}"),
            is_temporary: false,
        })?;
        connection
            .content(&content)
            .map_err(|error| self.failed(step, &error))?;
        // The server has accepted the mail; a failure to say good-bye is harmless.
        let _ = connection.command("QUIT");
        Ok(refused)
    }

    fn connect(&self) -> Result<(SmtpConnection, Reply), Failed> {
        let addresses = self.resolve()?;
        let failed = |error: SmtpError| self.failed("cannot connect", &error);
        let mut connection = SmtpConnection::open(&addresses, self.timeout).map_err(failed)?;
        if let (Encryption::Tls, Some(tls)) = (self.encryption, &self.tls) {
            connection
                .begin_tls(tls.clone(), &self.host)
                .map_err(failed)?;
        }
        connection.reply().map_err(failed)?;
        let hello = format!("EHLO {}", own_name());
        let mut offers = connection.command(&hello).map_err(failed)?;
        if let (Encryption::Starttls, Some(tls)) = (self.encryption, &self.tls) {
            if !offers.offers("STARTTLS") {
                return Err(Failed {
                    reason: "the server offers no STARTTLS; set email.encryption to \"tls\" \
                             (usually port 465)"
                        .to_owned(),
                    is_temporary: false,
                });
            }
            let failed = |error: SmtpError| self.failed("cannot start TLS", &error);
            connection.command("STARTTLS").map_err(failed)?;
            connection
                .begin_tls(tls.clone(), &self.host)
                .map_err(failed)?;
            // What was offered in the clear does not count.
            offers = connection.command(&hello).map_err(failed)?;
        }
        Ok((connection, offers))
    }

    fn resolve(&self) -> Result<Vec<SocketAddr>, Failed> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let problem = match addresses.map(Iterator::collect::<Vec<_>>) {
            Ok(addresses) if addresses.is_empty() => "it has no address".to_owned(),
            Ok(addresses) => return Ok(addresses),
            Err(error) => format!("{error}; check email.host"),
        };
        Err(Failed {
            reason: format!("cannot find the host {:?}: {problem}", self.host),
            // The name server may be a stack that was just started again.
            is_temporary: true,
        })
    }

    fn log_in(&self, connection: &mut SmtpConnection, hello: &Reply) -> Result<(), Failed> {
        let Some(secret) = &self.secret else {
            return Ok(());
        };
        let logged_in = if hello.offers_auth("PLAIN") {
            connection.command(&format!("AUTH PLAIN {}", secret.plain()))
        } else if hello.offers_auth("LOGIN") {
            let [user, password] = secret.login();
            connection
                .command("AUTH LOGIN")
                .and_then(|_| connection.command(&user))
                .and_then(|_| connection.command(&password))
        } else {
            return Err(Failed {
                reason: "cannot log in: the server offers neither PLAIN nor LOGIN; remove \
                         email.user if the server needs no log-in"
                    .to_owned(),
                is_temporary: false,
            });
        };
        match logged_in {
            Ok(reply) if reply.code < 300 => Ok(()),
            Ok(_) => Err(self.failed("cannot log in", &SmtpError::Garbage)),
            Err(error @ SmtpError::Refused { code: 535, .. }) => Err(Failed {
                reason: format!(
                    "cannot log in: user {:?} or the password is wrong: {error}",
                    secret.user
                ),
                is_temporary: false,
            }),
            Err(error) => Err(self.failed("cannot log in", &error)),
        }
    }

    /// Tells the server the recipients. Returns those that it refuses.
    fn add_recipients<'a>(
        &'a self,
        connection: &mut SmtpConnection,
        envelope: &Envelope,
    ) -> Result<Vec<Refused<'a>>, Failed> {
        let mut refused = Vec::new();
        for ((to, _), address) in self.to.iter().zip(&envelope.to) {
            let failed = match address {
                Ok(mailbox) => {
                    let step = format!("cannot add the recipient {}", mailbox.email);
                    match connection.command(&format!("RCPT TO:<{}>", mailbox.email)) {
                        Ok(_) => continue,
                        Err(error @ SmtpError::Refused { .. }) => self.failed(&step, &error),
                        Err(error) => return Err(self.failed(&step, &error)),
                    }
                }
                Err(reason) => Failed {
                    reason: reason.clone(),
                    is_temporary: false,
                },
            };
            refused.push(Refused { to, failed });
        }
        Ok(refused)
    }

    fn command(
        &self,
        connection: &mut SmtpConnection,
        step: &str,
        line: &str,
    ) -> Result<(), Failed> {
        match connection.command(line) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(step, &error)),
        }
    }

    fn failed(&self, step: &str, error: &SmtpError) -> Failed {
        let is_temporary = match error {
            SmtpError::Refused { code, .. } => *code < 500,
            SmtpError::Tls(_) | SmtpError::DataBeforeTls => false,
            _ => true,
        };
        Failed {
            reason: format!("{step}: {}", self.meaning(error)),
            is_temporary,
        }
    }

    /// Explains the error, and says what to do about it.
    fn meaning(&self, error: &SmtpError) -> String {
        match error {
            SmtpError::NoAnswer => {
                let hint = match self.encryption {
                    Encryption::Tls => "",
                    _ => "; a server that waits for TLS needs email.encryption \"tls\"",
                };
                format!("no answer within {} s{hint}", self.timeout.as_secs())
            }
            SmtpError::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                "connection refused; check email.host and email.port".to_owned()
            }
            SmtpError::Tls(error @ rustls::Error::InvalidMessage(_)) => {
                format!("{}; try email.encryption \"starttls\"", tls::explain(error))
            }
            SmtpError::Tls(error) => tls::explain(error),
            _ => error.to_string(),
        }
    }
}

/// Returns the name by which this host greets: its own if that is one of the domain
/// name system, else an address (RFC 5321, 4.1.3).
fn own_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let is_fine = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '.';
    match !name.is_empty() && name.chars().all(is_fine) {
        true => name,
        false => "[127.0.0.1]".to_owned(),
    }
}
