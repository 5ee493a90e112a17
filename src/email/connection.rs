//! A connection to a mail server: commands and replies (RFC 5321), and TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use thiserror::Error;

/// No reply is longer; a server that sends more is none.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// Why a step of the conversation failed.
#[derive(Debug, Error)]
pub enum SmtpError {
    #[error("the server said {code} {text}")]
    Refused { code: u16, text: String },
    #[error("no answer in time")]
    NoAnswer,
    #[error("the server closed the connection")]
    Closed,
    #[error("the server's answer is not one of SMTP")]
    Garbage,
    #[error("the server sent data before TLS began; somebody may be tampering with the connection")]
    DataBeforeTls,
    #[error(transparent)]
    Tls(rustls::Error),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for SmtpError {
    fn from(error: io::Error) -> SmtpError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(error) = inner {
            let error: &rustls::Error = error;
            return SmtpError::Tls(error.clone());
        }
        match error.kind() {
            // A socket whose timeout has passed "would block".
            ErrorKind::TimedOut | ErrorKind::WouldBlock => SmtpError::NoAnswer,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                SmtpError::Closed
            }
            _ => SmtpError::Io(error),
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A positive reply.
pub struct Reply {
    pub code: u16,
    lines: Vec<String>,
}

pub struct SmtpConnection {
    stream: Option<Stream>,
    /// What was received beyond the last reply.
    received: Vec<u8>,
}

impl SmtpConnection {
    /// Connects to the first address that answers.
    pub fn open(addresses: &[SocketAddr], timeout: Duration) -> Result<SmtpConnection, SmtpError> {
        let mut error = SmtpError::Closed;
        for address in addresses {
            match TcpStream::connect_timeout(address, timeout) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(timeout))?;
                    stream.set_write_timeout(Some(timeout))?;
                    return Ok(SmtpConnection {
                        stream: Some(Stream::Plain(stream)),
                        received: Vec::new(),
                    });
                }
                Err(refusal) => error = refusal.into(),
            }
        }
        Err(error)
    }

    /// Begins TLS. What the server has sent in the clear beyond its last reply was put
    /// there by somebody else, and would be taken for replies that came by TLS.
    pub fn begin_tls(&mut self, config: Arc<ClientConfig>, host: &str) -> Result<(), SmtpError> {
        if !self.received.is_empty() {
            return Err(SmtpError::DataBeforeTls);
        }
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| SmtpError::Io(io::Error::other(error)))?;
        let mut tls = ClientConnection::new(config, name).map_err(SmtpError::Tls)?;
        let Some(Stream::Plain(mut stream)) = self.stream.take() else {
            return Err(SmtpError::Closed);
        };
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let stream = StreamOwned::new(tls, stream);
        self.stream = Some(Stream::Tls(Box::new(stream)));
        Ok(())
    }

    /// Sends a line and returns the reply.
    ///
    /// # Errors
    /// When the reply is negative, or there is none.
    pub fn command(&mut self, line: &str) -> Result<Reply, SmtpError> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends the content of a mail, whose lines end with CRLF.
    pub fn content(&mut self, content: &[u8]) -> Result<Reply, SmtpError> {
        let mut stuffed = Vec::with_capacity(content.len() + 64);
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if line.first() == Some(&b'.') {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        if !stuffed.ends_with(b"\r\n") {
            stuffed.extend_from_slice(b"\r\n");
        }
        stuffed.extend_from_slice(b".\r\n");
        self.write(&stuffed)?;
        self.reply()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SmtpError> {
        match &mut self.stream {
            Some(Stream::Plain(stream)) => stream.write_all(bytes)?,
            Some(Stream::Tls(stream)) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
            None => return Err(SmtpError::Closed),
        }
        Ok(())
    }

    /// Returns the next reply. Those of several lines have a hyphen after the code in
    /// each line but the last.
    pub fn reply(&mut self) -> Result<Reply, SmtpError> {
        let mut lines = Vec::new();
        let mut length = 0;
        loop {
            let line = self.line()?;
            length += line.len();
            if length > MAX_REPLY_BYTES {
                return Err(SmtpError::Garbage);
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            let code = text.get(..3).and_then(|code| code.parse::<u16>().ok());
            let Some(code @ 200..=599) = code else {
                return Err(SmtpError::Garbage);
            };
            let is_last = !text[3..].starts_with('-');
            lines.push(text.get(4..).unwrap_or_default().to_owned());
            if is_last {
                let text = || lines.join(" ");
                return match code {
                    400.. => Err(SmtpError::Refused { code, text: text() }),
                    _ => Ok(Reply { code, lines }),
                };
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, SmtpError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                return Ok(self.received.drain(..=end).collect());
            }
            if self.received.len() > MAX_REPLY_BYTES {
                return Err(SmtpError::Garbage);
            }
            let mut buffer = [0; 4096];
            let read = match &mut self.stream {
                Some(Stream::Plain(stream)) => stream.read(&mut buffer)?,
                Some(Stream::Tls(stream)) => stream.read(&mut buffer)?,
                None => 0,
            };
            if read == 0 {
                return Err(SmtpError::Closed);
            }
            self.received.extend_from_slice(&buffer[..read]);
        }
    }
}

impl Reply {
    /// Whether the reply to EHLO names this extension.
    pub fn offers(&self, extension: &str) -> bool {
        self.words(extension).is_some()
    }

    /// Whether the reply to EHLO names this way to log in.
    pub fn offers_auth(&self, mechanism: &str) -> bool {
        let mut words = self.words("AUTH").into_iter().flatten();
        words.any(|word| word.eq_ignore_ascii_case(mechanism))
    }

    /// Returns the words that follow an extension's name. The first line is a greeting.
    fn words(&self, extension: &str) -> Option<impl Iterator<Item = &str>> {
        self.lines.iter().skip(1).find_map(|line| {
            // Old servers write "AUTH=PLAIN".
            let mut words = line.split([' ', '=']);
            let name = words.next().unwrap_or_default();
            name.eq_ignore_ascii_case(extension).then_some(words)
        })
    }
}
