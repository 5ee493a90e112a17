//! HTTP/1.1 (RFC 9112) over a Unix socket, as far as the Engine's API needs it:
//! responses of a known length or in chunks, and those whose body is a stream that ends
//! with the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::owner::Owner;

/// Larger than any response of an Engine, so that another peer cannot fill the
/// memory.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
const HEADERS_MAX: usize = 64;
/// An Engine that is alive accepts a connection at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 16 << 10;

/// A response, read to its end.
#[derive(Debug)]
pub(super) struct Response {
    pub status: u16,
    /// Pairs of name and value; the names are in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the value of the first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    /// JSON, or nothing.
    pub body: Option<&'a str>,
}

/// What was received of a stream within a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(Vec<u8>),
    Nothing,
    /// The peer has closed the connection.
    End,
}

/// A connection that serves any number of requests, one after another.
pub(super) struct Connection {
    stream: UnixStream,
    /// Bytes that were received and not used yet.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a socket. The connection is closed on `exec`, so no command
    /// that this program runs inherits it.
    ///
    /// # Errors
    /// `TimedOut` when nobody accepts the connection within `limit`, and at most 10 s.
    pub fn open(socket: &Path, limit: Duration) -> io::Result<Connection> {
        let address = SocketAddrUnix::new(socket)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // It is the limit of connect(2), too: see unix(7) of a full queue.
        let limit = limit.min(CONNECT_LIMIT);
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        match connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::AGAIN) => {
                let message = "nobody accepts the connection";
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(Connection {
            stream: UnixStream::from(socket),
            buffer: Vec::new(),
        })
    }

    /// Returns who has opened the socket at the other end.
    pub fn peer(&self) -> io::Result<Owner> {
        let peer = getsockopt(&self.stream, PeerCredentials)?;
        Ok(Owner {
            uid: peer.uid(),
            gid: peer.gid(),
        })
    }

    /// Sends a request in one piece and waits for the whole response.
    ///
    /// # Errors
    /// `TimedOut` when the response is not complete after `limit`,
    /// `UnexpectedEof` when the peer went away, `InvalidData` when the response
    /// is not HTTP.
    pub fn request(&mut self, request: Request<'_>, limit: Duration) -> io::Result<Response> {
        let deadline = Instant::now() + limit;
        let mut response = self.exchange_heads(request, deadline)?;
        response.body = self.read_body(&response, deadline)?;
        Ok(response)
    }

    /// Sends a request whose answer is a stream, for [`receive`](Connection::receive). Any
    /// other answer is read to its end.
    ///
    /// # Errors
    /// Those of [`request`](Connection::request).
    pub fn request_stream(
        &mut self,
        request: Request<'_>,
        limit: Duration,
    ) -> io::Result<Response> {
        let deadline = Instant::now() + limit;
        let mut response = self.exchange_heads(request, deadline)?;
        if response.status != 200 {
            response.body = self.read_body(&response, deadline)?;
        }
        Ok(response)
    }

    /// Receives what comes of a stream within `wait`.
    pub fn receive(&mut self, wait: Duration) -> io::Result<Received> {
        if self.buffer.is_empty() {
            match self.fill_buffer(Instant::now() + wait) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(Received::Nothing),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(Received::End);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Received::Bytes(std::mem::take(&mut self.buffer)))
    }

    /// Sends a request, and reads the answer up to its body.
    fn exchange_heads(&mut self, request: Request<'_>, deadline: Instant) -> io::Result<Response> {
        let Request {
            method,
            target,
            body,
        } = request;
        let headers = body.map_or_else(String::new, |body| {
            let length = body.len();
            format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
        });
        let body = body.unwrap_or_default();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n{body}");
        let left = deadline.saturating_duration_since(Instant::now());
        self.stream
            .set_write_timeout(Some(left.max(Duration::from_millis(1))))?;
        self.stream.write_all(request.as_bytes())?;
        let (head_bytes, response) = loop {
            if let Some(parsed) = parse_head(&self.buffer)? {
                break parsed;
            }
            self.fill_buffer(deadline)?;
        };
        self.buffer.drain(..head_bytes);
        Ok(response)
    }

    fn read_body(&mut self, response: &Response, deadline: Instant) -> io::Result<Vec<u8>> {
        if matches!(response.status, 100..200 | 204 | 304) {
            return Ok(Vec::new());
        }
        if let Some(coding) = response.header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(invalid(format!("unknown transfer coding {coding}")));
            }
            return self.read_chunks(deadline);
        }
        match response.header("content-length") {
            Some(length) => {
                let length = length.parse();
                let length = length.map_err(|_| invalid("the content length is not a number"))?;
                self.read_exact(length, deadline)
            }
            None => loop {
                match self.fill_buffer(deadline) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        return Ok(std::mem::take(&mut self.buffer));
                    }
                    received => received?,
                }
            },
        }
    }

    fn read_chunks(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let (line_bytes, length) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) => self.fill_buffer(deadline)?,
                    Err(_) => return Err(invalid("a chunk has no valid length")),
                }
            };
            self.buffer.drain(..line_bytes);
            if length == 0 {
                // There are no trailers: a server sends them on request only.
                self.read_exact(2, deadline)?;
                return Ok(body);
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            body.extend(self.read_exact(length, deadline)?);
            self.read_exact(2, deadline)?;
            if body.len() > RESPONSE_BYTES_MAX {
                return Err(invalid("the response is too long"));
            }
        }
    }

    fn read_exact(&mut self, count: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        if count > RESPONSE_BYTES_MAX {
            return Err(invalid(format!("the response is too long ({count} bytes)")));
        }
        while self.buffer.len() < count {
            self.fill_buffer(deadline)?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn fill_buffer(&mut self, deadline: Instant) -> io::Result<()> {
        if self.buffer.len() > RESPONSE_BYTES_MAX {
            return Err(invalid("the response is too long"));
        }
        let mut bytes = [0; READ_BYTES];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.buffer.extend_from_slice(&bytes[..count]);
                    return Ok(());
                }
                // With a time limit, a signal interrupts a read even if its
                // handler has SA_RESTART (signal(7)).
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns the length of the head, and a response without its body; `None` while
/// the head is incomplete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Response)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(error)),
    };
    let header = |header: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    };
    let response = Response {
        status: head.code.unwrap_or_default(),
        headers: head.headers.iter().map(header).collect(),
        body: Vec::new(),
    };
    Ok(Some((head_bytes, response)))
}

