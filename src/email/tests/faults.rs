//! Servers that misbehave. Each is a script on a plain socket.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::*;

const OK: &str = "250 ok\r\n";
const GREETING: &str = "220 localhost ready\r\n";

/// Starts a server that runs `script` on the first connection. Returns its port.
fn serve(script: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || script(listener.accept().unwrap().0));
    port
}

/// Starts a server that greets, and answers each line with the result of `answer`.
/// It hangs on `None`. All lines of a mail's body count as one line, `.`.
pub fn converse(answer: impl Fn(&str) -> Option<&'static str> + Send + 'static) -> u16 {
    serve(move |stream| {
        let mut writer = stream.try_clone().unwrap();
        writer.write_all(GREETING.as_bytes()).unwrap();
        let mut in_body = false;
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if in_body && line != "." {
                continue;
            }
            let Some(answer) = answer(&line) else {
                return sleep(Duration::from_secs(60));
            };
            in_body = answer.starts_with("354");
            let _ = writer.write_all(answer.as_bytes());
        }
    })
}

/// The answers of a server that accepts everything.
pub fn good(line: &str) -> Option<&'static str> {
    match line {
        "DATA" => Some("354 go on\r\n"),
        _ => Some(OK),
    }
}

/// Sends a mail with a timeout of one second for each step, so five in all.
fn send_to(port: u16, change: impl FnOnce(&mut Email)) -> Result<(), Undelivered> {
    let mut config = config("127.0.0.1", port);
    config.timeout = 1;
    change(&mut config);
    send_with(&config, None, saying("subject", "body\n"))
}

fn expect(port: u16, change: impl FnOnce(&mut Email), what: &str) {
    let error = error_of(send_to(port, change));
    let expected = format!("cannot send mail through 127.0.0.1:{port}: {what}");
    assert_eq!(error, expected);
}

const NO_ANSWER: &str =
    "no answer within 1 s; a server that waits for TLS needs email.encryption \"tls\"";

#[test]
fn a_good_server_takes_the_mail() {
    send_to(converse(good), |_| ()).unwrap();
}

#[test]
fn a_server_that_never_greets_times_out() {
    let begun = Instant::now();
    let port = serve(|_stream| sleep(Duration::from_secs(60)));
    expect(port, |_| (), &format!("cannot connect: {NO_ANSWER}"));
    let port = serve(|_stream| sleep(Duration::from_secs(60)));
    let encryption = Encryption::Tls;
    expect(
        port,
        |c| c.encryption = encryption,
        "cannot connect: no answer within 1 s",
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_server_that_hangs_after_a_command_times_out() {
    let hang = |at: &'static str| {
        converse(move |line| {
            let hangs = line.starts_with(at);
            if hangs { None } else { good(line) }
        })
    };
    for (at, step) in [
        ("EHLO", "cannot connect"),
        ("MAIL", "cannot set the sender"),
        ("RCPT", "cannot add the recipient admin@example.org"),
        ("DATA", "cannot send the message"),
        (".", "cannot send the message"),
    ] {
        expect(hang(at), |_| (), &format!("{step}: {NO_ANSWER}"));
    }
}

#[test]
fn a_server_that_hangs_after_accepting_the_mail_is_a_success() {
    let port = converse(|line| if line == "QUIT" { None } else { good(line) });
    send_to(port, |_| ()).unwrap();
}

#[test]
fn a_refusing_greeting_is_quoted() {
    for (greeting, what) in [
        (
            "421 too busy\r\n",
            "cannot connect: the server said 421 too busy",
        ),
        (
            "554-no service\r\n554 for you \x1b[31m\r\n",
            "cannot connect: the server said 554 no service for you \\u{1b}[31m",
        ),
    ] {
        let port = serve(move |mut stream| stream.write_all(greeting.as_bytes()).unwrap());
        expect(port, |_| (), what);
    }
}

#[test]
fn a_server_that_hangs_up_is_reported() {
    let port = serve(drop);
    expect(
        port,
        |_| (),
        "cannot connect: the server closed the connection",
    );
    let port = serve(|mut stream| {
        stream.write_all(GREETING.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
    });
    expect(
        port,
        |_| (),
        "cannot connect: the server closed the connection",
    );
}

#[test]
fn a_refused_connection_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let what = "cannot connect: connection refused; check email.host and email.port";
    expect(port, |_| (), what);
}

#[test]
fn an_unknown_host_is_named() {
    let mut config = config("no-such-host.invalid", 25);
    config.timeout = 10;
    let error = error_of(send_with(&config, None, saying("subject", "body")));
    let start = "cannot send mail through no-such-host.invalid:25: cannot find the host \"no-such-host.invalid\": ";
    assert!(error.starts_with(start), "{error}");
    assert!(error.ends_with("; check email.host"), "{error}");
}

#[test]
fn a_server_that_sends_single_bytes_does_not_hang_the_run() {
    let port = serve(|mut stream| {
        for byte in b"220-".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            sleep(Duration::from_millis(400));
        }
    });
    let begun = Instant::now();
    let what = "not done after 5 s; the server is too slow, or email.timeout is too short";
    expect(port, |_| (), what);
    assert!(begun.elapsed() < Duration::from_secs(8));
}

