//! Messages that wait.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::*;

/// A server that is away until it is told otherwise.
fn switched() -> (Server, Arc<AtomicBool>) {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = is_up.clone();
    let server = serve(move |_| match up.load(Ordering::SeqCst) {
        true => answer("200 OK"),
        false => answer("503 Away"),
    });
    (server, is_up)
}

fn bodies(server: &Server) -> Vec<String> {
    server.requests.try_iter().map(|got| got.body).collect()
}

/// Changes a queued message as if it had waited.
fn age(place: &Place, name: &str, hours: i64, tries: u32) {
    let path = place.state_dir().join(format!("news/{name}.json"));
    let mut message: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let queued = OffsetTime::local(Timestamp::now() - SignedDuration::from_hours(hours));
    message["queued"] = json!(queued);
    message["tryCount"] = json!(tries);
    fs::write(&path, message.to_string()).unwrap();
}

#[test]
fn what_cannot_be_sent_waits_and_is_sent_in_its_order() {
    let place = Place::new();
    let (server, is_up) = switched();
    let channel = place.channel("ntfy", &url(&server), &json!({"when": "always"}));
    let plan = place.plan(&json!([channel]));
    let first = tell(&plan, &run(&[("one", StackStatus::Failed)]));
    assert_eq!(first[0].status, ChannelStatus::Waiting);
    tell(&plan, &run(&[("two", StackStatus::Failed)]));
    assert_eq!(place.queued(), ["0000000001-ntfy", "0000000002-ntfy"]);
    let files = fs::read_dir(place.state_dir().join("news")).unwrap();
    for file in files {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let lines = waiting(&plan).unwrap();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("ntfy: 2 messages waiting since "),
        "{}",
        lines[0]
    );
    assert!(
        lines[0].ends_with(": the server said 503 Service Unavailable: ok"),
        "{}",
        lines[0]
    );
    bodies(&server);
    is_up.store(true, Ordering::SeqCst);
    assert_sent(&send_queued(&plan));
    let sent = bodies(&server);
    assert!(
        sent[0].contains("one: FAILED") && sent[1].contains("two: FAILED"),
        "{sent:?}"
    );
    assert_eq!(sent.len(), 2);
    assert_eq!(place.queued(), Vec::<String>::new());
    // The control: nothing is left to send.
    assert_eq!(send_queued(&plan), []);
    assert_eq!(waiting(&plan).unwrap(), Vec::<String>::new());
}

#[test]
fn a_run_sends_what_waits_even_if_it_has_no_news() {
    let place = Place::new();
    let (server, is_up) = switched();
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    tell(&plan, &bad());
    is_up.store(true, Ordering::SeqCst);
    assert_sent(&tell(&plan, &bad()));
    assert_eq!(bodies(&server).len(), 2);
    assert_eq!(tell(&plan, &bad()), []);
}

#[test]
fn one_channel_that_is_away_keeps_no_other_from_being_told() {
    let place = Place::new();
    let (away, _) = switched();
    let server = serve(ok);
    let first = place.channel("ntfy", &url(&away), &json!({"name": "away"}));
    let second = place.channel("ntfy", &url(&server), &json!({"name": "here"}));
    let plan = place.plan(&json!([first, second]));
    let outcomes = tell(&plan, &bad());
    assert_eq!(outcomes[0].status, ChannelStatus::Waiting);
    assert_sent(&outcomes[1..]);
    assert_eq!(place.queued(), ["0000000001-away"]);
}

#[test]
fn a_message_that_is_refused_does_not_hold_up_the_next() {
    let place = Place::new();
    let server = serve(|number| match number {
        0 | 1 => answer("400 I do not like it"),
        _ => answer("200 OK"),
    });
    let channel = place.channel("ntfy", &url(&server), &json!({"when": "always"}));
    let plan = place.plan(&json!([channel]));
    tell(&plan, &run(&[("one", StackStatus::Failed)]));
    // The first one is refused once more, and the second is taken.
    let outcomes = tell(&plan, &run(&[("two", StackStatus::Failed)]));
    assert_eq!(outcomes[0].status, ChannelStatus::Waiting);
    assert!(outcomes[0].error.as_ref().unwrap().contains("400"));
    assert_eq!(place.queued(), ["0000000001-ntfy"]);
    let sent = bodies(&server);
    assert!(sent[2].contains("two: FAILED"), "{sent:?}");
}

