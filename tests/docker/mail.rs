//! The report by mail, through a real Exim.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::smtp::SmtpServer;
use crate::common::{Ended, Place, Stack, output, succeed, wait_until};
use serde_json::{Value, json};

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

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn the_report_that_arrives_through_exim_has_everything_in_plain_ascii() {
    let server = SmtpServer::start();
    let place = Place::new();
    let (web, redis) = (place.stack("web"), place.stack("redis"));
    web.up();
    fs::write(web.dir.join("html/größe.html"), "x").unwrap();
    let old = format!("{}_20200101_000000.tar", web.name);
    fs::create_dir_all(place.store().join(&web.name)).unwrap();
    let path = place.store().join(&web.name).join(&old);
    succeed("tar", [Path::new("-cf"), &path, Path::new("/dev/null")]);
    let mut config = email(
        &server,
        json!({"to": ["admin@example.org", "Other <other@example.org>"]}),
    );
    config["retention"] = json!({"keepDays": 7});
    let stacks = json!([web.name, {"name": redis.name, "path": redis.dir}]);
    place.config(stacks, config);
    let json = place.run().expect_status(0).json();

    let mails = server.wait_for_messages(2);
    for to in ["admin@example.org", "other@example.org"] {
        let envelope = format!("Envelope-to: {to}");
        assert!(mails.iter().any(|mail| mail.contains(&envelope)), "{to}");
    }
    let (subject, body) = parse(&mails[0]);
    assert!(
        subject.starts_with("[TAG] SUCCESS: 2 stacks backed up, "),
        "{subject}"
    );
    assert!(mails[0].is_ascii());
    let widest = body.lines().map(str::len).max().unwrap();
    assert!(widest <= 72, "{widest}");
    let flat = without_blanks(&body);
    for stack in [&web, &redis] {
        let archive = &stack.outcome(&json)["archive"];
        let path = archive["path"].as_str().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let kib = archive["archiveBytes"].as_u64().unwrap() as f64 / 1024.0;
        assert_contains(&flat, &format!("{kib:.1}KiB{}/{name}", stack.name));
    }
    for expected in [
        "KiB  in total",
        "RETENTION: 1 archive removed",
        &old,
        "file system: ",
        " available",
        "NOT IN THE ARCHIVES",
    ] {
        assert_contains(&flat, &without_blanks(expected));
    }
    // The whole log, as the log file has it, but what was logged later.
    let log = fs::read_to_string(place.path("log")).unwrap();
    let (mailed, later) = log.split_at(log.find("backup ended").unwrap());
    assert!(mailed.lines().count() >= 10, "{log}");
    for line in mailed.lines() {
        assert_contains(&flat, &without_blanks(line));
    }
    assert_contains(later, "report mailed");
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_failure_goes_through_exim_with_its_reason_first_and_success_may_be_silent() {
    let server = SmtpServer::start();
    let place = Place::new();
    let (good, bad) = (place.stack("web"), place.stack("broken"));
    place.config(
        json!([good.name, bad.name]),
        email(&server, json!({"when": "failure"})),
    );
    place.run().expect_status(0);
    fs::rename(
        bad.dir.join("compose.broken.yaml"),
        bad.dir.join("compose.yaml"),
    )
    .unwrap();
    place.run().expect_status(2);
    let (subject, body) = only_mail(&server);
    let expected = format!(
        "[TAG] FAILURE: {} not backed up; 1 of 2 stacks backed up, ",
        bad.name
    );
    assert!(subject.starts_with(&expected), "{subject}");
    // Below the headline (two lines) and the line that says when and where.
    let first: Vec<&str> = body.lines().take(12).collect();
    assert!(first[..6].contains(&"FAILURES"), "{body}");
    let first = first.join("\n");
    assert_contains(&first, &format!("{}: plan: ", bad.name));
    assert_contains(&first, "yaml: line 2");
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_warning_goes_through_exim_though_only_failures_are_asked_for() {
    let server = SmtpServer::start();
    let place = Place::new();
    let web = place.stack("web");
    place.config(
        json!([web.name]),
        email(&server, json!({"when": "failure"})),
    );
    // The control: all is well, and nothing is mailed.
    place.run().expect_status(0);
    let archive = place.archive(&web.name);
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    output(&mut place.program(&["verify"])).expect_status(2);
    place.run().expect_status(0);
    let (subject, body) = only_mail(&server);
    assert!(
        subject.starts_with("[TAG] SUCCESS (1 warning): "),
        "{subject}"
    );
    assert_contains(&body, "verify found");
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_stack_that_is_down_is_in_the_subject_that_exim_gets() {
    let server = SmtpServer::start();
    let place = Place::new();
    let stack = place.stack("slow-health");
    stack.up();
    place.config(
        json!([{"name": stack.name, "startTimeout": 1}]),
        email(
            &server,
            json!({"encryption": "tls", "port": server.port_tls}),
        ),
    );
    place.run().expect_status(3);
    let (subject, body) = only_mail(&server);
    let expected = format!("[TAG] FAILURE: {} IS DOWN; ", stack.name);
    assert!(subject.starts_with(&expected), "{subject}");
    let hint = without_blanks("start it with `docker-stack-backup recover`");
    assert_contains(&without_blanks(&body), &hint);
    // And when it is up again, that is mailed, too.
    wait_until("the stack is healthy", || {
        output(&mut place.program(&["recover"])).status == 0
    });
    wait_until("the good news arrive", || {
        let mails = server.messages();
        let subjects: Vec<String> = mails.iter().map(|mail| parse(mail).0).collect();
        subjects.iter().any(|s| s.contains("(1 stack recovered)"))
    });
    // Nothing to recover is nothing to mail.
    let count = server.messages().len();
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(server.messages().len(), count);
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn recovering_from_a_killed_run_is_mailed_through_exim() {
    let server = SmtpServer::start();
    let place = Place::new();
    let stack = place.stack("web");
    stack.up();
    place.config(json!([stack.name]), email(&server, json!({})));
    let spy = place.spy("if [ \"$1\" = stop ]; then docker \"$@\"; kill -9 $PARENT; exit; fi");
    output(spy.watch(&mut place.program(&["run"]))).expect_status(-1);
    assert_eq!(stack.states(), ["web:exited"]);
    assert!(server.messages().is_empty());
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(stack.states(), ["web:running"]);
    let (subject, body) = only_mail(&server);
    let expected = "[TAG] INTERRUPTED (killed): ";
    assert!(subject.starts_with(expected), "{subject}");
    assert_contains(&body, "RECOVERED");
    assert_contains(&body, &format!("{}: web", stack.name));
}

const SECRET: &str = "xyzzy-secret-plugh";

/// I8: the password is in no output, log or state file; the user's name is.
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

/// The archive is there, the exit status 2, and the reason everywhere.
#[track_caller]
fn assert_only_the_mail_failed(place: &Place, stack: &Stack, reason: &str) -> Ended {
    let began = Instant::now();
    let ended = place.run().expect_status(2);
    assert!(began.elapsed() < Duration::from_secs(45));
    let json = ended.json();
    assert_eq!(stack.outcome(&json)["status"], "ok");
    assert!(stack.outcome(&json)["archive"]["path"].is_string());
    assert_eq!(stack.states(), ["web:running"]);
    let error = json["errors"][0].as_str().unwrap();
    assert_contains(
        error,
        "mail the report: cannot send mail through localhost:",
    );
    assert_contains(error, reason);
    assert_contains(&fs::read_to_string(place.path("log")).unwrap(), reason);
    let report = output(&mut place.program(&["report"]))
        .expect_status(0)
        .stdout;
    assert!(report.starts_with("FAILURE: 1 other error; 1 stack backed up"));
    assert_contains(&without_blanks(&report), &without_blanks(reason));
    ended
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_password_that_exim_refuses_costs_no_archive_and_is_not_shown() {
    let server = SmtpServer::start();
    let place = Place::new();
    let stack = place.stack("web");
    stack.up();
    let credentials = place.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("mail"), format!("{SECRET}\n")).unwrap();
    let settings = json!({"user": "carol", "passwordFile": null, "passwordCredential": "mail"});
    place.config(json!([stack.name]), email(&server, settings));
    // Without the directory.
    assert_only_the_mail_failed(&place, &stack, "CREDENTIALS_DIRECTORY");
    let with_credentials = |args: &[&str]| {
        let mut command = place.program(args);
        output(command.env("CREDENTIALS_DIRECTORY", &credentials))
    };
    let ended = with_credentials(&["run", "--json", "--verbose"]).expect_status(2);
    assert_eq!(stack.outcome(&ended.json())["status"], "ok");
    let error = ended.json()["errors"][0].to_string();
    assert_contains(&error, "carol");
    assert_secret_is_kept(&place, &ended);
    assert!(server.messages().is_empty());
    assert_eq!(place.stored(&stack.name).len(), 2);

    for args in [&["check", "--live"][..], &["report", "--mail-test"]] {
        let ended = with_credentials(args).expect_status(1);
        assert_contains(&(ended.stdout.clone() + &ended.stderr), "carol");
        assert_secret_is_kept(&place, &ended);
    }
    // The control: the right one.
    let settings = json!({"passwordFile": null, "passwordCredential": "mail"});
    place.config(json!([stack.name]), email(&server, settings));
    fs::write(credentials.join("mail"), &server.password).unwrap();
    with_credentials(&["run", "--json"]).expect_status(0);
    server.wait_for_messages(1);
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn settings_are_tried_with_exim_and_without_a_run() {
    let server = SmtpServer::start();
    let place = Place::new();
    let stack = place.stack("web");
    place.config(json!([stack.name]), email(&server, json!({})));
    let check = || output(&mut place.program(&["check", "--live"]));
    let text = check().expect_status(0).stdout;
    assert_contains(&text, "ok      email: localhost takes mail");
    assert_contains(&text, &format!("ok      stack {}: ", stack.name));
    assert_contains(&text, "will be created");
    assert!(server.messages().is_empty(), "no mail is sent for a check");
    let test = || output(&mut place.program(&["report", "--mail-test"]));
    test().expect_status(0);
    let (subject, body) = only_mail(&server);
    assert_eq!(subject, "[TAG] TEST: mail works");
    assert_contains(&body, "There was no run yet.");

    let settings = json!({"port": server.port_tls_expired, "encryption": "tls"});
    place.config(json!([stack.name]), email(&server, settings));
    let ended = check().expect_status(1);
    assert_contains(
        &ended.stdout,
        "FAILED  email: cannot use the mail server localhost:",
    );
    assert_contains(&ended.stdout, "ok      docker: ");
    assert_contains(&test().expect_status(1).stderr, "xpired");
    // Nobody asked for mail.
    place.config(json!([stack.name]), json!({}));
    assert_contains(&test().expect_status(1).stderr, "no `email` is configured");
    assert!(!check().expect_status(0).stdout.contains("email"));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_mail_server_that_is_away_or_hangs_costs_no_archive() {
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
    // The control: without mail all is well.
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn what_came_of_all_drills_is_mailed_through_exim() {
    let server = SmtpServer::start();
    let place = Place::new();
    let web = place.stack("web");
    web.up();
    place.config(json!([web.name]), json!({}));
    place.run().expect_status(0);
    let drill = |check: &str| {
        let stack = json!([{"name": web.name, "drillCheck": ["web", check]}]);
        place.config(stack, email(&server, json!({"when": "failure"})));
        output(&mut place.program(&["drill"]))
    };
    drill("true").expect_status(0);
    drill("false").expect_status(2);
    // The first is not mailed, since all was well.
    let (subject, body) = only_mail(&server);
    let expected = format!(
        "[TAG] DRILL FAILURE: {} not healthy; 0 of 1 stack came up healthy",
        web.name
    );
    assert_eq!(subject, expected);
    assert_contains(&body, &format!("{}: FAILED", web.name));
    assert_contains(&body, "the check command");
}
