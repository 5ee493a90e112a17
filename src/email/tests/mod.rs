mod addresses;
mod exim;
mod faults;
#[path = "../../../tests/common/smtp.rs"]
mod server;
mod tls;

use std::fs;
use std::path::PathBuf;

use super::*;

/// Returns settings without log-in and encryption, for one recipient.
fn config(host: &str, port: u16) -> Email {
    Email {
        host: host.to_owned(),
        port: Some(port),
        encryption: Encryption::None,
        user: None,
        password_file: None,
        password_credential: None,
        ca_file: None,
        from: "Backup <backup@example.org>".to_owned(),
        to: vec!["admin@example.org".to_owned()],
        subject_tag: "docker-backup".to_owned(),
        when: crate::config::When::Always,
        remind_days: 3,
        log: crate::config::MailLog::Failure,
        html: false,
        timeout: 10,
    }
}

fn saying(subject: &str, text: &str) -> MailContent {
    MailContent {
        subject: subject.to_owned(),
        text: text.to_owned(),
        html: None,
    }
}

fn error_of<E: std::fmt::Display>(result: Result<(), E>) -> String {
    match result {
        Ok(()) => panic!("this must fail"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    type Change = fn(&mut Email);
    let table: [(Change, &str); 15] = [
        (|c| c.host.clear(), "email.host is empty"),
        (|c| c.timeout = 0, "email.timeout is zero"),
        (|c| c.to.clear(), "email.to names no recipient"),
        (
            |c| c.to.push("x".to_owned()),
            "email.to: not a mail address: \"x\"",
        ),
        (
            |c| c.from = "a@b@c".to_owned(),
            "email.from: not a mail address: \"a@b@c\"",
        ),
        (
            |c| c.from = "a@example.org\r\nBcc: b@example.org".to_owned(),
            "email.from: not a mail address",
        ),
        (
            |c| c.user = Some("u".to_owned()),
            "email.user needs email.passwordFile or email.passwordCredential",
        ),
        (
            |c| c.password_file = Some("/p".into()),
            "email.passwordFile needs email.user",
        ),
        (
            |c| c.password_credential = Some("p".to_owned()),
            "email.passwordCredential needs email.user",
        ),
        (
            |c| {
                c.user = Some("u".to_owned());
                c.password_credential = Some("../p".to_owned());
            },
            "a credential's name, not a path",
        ),
        (
            |c| {
                c.user = Some("u".to_owned());
                c.password_file = Some("/p".into());
            },
            "would send the password in the clear to mail.example.org",
        ),
        (
            |c| {
                c.user = Some("u".to_owned());
                c.password_file = Some("/p".into());
                c.host = "localhost.example.org".to_owned();
            },
            "in the clear",
        ),
        (
            |c| {
                c.user = Some("u".to_owned());
                c.password_file = Some("p".into());
            },
            "email.passwordFile: must be an absolute path",
        ),
        (
            |c| c.ca_file = Some("ca.pem".into()),
            "email.caFile: must be an absolute path",
        ),
        (
            |c| {
                c.port = Some(465);
                c.encryption = Encryption::Starttls;
            },
            "add \"encryption\": \"tls\"",
        ),
    ];
    for (change, expected) in table {
        let mut config = config("mail.example.org", 25);
        change(&mut config);
        let error = error_of(validate(&config));
        assert!(error.contains(expected), "{error}\n{expected}");
    }
    validate(&config("mail.example.org", 25)).unwrap();
    validate(&Email {
        encryption: Encryption::Tls,
        ..config("mail.example.org", 465)
    })
    .unwrap();
}

#[test]
fn a_password_in_the_clear_is_accepted_on_this_host() {
    for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
        let mut config = config(host, 25);
        config.user = Some("u".to_owned());
        config.password_file = Some("/p".into());
        validate(&config).unwrap();
    }
}

#[test]
fn the_default_port_follows_the_encryption() {
    let mut config = config("localhost", 25);
    config.port = None;
    for (encryption, expected) in [
        (Encryption::None, 25),
        (Encryption::Starttls, 587),
        (Encryption::Tls, 465),
    ] {
        config.encryption = encryption;
        assert_eq!(port(&config), expected);
    }
}

#[test]
fn the_mail_is_plain_text_and_marked_as_made_by_a_program() {
    let mut config = config("localhost", 25);
    config.to.push("Other <other@example.org>".to_owned());
    let to: Vec<_> = config
        .to
        .iter()
        .map(|to| (to.clone(), mailbox(to).unwrap()))
        .collect();
    let from = mailbox(&config.from).unwrap();
    let envelope = message::Envelope::new(&from, &to, false).unwrap();
    let mut content = saying("[x] one\r\nBcc: two", "line\n.\nline\n");
    let mail = message::format(&envelope, &content).unwrap();
    let mail = String::from_utf8(mail).unwrap();
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head.split("\r\n").collect();
    for line in [
        "From: Backup <backup@example.org>",
        "To: admin@example.org, Other <other@example.org>",
        "Subject: [x] one  Bcc: two",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
        "Auto-Submitted: auto-generated",
    ] {
        assert!(head.contains(&line), "{line}\n{head:#?}");
    }
    for name in ["Date: ", "Message-ID: <"] {
        assert!(head.iter().any(|line| line.starts_with(name)), "{head:#?}");
    }
    assert_eq!(body, "line\r\n.\r\nline\r\n");

    // With HTML there are two parts, and the text is as before.
    content.html = Some("<p>line</p>\n".to_owned());
    let mail = message::format(&envelope, &content).unwrap();
    let mail = String::from_utf8(mail).unwrap();
    let (head, parts) = mail.split_once("\r\n\r\n").unwrap();
    let (_, boundary) = head.split_once("boundary=\"").unwrap();
    let boundary = format!("--{}", boundary.split_once('"').unwrap().0);
    assert!(
        head.contains("Content-Type: multipart/alternative;"),
        "{head}"
    );
    let parts: Vec<&str> = parts.split(&boundary).collect();
    let [_, plain, html, end] = parts[..] else {
        panic!("{parts:#?}");
    };
    assert!(
        plain.contains("Content-Type: text/plain; charset=us-ascii\r\n"),
        "{plain}"
    );
    assert!(
        plain.ends_with("\r\n\r\nline\r\n.\r\nline\r\n\r\n"),
        "{plain}"
    );
    assert!(
        html.contains("Content-Type: text/html; charset=utf-8\r\n"),
        "{html}"
    );
    assert!(html.ends_with("\r\n\r\n<p>line</p>\r\n\r\n"), "{html}");
    assert_eq!(end, "--\r\n");
}

fn with_password_file(content: Option<&str>) -> (tempfile::TempDir, Email) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    if let Some(content) = content {
        fs::write(&path, content).unwrap();
    }
    let mut config = config("localhost", 25);
    config.user = Some("u".to_owned());
    config.password_file = Some(path);
    (dir, config)
}

