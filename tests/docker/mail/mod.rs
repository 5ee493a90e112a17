//! The report by mail, with an unreachable server and with a real Exim.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use crate::common::smtp::SmtpServer;
use crate::common::{Ended, PATIENCE, Place, Stack, output, succeed, wait_until};
use serde_json::{Value, json};

mod needs_exim;

/// Settings that work; `more` is merged over them.
fn email(server: &SmtpServer, more: Value) -> Value {
    let mut email = json!({
        "host": "localhost",
        "port": server.port_starttls,
        "caFile": server.ca_file,
        "user": server.user,
        "passwordFile": server.password_file(),
        "from": "Backup <backup@example.org>",
        "to": ["admin@example.org"],
        "subjectTag": "TAG",
        "timeout": 10,
    });
    for (key, value) in more.as_object().unwrap() {
        email[key] = value.clone();
    }
    json!({ "email": email })
}

/// Checks that the subject begins with a label, the host's name, and `rest`.
#[track_caller]
fn assert_subject(subject: &str, label: &str, rest: &str) {
    let host = nix::unistd::gethostname().unwrap();
    let expected = format!("[TAG] {label} on {}: {rest}", host.to_string_lossy());
    assert!(subject.starts_with(&expected), "{subject}\n{expected}");
}

/// A mail as it was delivered: its unfolded subject and its body.
fn parse(mail: &str) -> (String, String) {
    let mail = mail.replace("\r\n", "\n");
    let (head, body) = mail.split_once("\n\n").unwrap();
    let head = head.replace("\n ", " ").replace("\n\t", " ");
    let subject = head.lines().find_map(|line| line.strip_prefix("Subject: "));
    (subject.unwrap().to_owned(), body.to_owned())
}

fn without_blanks(text: &str) -> String {
    text.replace(char::is_whitespace, "")
}

#[track_caller]
fn assert_contains(text: &str, expected: &str) {
    assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
}

#[track_caller]
fn only_mail(server: &SmtpServer) -> (String, String) {
    let mails = server.wait_for_messages(1);
    assert_eq!(mails.len(), 1, "{mails:#?}");
    parse(&mails[0])
}

const SECRET: &str = "xyzzy-secret-plugh";

/// Checks that the password is in no output, log or state file, and that the
/// user's name is.
#[track_caller]
fn assert_secret_is_kept(place: &Place, ended: &Ended) {
    let mut all = ended.stdout.clone() + &ended.stderr;
    all += &fs::read_to_string(place.path("log")).unwrap();
    all += &fs::read_to_string(place.path("state/last-run.json")).unwrap();
    let encoded = succeed("sh", ["-c", &format!("printf {SECRET} | base64")]);
    for text in [SECRET, encoded.trim_end_matches('=')] {
        assert!(!all.contains(text), "{all}");
    }
    assert_contains(&all, "carol");
}

/// Checks that the archive was made, the exit status is 2, and the reason is
/// reported everywhere.
#[track_caller]
fn assert_only_the_mail_failed(place: &Place, stack: &Stack, reason: &str) -> Ended {
    let began = Instant::now();
    let ended = place.run().expect_status(2);
    assert!(began.elapsed() < PATIENCE);
    let json = ended.json();
    assert_eq!(stack.outcome(&json)["status"], "ok");
    assert!(stack.outcome(&json)["archive"]["path"].is_string());
    assert_eq!(stack.states(), ["web:running"]);
    assert_eq!(json["channels"][0]["status"], "waiting");
    let error = json["channels"][0]["error"].as_str().unwrap();
    assert_contains(error, "cannot send mail through localhost:");
    assert_contains(error, reason);
    assert_contains(&fs::read_to_string(place.path("log")).unwrap(), reason);
    let report = output(&mut place.program(&["report"]))
        .expect_status(0)
        .stdout;
    assert!(report.starts_with("mail: "), "{report}");
    assert_contains(&report, " waiting since ");
    assert_contains(&report, "\nFAILURE: mail not reached; 1 stack backed up");
    assert_contains(&without_blanks(&report), &without_blanks(reason));
    ended
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_archive_is_made_even_if_the_mail_server_is_unreachable_or_hangs() {
    let place = Place::new();
    let stack = place.stack("web");
    stack.up();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let [hanging, closed] = [port(&hangs), port(&away)];
    drop(away);
    fs::write(place.path("password"), SECRET).unwrap();
    for (port, reason) in [(hanging, "no answer within 1 s"), (closed, "refused")] {
        let email = json!({
            "host": "localhost", "port": port, "timeout": 1, "user": "carol",
            "passwordFile": place.path("password"),
            "from": "backup@example.org", "to": ["carol@example.org"],
        });
        place.config(json!([stack.name]), json!({ "email": email }));
        let ended = assert_only_the_mail_failed(&place, &stack, reason);
        let secret = fs::read_to_string(place.path("password")).unwrap();
        assert!(!ended.stderr.contains(&secret));
    }
    // The control: without mail the run succeeds.
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
}