#[test]
fn a_message_that_is_given_up_is_told_in_the_next() {
    let place = Place::new();
    let (server, is_up) = switched();
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    tell(&plan, &bad());
    // The control: neither age nor attempts alone are a reason.
    for (hours, tries) in [(6 * 24, 1), (3, 50)] {
        age(&place, "0000000001-ntfy", hours, tries);
        assert_eq!(send_queued(&plan)[0].status, ChannelStatus::Waiting);
    }
    age(&place, "0000000001-ntfy", 6 * 24, 5);
    let outcomes = send_queued(&plan);
    assert_eq!(outcomes[0].status, ChannelStatus::Lost);
    assert_eq!(place.queued(), Vec::<String>::new());
    bodies(&server);
    is_up.store(true, Ordering::SeqCst);
    // Nothing has changed since, and still it is told.
    assert_sent(&tell(&plan, &bad()));
    let sent = bodies(&server);
    assert!(sent[0].starts_with("LOST: 1 message of "), "{sent:?}");
    assert!(
        sent[0].contains("not delivered: cannot reach http://"),
        "{sent:?}"
    );
    assert_eq!(tell(&plan, &bad()), []);
}

#[test]
fn the_queue_is_bounded_and_what_is_pushed_out_is_counted() {
    let place = Place::new();
    let (server, _) = switched();
    let channel = place.channel("ntfy", &url(&server), &json!({"when": "always"}));
    let plan = place.plan(&json!([channel]));
    for _ in 0..32 {
        prepare(&plan, &News::Run(&bad()));
    }
    let queued = place.queued();
    assert_eq!(queued.len(), 30);
    assert_eq!(queued[0], "0000000003-ntfy");
    let mut long = bad();
    long.errors = vec!["x".repeat(1_000_000)];
    let hook = place.channel("webhook", &url(&server), &json!({}));
    prepare(&place.plan(&json!([hook])), &News::Run(&long));
    let path = place.state_dir().join("news/0000000033-webhook.json");
    assert!(fs::metadata(path).unwrap().len() < 700_000);
    // Two were pushed out. The next messages tell of them.
    let lost = |name: &str| {
        let path = place.state_dir().join(format!("news/{name}.json"));
        let message: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        message["lost"]["count"].clone()
    };
    assert_eq!(lost("0000000031-ntfy"), Value::Null);
    assert_eq!(lost("0000000032-ntfy"), 1);
    let told = fs::read_to_string(place.state_dir().join("news.json")).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["channels"]["ntfy"]["lost"]["count"], 1);
}

#[test]
fn of_heartbeats_the_last_one_waits_and_a_good_one_becomes_stale() {
    let place = Place::new();
    let (server, is_up) = switched();
    let channel = place.channel("healthchecks", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    tell(&plan, &good());
    tell(&plan, &bad());
    assert_eq!(place.queued(), ["0000000002-healthchecks"]);
    is_up.store(true, Ordering::SeqCst);
    age(&place, "0000000002-healthchecks", 24, 1);
    server.requests.try_iter().count();
    assert_sent(&send_queued(&plan));
    let lines: Vec<String> = server.requests.try_iter().map(|got| got.line).collect();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("/fail?rid="), "{lines:?}");
    // A day later, nobody knows whether all is well.
    is_up.store(false, Ordering::SeqCst);
    tell(&plan, &good());
    age(&place, "0000000001-healthchecks", 24, 1);
    is_up.store(true, Ordering::SeqCst);
    server.requests.try_iter().count();
    assert_eq!(send_queued(&plan), []);
    assert_eq!(server.requests.try_iter().count(), 0);
    assert_eq!(place.queued(), Vec::<String>::new());
}