#[test]
fn one_trailing_newline_is_not_part_of_the_password() {
    for (content, password) in [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\n", "secret"),
        (" se cret \n", " se cret "),
        ("secret\n\n", "secret\n"),
    ] {
        let (_dir, config) = with_password_file(Some(content));
        let secret = Secret::load(&config, "u", None).unwrap();
        assert_eq!(secret.redact(password), "***", "{content:?}");
    }
}

#[test]
fn a_missing_or_empty_password_is_an_error() {
    for (content, expected) in [
        (None, "No such file"),
        (Some(""), "empty"),
        (Some("\n"), "empty"),
    ] {
        let (_dir, config) = with_password_file(content);
        let error = error_of(send_with(&config, None, saying("s", "b")));
        assert!(
            error.contains("cannot read the mail password from /"),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_credential_is_read_from_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mail"), "secret\n").unwrap();
    let mut config = config("localhost", 25);
    config.user = Some("u".to_owned());
    config.password_credential = Some("mail".to_owned());
    assert!(Secret::load(&config, "u", Some(dir.path())).is_ok());

    let error = error_of(send_with(&config, None, saying("s", "b")));
    assert!(
        error.contains("CREDENTIALS_DIRECTORY is not set"),
        "{error}"
    );
    assert!(error.contains("LoadCredential=mail:"), "{error}");
}

#[test]
fn a_unit_uses_the_credential_and_a_shell_the_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mail"), "from systemd").unwrap();
    let (_dir, mut config) = with_password_file(Some("from the file"));
    config.password_credential = Some("mail".to_owned());
    validate(&config).unwrap();
    for (credentials_dir, password) in [(Some(dir.path()), "from systemd"), (None, "from the file")]
    {
        let secret = Secret::load(&config, "u", credentials_dir).unwrap();
        assert_eq!(secret.redact(password), "***", "{password}");
    }
}

#[test]
fn the_password_is_removed_from_answers_of_the_server() {
    let (_dir, config) = with_password_file(Some("s3cret\n"));
    let secret = Secret::load(&config, "u", None).unwrap();
    // "\0u\0s3cret" and "s3cret" in base64, as AUTH sends them.
    let said = "bad line: AUTH PLAIN AHUAczNjcmV0; or: czNjcmV0; or: s3cret!";
    assert_eq!(
        secret.redact(said),
        "bad line: AUTH PLAIN ***; or: ***; or: ***!"
    );
}

#[test]
fn a_ca_file_without_a_certificate_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("ca.pem");
    let mut config = config("localhost", 25);
    config.encryption = Encryption::Tls;
    config.ca_file = Some(path.clone());
    let error = error_of(try_login(&config));
    assert!(error.contains("cannot read caFile /"), "{error}");
    assert!(error.contains("No such file"), "{error}");
    fs::write(&path, "nothing\n").unwrap();
    let error = error_of(try_login(&config));
    assert!(error.contains("no PEM certificate in it"), "{error}");
}
