//! Recipients: addresses beyond ASCII, and servers that want them later.

use std::sync::mpsc;

use super::faults::{converse, good};
use super::*;

/// Sends to these recipients, and returns the commands and the content.
fn send_to(
    to: &[&str],
    answer: impl Fn(&str) -> Option<&'static str> + Send + 'static,
) -> (Result<(), Undelivered>, Vec<String>) {
    let (sender, lines) = mpsc::channel();
    let port = converse(move |line| {
        sender.send(line.to_owned()).unwrap();
        answer(line)
    });
    let mut config = config("127.0.0.1", port);
    config.timeout = 2;
    config.to = to.iter().map(|to| (*to).to_owned()).collect();
    let result = send_with(&config, None, saying("subject", "body\n"));
    (result, lines.try_iter().collect())
}

fn utf8(line: &str) -> Option<&'static str> {
    match line.starts_with("EHLO") {
        true => Some("250-mail\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"),
        false => good(line),
    }
}

#[test]
fn an_address_beyond_ascii_is_used_where_the_server_takes_it() {
    let (result, lines) = send_to(&["j\u{fc}rgen@ex\u{e4}mple.org"], utf8);
    result.unwrap();
    assert_eq!(
        lines[1..3],
        [
            "MAIL FROM:<backup@example.org> SMTPUTF8 BODY=8BITMIME",
            "RCPT TO:<j\u{fc}rgen@xn--exmple-cua.org>"
        ]
    );
    // The control: other mails do not ask for it.
    let (result, lines) = send_to(&["admin@example.org"], utf8);
    result.unwrap();
    assert_eq!(lines[1], "MAIL FROM:<backup@example.org>");
}

#[test]
fn a_domain_beyond_ascii_needs_nothing_of_the_server() {
    let (result, lines) = send_to(&["admin@ex\u{e4}mple.org"], good);
    result.unwrap();
    assert_eq!(
        lines[1..3],
        [
            "MAIL FROM:<backup@example.org>",
            "RCPT TO:<admin@xn--exmple-cua.org>"
        ]
    );
}

#[test]
fn a_server_that_takes_no_such_address_sends_to_the_others() {
    let (result, lines) = send_to(&["j\u{fc}rgen@example.org", "admin@example.org"], good);
    let undelivered = result.unwrap_err();
    let expected = "cannot use j\\u{fc}rgen@example.org: the server takes no address that is not \
                    ASCII (SMTPUTF8); the other recipients got the mail";
    assert!(
        undelivered.reason.ends_with(expected),
        "{}",
        undelivered.reason
    );
    assert_eq!(undelivered.missing, Vec::<String>::new());
    assert_eq!(lines[2], "RCPT TO:<admin@example.org>");
    assert_eq!(lines[4], ".");
}

#[test]
fn only_those_who_have_not_got_it_are_tried_again() {
    let greylists = |line: &str| match line {
        "RCPT TO:<later@example.org>" => Some("451 4.7.1 greylisted\r\n"),
        "RCPT TO:<never@example.org>" => Some("550 who?\r\n"),
        line => good(line),
    };
    let all = ["later@example.org", "now@example.org", "never@example.org"];
    let (result, _) = send_to(&all, greylists);
    let undelivered = result.unwrap_err();
    assert!(undelivered.is_temporary);
    assert_eq!(undelivered.missing, ["later@example.org"]);
    // If nobody got it, all may still get it.
    let (result, _) = send_to(&["never@example.org"], greylists);
    let undelivered = result.unwrap_err();
    assert!(!undelivered.is_temporary);
    assert_eq!(undelivered.missing, ["never@example.org"]);
}

#[test]
fn what_may_pass_is_told_from_what_will_not() {
    for (answer, is_temporary) in [
        ("421 busy\r\n", true),
        ("450 later\r\n", true),
        ("554 no\r\n", false),
    ] {
        let refuse = move |line: &str| match line.starts_with("MAIL") {
            true => Some(answer),
            false => good(line),
        };
        let (result, _) = send_to(&["admin@example.org"], refuse);
        let undelivered = result.unwrap_err();
        assert_eq!(undelivered.is_temporary, is_temporary, "{answer}");
        assert_eq!(undelivered.missing, ["admin@example.org"]);
    }
}