#[test]
fn a_state_directory_that_cannot_be_written_keeps_no_message_from_being_sent() {
    let place = Place::new();
    let server = serve(ok);
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    // A file in the place of the directory stops root, too.
    fs::write(place.state_dir().join("news"), "").unwrap();
    assert_sent(&tell(&plan, &bad()));
    assert_eq!(bodies(&server).len(), 1);
    let (away, _) = switched();
    let channel = place.channel("ntfy", &url(&away), &json!({"when": "always"}));
    let outcomes = tell(&place.plan(&json!([channel])), &bad());
    assert_eq!(outcomes[0].status, ChannelStatus::Lost);
    let error = outcomes[0].error.as_ref().unwrap();
    assert!(
        error.contains("503") && error.contains("; and it cannot be kept: "),
        "{error}"
    );
}

#[test]
fn channels_that_are_not_configured_any_more_are_left_alone() {
    let place = Place::new();
    let (server, _) = switched();
    let channel = place.channel("ntfy", &url(&server), &json!({}));
    tell(&place.plan(&json!([channel])), &bad());
    fs::write(place.state_dir().join("news/0000000009-x.json"), "\0").unwrap();
    let other = serve(ok);
    let channel = place.channel("gotify", &url(&other), &json!({}));
    let plan = place.plan(&json!([channel]));
    assert_sent(&tell(&plan, &bad()));
    assert_eq!(place.queued(), ["0000000001-ntfy", "0000000009-x"]);
}

/// A mail server that refuses one recipient for now, on its first connection. Returns its
/// port and the commands that it gets.
fn greylisting(later: &'static str) -> (u16, Receiver<String>) {
    let server = serve_streams(move |number, mut stream, sender| {
        let _ = stream.write_all(b"220 ready\r\n");
        let mut in_body = false;
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let Ok(line) = line else { return };
            if in_body && line != "." {
                continue;
            }
            in_body = line == "DATA";
            let answer = match line.as_str() {
                "DATA" => "354 go on\r\n",
                line if number == 0 && line.contains(later) => "451 greylisted\r\n",
                _ => "250 ok\r\n",
            };
            let got = Got {
                line,
                headers: Vec::new(),
                body: String::new(),
            };
            let _ = sender.send(got);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let (sender, lines) = mpsc::channel();
    let requests = server.requests;
    thread::spawn(move || {
        for got in requests {
            let _ = sender.send(got.line);
        }
    });
    (server.port, lines)
}

#[test]
fn a_mail_that_one_recipient_has_not_got_waits_for_that_one_alone() {
    let place = Place::new();
    let (port, lines) = greylisting("late@example.org");
    let plan = place.plan_with(json!({ "email": {
        "host": "127.0.0.1", "port": port, "encryption": "none", "timeout": 20,
        "from": "backup@example.org", "to": ["now@example.org", "late@example.org"],
    }}));
    let outcomes = tell(&plan, &bad());
    assert_eq!(outcomes[0].status, ChannelStatus::Waiting);
    let error = outcomes[0].error.as_ref().unwrap();
    assert!(
        error.contains("451 greylisted; the other recipients got the mail"),
        "{error}"
    );
    assert_eq!(place.queued(), ["0000000001-mail"]);
    assert_sent(&send_queued(&plan));
    let recipients: Vec<String> = (0..2)
        .flat_map(|_| {
            lines
                .iter()
                .take_while(|line| line != "QUIT")
                .collect::<Vec<_>>()
        })
        .filter(|line| line.starts_with("RCPT"))
        .collect();
    assert_eq!(
        recipients,
        [
            "RCPT TO:<now@example.org>",
            "RCPT TO:<late@example.org>",
            "RCPT TO:<late@example.org>",
        ]
    );
    assert_eq!(place.queued(), Vec::<String>::new());
}

#[test]
fn a_channel_that_never_ends_is_left_running() {
    let (_sender, receiver) = mpsc::channel::<()>();
    let begun = Instant::now();
    let thread = ChannelThread {
        channel: "ntfy".to_owned(),
        answer: Ok(receiver),
    };
    let (channel, answer) = thread.receive(begun + Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(channel, "ntfy");
    assert_eq!(answer.unwrap_err().to_string(), "it was not done in time");
}