/// The answers of a server that refuses a recipient called `bad`.
fn picky(line: &str) -> Option<&'static str> {
    if line.starts_with("RCPT TO:<bad@") {
        return Some("550 5.1.1 who?\r\n");
    }
    good(line)
}

#[test]
fn a_refused_recipient_is_named_and_the_other_gets_the_mail() {
    let (sender, lines) = mpsc::channel();
    let port = converse(move |line| {
        sender.send(line.to_owned()).unwrap();
        picky(line)
    });
    let what = "cannot add the recipient bad@example.org: the server said 550 5.1.1 who?; \
                the other recipients got the mail";
    expect(port, |c| c.to.insert(0, "bad@example.org".to_owned()), what);
    let lines: Vec<String> = lines.try_iter().collect();
    assert!(lines.contains(&"RCPT TO:<admin@example.org>".to_owned()));
    assert!(lines.contains(&".".to_owned()), "{lines:?}");
}

#[test]
fn a_mail_whose_recipients_are_all_refused_is_not_sent() {
    let what = "cannot add the recipient bad@example.org: the server said 550 5.1.1 who?";
    expect(
        converse(picky),
        |c| c.to = vec!["bad@example.org".to_owned()],
        what,
    );
}

#[test]
fn a_refused_mail_is_an_error_with_the_answer() {
    for (at, answer, what) in [
        (
            "MAIL",
            "530 no\r\n",
            "cannot set the sender: the server said 530 no",
        ),
        (
            "DATA",
            "451 later\r\n",
            "cannot send the message: the server said 451 later",
        ),
        (
            ".",
            "552 too big\r\n",
            "cannot send the message: the server said 552 too big",
        ),
    ] {
        let port = converse(move |line| {
            let refuses = line.starts_with(at);
            if refuses { Some(answer) } else { good(line) }
        });
        expect(port, |_| (), what);
    }
}

#[test]
fn a_server_without_starttls_gets_nothing() {
    let (sender, lines) = mpsc::channel();
    let port = converse(move |line| {
        sender.send(line.to_owned()).unwrap();
        good(line)
    });
    let what = "the server offers no STARTTLS; set email.encryption to \"tls\" (usually port 465)";
    expect(port, |c| c.encryption = Encryption::Starttls, what);
    let lines: Vec<String> = lines.try_iter().collect();
    assert!(
        lines.iter().all(|line| line.starts_with("EHLO")),
        "{lines:?}"
    );
}

#[test]
fn a_server_without_tls_is_explained() {
    let error = error_of(send_to(converse(good), |c| c.encryption = Encryption::Tls));
    assert!(error.contains("does not speak TLS on this port"), "{error}");
}

#[test]
fn a_password_quoted_by_the_server_is_not_in_the_error() {
    let (_dir, with_password) = with_password_file(Some("s3cret\n"));
    let log_in = |c: &mut Email| {
        c.user = with_password.user.clone();
        c.password_file = with_password.password_file.clone();
    };
    let port = converse(|line| match line {
        line if line.starts_with("EHLO") => Some("250-localhost\r\n250 AUTH PLAIN\r\n"),
        "AUTH PLAIN AHUAczNjcmV0" => Some("535 bad: AUTH PLAIN AHUAczNjcmV0 (s3cret)\r\n"),
        line => good(line),
    });
    let what = "cannot log in: user \"u\" or the password is wrong: \
                the server said 535 bad: AUTH PLAIN *** (***)";
    expect(port, log_in, what);
    let what = "cannot log in: the server offers neither PLAIN nor LOGIN; remove email.user if the \
                server needs no log-in";
    expect(converse(good), log_in, what);
}

/// Collects the text of all events.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for &Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        *self.0.lock().unwrap() += &format!("{field}={value:?}\n");
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut &*self);
    }
}

/// Invariant I8: no log has a secret, at any level.
#[test]
fn the_password_is_not_logged() {
    let (_dir, mut config) = with_password_file(Some("s3cret\n"));
    let (sender, lines) = mpsc::channel();
    let port = converse(move |line| {
        sender.send(line.to_owned()).unwrap();
        match line {
            line if line.starts_with("EHLO") => Some("250-localhost\r\n250 AUTH PLAIN\r\n"),
            line => good(line),
        }
    });
    config.port = Some(port);
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("this is logged");
        prepare(&config, None, saying("subject", "body"))
            .unwrap()
            .send()
            .unwrap();
    });
    // The controls: the password was sent, and the log is captured.
    assert!(
        lines
            .try_iter()
            .any(|line| line == "AUTH PLAIN AHUAczNjcmV0")
    );
    let log = log.0.lock().unwrap().clone();
    assert!(log.contains("this is logged"), "{log}");
    assert!(
        !log.contains("s3cret") && !log.contains("AHUAczNjcmV0"),
        "{log}"
    );
}
