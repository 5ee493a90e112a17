//! The report by mail, through a real Exim.

use super::*;
use crate::common::archive_stem;

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn the_mailed_report_is_complete_and_in_ascii() {
    let server = SmtpServer::start();
    let place = Place::new();
    let (web, redis) = (place.stack("web"), place.stack("redis"));
    web.up();
    fs::write(web.dir.join("html/größe.html"), "x").unwrap();
    let old = format!("{}.tar", archive_stem(&web.name, 30));
    fs::create_dir_all(place.store().join(&web.name)).unwrap();
    let path = place.store().join(&web.name).join(&old);
    succeed("tar", [Path::new("-cf"), &path, Path::new("/dev/null")]);
    let mut config = email(
        &server,
        json!({"to": ["admin@example.org", "Other <other@example.org>"], "log": "always"}),
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
    assert_subject(&subject, "SUCCESS", "2 stacks backed up, ");
    assert!(mails[0].is_ascii());
    let widest = body.lines().map(str::len).max().unwrap();
    assert!(widest <= 72, "{widest}");
    let (first, _) = body.split_once("\nARCHIVES").unwrap();
    let widest = first.lines().map(str::len).max().unwrap();
    assert!(widest <= 40, "{first}");
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
    // The mail has the whole log except for lines logged after it was sent.
    let log = fs::read_to_string(place.path("log")).unwrap();
    let (mailed, later) = log.split_at(log.find("backup ended").unwrap());
    assert!(mailed.lines().count() >= 10, "{log}");
    for line in mailed.lines() {
        assert_contains(&flat, &without_blanks(line));
    }
    assert_contains(later, "news sent");
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_failure_is_mailed_with_its_reason_first_and_success_can_be_silent() {
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
    let expected = format!("{} not backed up; 1 of 2 stacks backed up, ", bad.name);
    assert_subject(&subject, "FAILURE", &expected);
    // Below the headline and the lines that say when and where.
    let first: Vec<&str> = body.lines().take(30).collect();
    assert!(first[..10].contains(&"FAILURES"), "{body}");
    assert_contains(&body, "\nLOG\n");
    // Lines are wrapped wherever a path makes them too long.
    let first = first.join(" ");
    let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_contains(&first, &format!("{}: plan: ", bad.name));
    assert_contains(&first, "yaml: line 2");
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_warning_is_mailed_when_only_failures_are_requested() {
    let server = SmtpServer::start();
    let place = Place::new();
    let web = place.stack("web");
    place.config(
        json!([web.name]),
        email(&server, json!({"when": "failure"})),
    );
    // The control: a successful run mails nothing.
    place.run().expect_status(0);
    let archive = place.archive(&web.name);
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    output(&mut place.program(&["verify"])).expect_status(2);
    place.run().expect_status(0);
    let (subject, body) = only_mail(&server);
    assert_subject(&subject, "SUCCESS (1 warning)", "");
    assert!(!body.contains("\nLOG\n"), "{body}");
    assert_contains(&body, "verify found");
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_stack_left_down_is_named_in_the_subject() {
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
    assert_subject(&subject, "FAILURE", &format!("{} IS DOWN; ", stack.name));
    let hint = without_blanks("start it with `docker-stack-backup recover`");
    assert_contains(&without_blanks(&body), &hint);
    // The recovery is mailed, too.
    wait_until("the stack is healthy", || {
        output(&mut place.program(&["recover"])).status == 0
    });
    wait_until("the recovery is mailed", || {
        let mails = server.messages();
        let subjects: Vec<String> = mails.iter().map(|mail| parse(mail).0).collect();
        subjects
            .iter()
            .any(|s| s.contains("(1 stack recovered) on "))
    });
    // `recover` sends no mail if there is nothing to recover.
    let count = server.messages().len();
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(server.messages().len(), count);
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn recovery_from_a_killed_run_is_mailed() {
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
    assert_subject(&subject, "INTERRUPTED (killed)", "");
    assert_contains(&body, "RECOVERED");
    assert_contains(&body, &format!("{}: web", stack.name));
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn a_rejected_mail_password_is_not_shown_and_the_archive_is_made() {
    let server = SmtpServer::start();
    let place = Place::new();
    let stack = place.stack("web");
    stack.up();
    let credentials = place.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("mail"), format!("{SECRET}\n")).unwrap();
    let settings = json!({"user": "carol", "passwordFile": null, "passwordCredential": "mail"});
    place.config(json!([stack.name]), email(&server, settings));
    // CREDENTIALS_DIRECTORY is not set.
    assert_only_the_mail_failed(&place, &stack, "CREDENTIALS_DIRECTORY");
    let with_credentials = |args: &[&str]| {
        let mut command = place.program(args);
        output(command.env("CREDENTIALS_DIRECTORY", &credentials))
    };
    let ended = with_credentials(&["run", "--json", "--verbose"]).expect_status(2);
    assert_eq!(stack.outcome(&ended.json())["status"], "ok");
    let error = ended.json()["channels"][0]["error"].to_string();
    assert_contains(&error, "carol");
    assert_secret_is_kept(&place, &ended);
    assert!(server.messages().is_empty());
    assert_eq!(place.stored(&stack.name).len(), 2);

    for args in [&["check", "--live"][..], &["report", "--test"]] {
        let ended = with_credentials(args).expect_status(1);
        assert_contains(&(ended.stdout.clone() + &ended.stderr), "carol");
        assert_secret_is_kept(&place, &ended);
    }
    // The control: the right password.
    let settings = json!({"passwordFile": null, "passwordCredential": "mail"});
    place.config(json!([stack.name]), email(&server, settings));
    fs::write(credentials.join("mail"), &server.password).unwrap();
    with_credentials(&["run", "--json"]).expect_status(0);
    // What could not be sent before comes, too.
    server.wait_for_messages(3);
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn mail_settings_are_checked_without_a_run() {
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
    let test = || output(&mut place.program(&["report", "--test"]));
    test().expect_status(0);
    let (subject, body) = only_mail(&server);
    assert_subject(&subject, "TEST", "this channel works");
    assert_contains(&body, "There was no run yet.");

    let settings = json!({"port": server.port_tls_expired, "encryption": "tls"});
    place.config(json!([stack.name]), email(&server, settings));
    let ended = check().expect_status(1);
    assert_contains(
        &ended.stdout,
        "FAILED  email: cannot use the mail server localhost:",
    );
    assert_contains(&ended.stdout, "ok      docker: ");
    assert_contains(&test().expect_status(1).stdout, "xpired");
    // Mail is not configured.
    place.config(json!([stack.name]), json!({}));
    assert_contains(
        &test().expect_status(1).stderr,
        "neither `email` nor `notify` is configured",
    );
    assert!(!check().expect_status(0).stdout.contains("email"));
}

#[test]
#[ignore = "needs exim4 and a Docker Engine; run scripts/test"]
fn the_results_of_all_drills_are_mailed() {
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
    // The first drill is not mailed, because it succeeded.
    let (subject, body) = only_mail(&server);
    let expected = format!("{} not healthy; 0 of 1 stack came up healthy", web.name);
    assert_subject(&subject, "DRILL FAILURE", &expected);
    assert_contains(&body, &format!("{}: FAILED", web.name));
    assert_contains(&body, "the check command");
}
