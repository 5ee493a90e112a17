//! Delivery to a real server, Exim.

use super::server::SmtpServer;
use super::*;

fn config_for(server: &SmtpServer, encryption: Encryption) -> Email {
    let port = match encryption {
        Encryption::Tls => server.port_tls,
        Encryption::Starttls | Encryption::None => server.port_starttls,
    };
    Email {
        encryption,
        user: Some(server.user.clone()),
        password_file: Some(server.password_file()),
        ca_file: Some(server.ca_file.clone()),
        ..config("localhost", port)
    }
}

fn try_send(config: &Email) -> Result<(), Undelivered> {
    let content = saying("[docker-backup] SUCCESS", "one\n.two\n\nthree\n");
    send_with(config, None, content)
}

#[test]
#[ignore = "needs exim4; run scripts/test"]
fn a_report_arrives_over_starttls_and_tls() {
    for encryption in [Encryption::Starttls, Encryption::Tls] {
        let server = SmtpServer::start();
        let mut config = config_for(&server, encryption);
        config.to.push("Other <other@example.org>".to_owned());
        try_send(&config).unwrap();
        let mails = server.wait_for_messages(2);
        for to in ["admin@example.org", "other@example.org"] {
            let envelope = format!("Envelope-to: {to}\n");
            let mail = mails.iter().find(|mail| mail.contains(&envelope)).unwrap();
            assert!(
                mail.contains("\nSubject: [docker-backup] SUCCESS\n"),
                "{mail}"
            );
            assert!(
                mail.contains("\nAuto-Submitted: auto-generated\n"),
                "{mail}"
            );
            assert!(mail.ends_with("\n\none\n.two\n\nthree\n"), "{mail}");
            // ESMTPSA means with TLS and log-in.
            assert!(mail.contains("with esmtpsa"), "{mail}");
        }
        assert_eq!(mails.len(), 2);
    }
}

#[test]
#[ignore = "needs exim4; run scripts/test"]
fn a_report_arrives_without_encryption_and_log_in() {
    let server = SmtpServer::start();
    let mut config = config("localhost", server.port_starttls);
    config.to = vec!["admin@open.example.org".to_owned()];
    try_send(&config).unwrap();
    let mails = server.wait_for_messages(1);
    assert!(mails[0].contains("with esmtp "), "{}", mails[0]);
}

#[test]
#[ignore = "needs exim4; run scripts/test"]
fn a_wrong_password_is_reported_but_not_shown() {
    let server = SmtpServer::start();
    let config = config_for(&server, Encryption::Starttls);
    fs::write(config.password_file.as_ref().unwrap(), "wr0ng-password\n").unwrap();
    let error = error_of(try_send(&config));
    let port = server.port_starttls;
    let expected = format!(
        "cannot send mail through localhost:{port}: cannot log in: user \"backup\" or the password is wrong: \
         the server said 535 "
    );
    assert!(error.starts_with(&expected), "{error}");
    assert!(!error.contains("wr0ng"), "{error}");
    assert_eq!(server.messages(), Vec::<String>::new());
}

#[test]
#[ignore = "needs exim4; run scripts/test"]
fn a_certificate_that_cannot_be_trusted_is_refused() {
    let server = SmtpServer::start();
    for encryption in [Encryption::Starttls, Encryption::Tls] {
        let config = config_for(&server, encryption);

        let unknown = Email {
            ca_file: None,
            ..config.clone()
        };
        let error = error_of(try_send(&unknown));
        assert!(
            error.contains("is not trusted; name the file with it, or with its CA, in caFile"),
            "{error}"
        );

        let other_name = Email {
            host: "127.0.0.1".to_owned(),
            ..config.clone()
        };
        let error = error_of(try_send(&other_name));
        assert!(
            error.contains("is for another name; use a name in it"),
            "{error}"
        );
    }
    let config = config_for(&server, Encryption::Tls);
    let expired = Email {
        port: Some(server.port_tls_expired),
        ..config
    };
    let error = error_of(try_send(&expired));
    assert!(error.contains("certificate has expired"), "{error}");
    assert_eq!(server.messages(), Vec::<String>::new());
}

#[test]
#[ignore = "needs exim4; run scripts/test"]
fn a_refused_recipient_does_not_stop_the_others() {
    let server = SmtpServer::start();
    let mut config = config_for(&server, Encryption::Starttls);
    config.to.push("nobody@example.net".to_owned());
    let error = error_of(try_send(&config));
    assert!(
        error.ends_with(
            "cannot add the recipient nobody@example.net: the server said 550 no such mailbox here; \
             the other recipients got the mail"
        ),
        "{error}"
    );
    let mails = server.wait_for_messages(1);
    assert!(
        mails[0].contains("Envelope-to: admin@example.org\n"),
        "{}",
        mails[0]
    );
}

#[test]
#[ignore = "needs exim4; run scripts/test"]
fn the_wrong_encryption_for_a_port_is_explained() {
    let server = SmtpServer::start();
    let mut tls_on_plain = config_for(&server, Encryption::Tls);
    tls_on_plain.port = Some(server.port_starttls);
    tls_on_plain.timeout = 3;
    let error = error_of(try_send(&tls_on_plain));
    assert!(error.contains("email.encryption \"starttls\""), "{error}");

    let mut plain_on_tls = config_for(&server, Encryption::Starttls);
    plain_on_tls.port = Some(server.port_tls);
    plain_on_tls.timeout = 2;
    let error = error_of(try_send(&plain_on_tls));
    assert!(error.contains("email.encryption \"tls\""), "{error}");
}
