//! One HTTP request to an address that is a secret. Only this module uses the HTTP
//! library.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::http::{Method, Request as HttpRequest, Response, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector,
    Transport, TransportAdapter,
};
use ureq::{Agent, Body};

use crate::config::Channel;
use crate::email::Undelivered;
use crate::sys::format::ascii;
use crate::sys::secret::SecretSource;
use crate::sys::tls;

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How much of an answer is shown in an error.
const MAX_QUOTED_BYTES: u64 = 64 * 1024;
/// How much of the reason for a failure is told.
const MAX_REASON_CHARS: usize = 300;
/// Shorter parts of an address are words, such as `ping`, and not secrets.
const MIN_SECRET_LENGTH: usize = 6;

/// Where a channel's messages go. It has no `Debug`, so that it cannot be printed by
/// mistake.
pub struct ChannelAddress {
    /// `https://HOST[:PORT]`.
    origin: String,
    path: String,
    query: Vec<String>,
    headers: Vec<(String, String)>,
    /// What no message of this program may have.
    secrets: Vec<String>,
}

/// One request to an [`ChannelAddress`].
#[derive(Default)]
pub struct OutgoingRequest<'a> {
    pub is_post: bool,
    /// Is appended to the path.
    pub suffix: &'a str,
    /// Replaces parameters of the same name.
    pub parameters: Vec<(&'a str, String)>,
    pub headers: Vec<(&'a str, String)>,
    pub body: &'a str,
}

impl ChannelAddress {
    /// Reads a channel's address from its file or credential.
    ///
    /// # Errors
    /// They do not contain the address.
    pub fn load(channel: &Channel, credentials_dir: Option<&Path>) -> Result<ChannelAddress> {
        let source = SecretSource {
            what: "the channel's address",
            file: channel.url_file.as_deref(),
            credential: channel.credential.as_deref(),
            fields: ["urlFile", "credential"],
        };
        let text = source.read(credentials_dir)?;
        // Units set this in place of a file that does not exist, so that they start.
        ensure!(
            text != "missing",
            "cannot read the channel's address: systemd has not found the file"
        );
        ChannelAddress::parse(&text).context("cannot use the channel's address")
    }

    /// Parses a URL, and below it lines with header fields.
    pub fn parse(text: &str) -> Result<ChannelAddress> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let url = lines.next().context("there is none")?;
        let Ok(uri) = url.parse::<Uri>() else {
            bail!("its first line is not a URL");
        };
        let scheme = uri.scheme_str().unwrap_or_default();
        ensure!(
            ["http", "https"].contains(&scheme),
            "its first line does not begin with https:// or http://"
        );
        let authority = uri.authority().context("its URL has no host")?.as_str();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        ensure!(!host.is_empty(), "its URL has no host");
        let mut headers = Vec::new();
        for (number, line) in lines.enumerate() {
            let Some((name, value)) = line.split_once(':') else {
                bail!("line {} is not a header field, NAME: VALUE", number + 2);
            };
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        if let Some(user) = user {
            let login = BASE64.encode(percent_decoded(user));
            headers.push(("Authorization".to_owned(), format!("Basic {login}")));
        }
        let query = uri.query().unwrap_or_default();
        let query = query.split('&').filter(|parameter| !parameter.is_empty());
        let address = ChannelAddress {
            origin: format!("{scheme}://{host}"),
            path: uri.path().to_owned(),
            query: query.map(str::to_owned).collect(),
            secrets: Vec::new(),
            headers,
        };
        Ok(address.with_secrets(url, user))
    }

    /// Lists what is secret, the longest first, so that no rest of one stays.
    fn with_secrets(mut self, url: &str, user: Option<&str>) -> ChannelAddress {
        let mut secrets = vec![url.to_owned(), self.path.clone()];
        let parts = |text: &str, separators: &[char]| -> Vec<String> {
            text.split(separators).map(str::to_owned).collect()
        };
        secrets.extend(parts(&self.path, &['/']));
        for parameter in &self.query {
            secrets.extend(parts(parameter, &['=']));
        }
        for (_, value) in &self.headers {
            secrets.push(value.clone());
            secrets.extend(parts(value, &[' ']));
        }
        secrets.extend(user.map(|user| parts(user, &[':'])).unwrap_or_default());
        let decoded: Vec<String> = secrets
            .iter()
            .map(|secret| String::from_utf8_lossy(&percent_decoded(secret)).into_owned())
            .collect();
        secrets.extend(decoded);
        secrets.retain(|secret| secret.len() >= MIN_SECRET_LENGTH);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        self.secrets = secrets;
        self
    }

    /// Returns the host, with which the address is named in messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the text without any part of the address that may be a secret.
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.secrets.iter();
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    fn url(&self, request: &OutgoingRequest<'_>) -> String {
        let is_replaced = |parameter: &&String| {
            let name = parameter.split('=').next().unwrap_or_default();
            request.parameters.iter().any(|(new, _)| *new == name)
        };
        let kept = self
            .query
            .iter()
            .filter(|parameter| !is_replaced(parameter));
        let new = request.parameters.iter();
        let new = new.map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        let query: Vec<String> = kept.cloned().chain(new).collect();
        let path = format!("{}{}", self.path.trim_end_matches('/'), request.suffix);
        match query.is_empty() {
            true => format!("{}{path}", self.origin),
            false => format!("{}{path}?{}", self.origin, query.join("&")),
        }
    }

    /// Sends a request, and waits for a positive answer.
    ///
    /// # Errors
    /// They name the host and what it said, without any secret.
    pub fn send(
        &self,
        request: &OutgoingRequest<'_>,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<(), Undelivered> {
        self.try_send(request, ca_file, timeout)
            .map_err(|failed| Undelivered {
                // It is cut after the secrets are gone: a part of one would not be found.
                reason: ascii(&format!(
                    "cannot reach {}: {:.MAX_REASON_CHARS$}",
                    self.origin,
                    self.redact(&failed.reason)
                )),
                is_temporary: failed.is_temporary,
                missing: Vec::new(),
            })
    }

    fn try_send(
        &self,
        request: &OutgoingRequest<'_>,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<(), Failed> {
        let permanent = |reason: String| Failed {
            reason,
            is_temporary: false,
        };
        let tls = match self.origin.starts_with("https://") {
            true => tls::client_config(ca_file).map(Some),
            false => Ok(None),
        };
        let agent = agent(
            tls.map_err(|error| permanent(format!("{error:#}")))?,
            timeout,
        );
        let mut builder = HttpRequest::builder().uri(self.url(request));
        for (name, value) in &request.headers {
            let is_own = |(own, _): &(String, String)| own.eq_ignore_ascii_case(name);
            // What stands in the file has the last word, such as a priority.
            if !self.headers.iter().any(is_own) {
                builder = builder.header(*name, value);
            }
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let not_a_request =
            |_| permanent("the address or its header fields are not valid".to_owned());
        let answered = match request.is_post {
            true => {
                let request = builder.method(Method::POST).body(request.body);
                agent.run(request.map_err(not_a_request)?)
            }
            false => agent.run(
                builder
                    .method(Method::GET)
                    .body(())
                    .map_err(not_a_request)?,
            ),
        };
        match answered {
            Ok(answer) => judge(answer),
            Err(error) => Err(explain(&error, timeout)),
        }
    }
}

struct Failed {
    reason: String,
    is_temporary: bool,
}

/// Redirects are not followed: they would hand the secret to another host.
fn agent(tls: Option<Arc<ClientConfig>>, timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(timeout))
        .max_response_header_size(MAX_HEADER_BYTES)
        .user_agent(USER_AGENT)
        .build();
    let tls = TlsConnector { config: tls };
    let connector = ().chain(TcpConnector::default()).chain(tls);
    Agent::with_parts(config, connector, DefaultResolver::default())
}

fn judge(mut answer: Response<Body>) -> Result<(), Failed> {
    let status = answer.status();
    // The rest of the answer does not matter, and may never come.
    if status.is_success() {
        return Ok(());
    }
    if status.is_redirection() {
        let location = answer.headers().get("location");
        let location = location.and_then(|location| location.to_str().ok());
        let uri = location.and_then(|location| location.parse::<Uri>().ok());
        let host = uri.as_ref().and_then(Uri::host).unwrap_or("another path");
        return Err(Failed {
            reason: format!(
                "the server redirects to {host} ({status}), which is not followed because the \
                 address is a secret; use the new address"
            ),
            is_temporary: false,
        });
    }
    let mut quoted = Vec::new();
    let body = answer.body_mut().as_reader();
    let _ = body.take(MAX_QUOTED_BYTES).read_to_end(&mut quoted);
    let mut reason = format!("the server said {status}");
    let quoted = String::from_utf8_lossy(&quoted);
    if !quoted.trim().is_empty() {
        let _ = write!(reason, ": {}", quoted.trim()); // writing to a String cannot fail
    }
    Err(Failed {
        reason,
        is_temporary: status.is_server_error() || [408, 425, 429].contains(&status.as_u16()),
    })
}

fn explain(error: &ureq::Error, timeout: Duration) -> Failed {
    let temporary = |reason: String| Failed {
        reason,
        is_temporary: true,
    };
    match error {
        ureq::Error::Timeout(_) => temporary(format!("no answer within {} s", timeout.as_secs())),
        ureq::Error::HostNotFound => temporary("cannot find the host".to_owned()),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            temporary("the server's answer is not one of HTTP".to_owned())
        }
        ureq::Error::Io(error) => match tls_error(error) {
            Some(error) => Failed {
                reason: tls::explain(error),
                is_temporary: false,
            },
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                temporary("the server closed the connection".to_owned())
            }
            None => temporary(error.to_string()),
        },
        error => temporary(error.to_string()),
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Begins TLS as the mail does, with the same trust.
#[derive(Debug)]
struct TlsConnector {
    /// Set for `https`.
    config: Option<Arc<ClientConfig>>,
}

struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else {
            return Ok(None);
        };
        let Some(tls) = self.config.as_ref().filter(|_| details.needs_tls()) else {
            return Ok(Some(Either::A(transport)));
        };
        let host = details.uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let connection = ClientConnection::new(tls.clone(), name);
        let connection = connection.map_err(io::Error::other)?;
        let config = details.config;
        Ok(Some(Either::B(TlsTransport {
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            stream: StreamOwned::new(connection, TransportAdapter::new(transport.boxed())),
        })))
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output)?;
        self.stream.flush()?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Encodes what is not unreserved (RFC 3986, 2.3).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}"); // writing to a String cannot fail
            }
        }
    }
    encoded
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3);
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}