fn invalid(reason: impl ToString) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Sends as many requests to a peer that sends `pieces`, one by one, and then
    /// closes the connection.
    fn responses(pieces: &[&str], limit: Duration, requests: usize) -> Vec<io::Result<Response>> {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        let mut connection = Connection {
            stream,
            buffer: Vec::new(),
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                for piece in pieces {
                    peer.write_all(piece.as_bytes()).unwrap();
                    thread::sleep(Duration::from_millis(10));
                }
                if limit < LIMIT {
                    thread::sleep(limit * 2);
                }
                // An unread byte would make the close a reset.
                let _ = peer.read(&mut [0; 4096]);
            });
            let request = Request {
                method: "GET",
                target: "/x",
                body: None,
            };
            let request = |_| connection.request(request, limit);
            (0..requests).map(request).collect()
        })
    }

    fn body(pieces: &[&str]) -> Result<(u16, String), ErrorKind> {
        let response = responses(pieces, LIMIT, 1).remove(0);
        let response = response.map_err(|error| error.kind())?;
        Ok((response.status, String::from_utf8(response.body).unwrap()))
    }

    #[test]
    fn a_connection_that_nobody_accepts_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let address = SocketAddrUnix::new(&path).unwrap();
        let flags = SocketFlags::NONBLOCK;
        let open = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let listener = open();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        // The control: there is room for one.
        let first = Connection::open(&path, LIMIT).unwrap();
        let error = Connection::open(&path, LIMIT).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(first);
    }

    #[test]
    fn a_response_is_read_in_every_framing_and_in_any_pieces() {
        let whole = [
            ("HTTP/1.1 204 No Content\r\nServer: Docker\r\n\r\n", 204, ""),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                200,
                "hello",
            ),
            (
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
                404,
                "hello",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello"),
        ];
        for (text, status, expected) in whole {
            let expected = Ok((status, expected.to_owned()));
            assert_eq!(body(&[text]), expected, "{text}");
            for cut in [1, 10, text.len() / 2, text.len() - 1] {
                assert_eq!(
                    body(&[&text[..cut], &text[cut..]]),
                    expected,
                    "{text} {cut}"
                );
            }
        }
    }

    #[test]
    fn one_connection_serves_several_requests() {
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb";
        let responses = responses(&[both], LIMIT, 2);
        let bodies = responses.into_iter().map(|response| response.unwrap().body);
        assert_eq!(bodies.collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn a_cut_or_invalid_response_is_an_error() {
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
        assert_eq!(body(&[cut]), Err(ErrorKind::UnexpectedEof));
        let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        assert_eq!(body(&[cut]), Err(ErrorKind::UnexpectedEof));
        assert_eq!(body(&[""]), Err(ErrorKind::UnexpectedEof));
        assert_eq!(body(&["SSH-2.0-x\r\n\r\n"]), Err(ErrorKind::InvalidData));
        let huge = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        assert_eq!(body(&[huge]), Err(ErrorKind::InvalidData));
    }

    #[test]
    fn a_stream_is_received_piece_by_piece_to_its_end() {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        let mut connection = Connection {
            stream,
            buffer: Vec::new(),
        };
        thread::scope(|scope| {
            let asked = scope.spawn(move || {
                let mut request = [0; 4096];
                let count = peer.read(&mut request).unwrap();
                peer.write_all(b"HTTP/1.1 200 OK\r\n\r\none").unwrap();
                thread::sleep(Duration::from_millis(100));
                peer.write_all(b"two").unwrap();
                String::from_utf8_lossy(&request[..count]).into_owned()
            });
            let request = Request {
                method: "POST",
                target: "/x",
                body: Some("{}"),
            };
            let response = connection.request_stream(request, LIMIT).unwrap();
            assert_eq!(response.status, 200);
            let mut seen = Vec::new();
            loop {
                match connection.receive(Duration::from_millis(10)).unwrap() {
                    Received::End => break,
                    received => seen.push(received),
                }
            }
            seen.dedup();
            let bytes = |text: &str| Received::Bytes(text.into());
            assert_eq!(seen, [bytes("one"), Received::Nothing, bytes("two")]);
            let asked = asked.join().unwrap();
            let length = "Content-Length: 2\r\n\r\n{}";
            assert!(asked.ends_with(length), "{asked}");
        });
    }

    #[test]
    fn a_response_that_does_not_come_is_a_time_out() {
        let limit = Duration::from_millis(100);
        let began = Instant::now();
        let responses = responses(&["HTTP/1.1 200 OK\r\n"], limit, 1);
        assert_eq!(
            responses[0].as_ref().unwrap_err().kind(),
            ErrorKind::TimedOut
        );
        assert!(began.elapsed() >= limit);
    }
}
