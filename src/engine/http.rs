//! HTTP/1.1 over a Unix socket, as far as the Engine's API needs it: requests
//! without a body, answers of a known length or in chunks (RFC 9112).

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// More than any answer here is: a peer that is no Engine fills no memory.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const HEADERS_MAX: usize = 64;
const READ_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// One connection: any number of requests, one after another.
pub struct Connection {
    stream: UnixStream,
    /// Received, and not yet used up.
    buffer: Vec<u8>,
}

impl Connection {
    /// The socket is closed on `exec`, so no command that is run inherits it.
    pub fn open(socket: &Path) -> io::Result<Connection> {
        Ok(Connection {
            stream: UnixStream::connect(socket)?,
            buffer: Vec::new(),
        })
    }

    /// Sends a request in one piece and waits for the whole answer.
    ///
    /// # Errors
    /// `TimedOut` when it is not there after `limit`; `UnexpectedEof` when the
    /// peer went away; `InvalidData` when it is not HTTP.
    pub fn request(&mut self, method: &str, target: &str, limit: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + limit;
        let request = format!("{method} {target} HTTP/1.1\r\nHost: docker\r\n\r\n");
        self.stream.set_write_timeout(Some(limit))?;
        self.stream.write_all(request.as_bytes())?;
        let (head_bytes, mut answer) = loop {
            if let Some(parsed) = parse_head(&self.buffer)? {
                break parsed;
            }
            self.receive(deadline)?;
        };
        self.buffer.drain(..head_bytes);
        answer.body = self.body(&answer, deadline)?;
        Ok(answer)
    }

    fn body(&mut self, answer: &Answer, deadline: Instant) -> io::Result<Vec<u8>> {
        if matches!(answer.status, 100..200 | 204 | 304) {
            return Ok(Vec::new());
        }
        if let Some(coding) = answer.header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(invalid(format!("transfer coding {coding}")));
            }
            return self.chunks(deadline);
        }
        match answer.header("content-length") {
            Some(length) => {
                let length = length.parse();
                let length = length.map_err(|_| invalid("a content length that is no number"))?;
                self.take(length, deadline)
            }
            None => loop {
                match self.receive(deadline) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        return Ok(std::mem::take(&mut self.buffer));
                    }
                    received => received?,
                }
            },
        }
    }

    fn chunks(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let (line_bytes, length) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) => self.receive(deadline)?,
                    Err(_) => return Err(invalid("a chunk without a length")),
                }
            };
            self.buffer.drain(..line_bytes);
            if length == 0 {
                // No trailers: the Engine sends none without being asked to.
                self.take(2, deadline)?;
                return Ok(body);
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            body.extend(self.take(length, deadline)?);
            self.take(2, deadline)?;
            if body.len() > ANSWER_BYTES_MAX {
                return Err(invalid("an answer without end"));
            }
        }
    }

    fn take(&mut self, count: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        if count > ANSWER_BYTES_MAX {
            return Err(invalid(format!("an answer of {count} bytes")));
        }
        while self.buffer.len() < count {
            self.receive(deadline)?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<()> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            return Err(invalid("an answer without end"));
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
                // With a time limit, a signal ends a read even where its
                // handler has SA_RESTART (signal(7)).
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Length of the head and what it says; `None` while it is incomplete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Answer)>> {
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
    let answer = Answer {
        status: head.code.unwrap_or_default(),
        headers: head.headers.iter().map(header).collect(),
        body: Vec::new(),
    };
    Ok(Some((head_bytes, answer)))
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_string())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// What the client makes of `pieces`, sent one by one, and then of an end.
    fn answer(pieces: &[&str], limit: Duration, requests: usize) -> Vec<io::Result<Answer>> {
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
                // What came in is read first: an unread byte makes it a reset.
                let _ = peer.read(&mut [0; 4096]);
            });
            let ask = |_| connection.request("GET", "/x", limit);
            (0..requests).map(ask).collect()
        })
    }

    fn body(pieces: &[&str]) -> Result<(u16, String), ErrorKind> {
        let answer = answer(pieces, LIMIT, 1).remove(0);
        let answer = answer.map_err(|error| error.kind())?;
        Ok((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    #[test]
    fn answers_are_read_in_every_framing_and_in_any_pieces() {
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
        let answers = answer(&[both], LIMIT, 2);
        let bodies = answers.into_iter().map(|answer| answer.unwrap().body);
        assert_eq!(bodies.collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn a_cut_or_senseless_answer_is_an_error() {
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
    fn an_answer_that_does_not_come_is_a_time_out() {
        let limit = Duration::from_millis(100);
        let began = Instant::now();
        let answers = answer(&["HTTP/1.1 200 OK\r\n"], limit, 1);
        assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() >= limit);
    }
}
