//! What each kind of channel is sent.

use super::*;

fn send(kind: &str, run: &RunOutcome) -> Got {
    let place = Place::new();
    let server = serve(ok);
    let text = format!("{}?keep=1&status=x\nX-Extra: yes\n", url(&server));
    let channel = place.channel(kind, &text, &json!({"when": "always"}));
    let plan = place.plan(&json!([channel]));
    assert_sent(&tell(&plan, run));
    assert_eq!(place.queued(), Vec::<String>::new());
    let got = server.requests.recv().unwrap();
    got.assert_header("X-Extra: yes");
    assert!(server.requests.try_recv().is_err(), "it is sent once");
    got
}

#[test]
fn healthchecks_is_pinged_at_the_start_and_at_the_end_with_one_id() {
    let place = Place::new();
    let server = serve(ok);
    let channel = place.channel("healthchecks", &url(&server), &json!({}));
    let plan = place.plan(&json!([channel]));
    for (run, suffix) in [(good(), ""), (bad(), "/fail")] {
        begun(&plan, &run);
        assert_sent(&tell(&plan, &run));
        let start = server.requests.recv().unwrap();
        let end = server.requests.recv().unwrap();
        let id = run_id(&run);
        assert_eq!(start.line, format!("POST /{SECRET}/start?rid={id}"));
        assert_eq!(end.line, format!("POST /{SECRET}{suffix}?rid={id}"));
        // The whole report, with the log.
        assert!(end.body.contains("a line of the log"), "{}", end.body);
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
    }
    assert_ne!(run_id(&good()), run_id(&good()));
    // A run that was killed is a failure, too.
    let mut killed = good();
    killed.interrupted = Some("killed".to_owned());
    assert_sent(&tell(&plan, &killed));
    assert!(server.requests.recv().unwrap().line.contains("/fail?"));
}

#[test]
fn uptime_kuma_is_told_up_or_down_in_the_url() {
    let up = send("uptime-kuma", &good());
    assert!(
        up.line
            .starts_with(&format!("GET /{SECRET}?keep=1&status=up&msg=SUCCESS")),
        "{}",
        up.line
    );
    let down = send("uptime-kuma", &bad());
    assert!(
        down.line.starts_with(&format!(
            "GET /{SECRET}?keep=1&status=down&msg=FAILURE%20on%20nas%3A%20web%20not"
        )),
        "{}",
        down.line
    );
}

#[test]
fn ntfy_gets_a_title_a_priority_and_the_first_screen() {
    let got = send("ntfy", &bad());
    assert_eq!(got.line, format!("POST /{SECRET}?keep=1&status=x"));
    got.assert_header("Title: FAILURE on nas: web not backed up");
    got.assert_header("Priority: 4");
    assert_eq!(
        got.body,
        "FAILURES\n  web: plan: the disk is full\n\nTRY AGAIN, when the cause is gone\n  \
         docker-stack-backup run\n\nSTACKS\nweb: FAILED, -\n"
    );
    let down = send("ntfy", &run(&[("web", StackStatus::Down)]));
    down.assert_header("Priority: 5");
    send("ntfy", &good()).assert_header("Priority: 2");
}

#[test]
fn header_fields_beside_the_address_replace_those_of_the_program() {
    let place = Place::new();
    let server = serve(ok);
    let text = format!(
        "{}\nAuthorization: Bearer tk_1234567\nPriority: 1\n",
        url(&server)
    );
    let channel = place.channel("ntfy", &text, &json!({}));
    assert_sent(&tell(&place.plan(&json!([channel])), &bad()));
    let got = server.requests.recv().unwrap();
    got.assert_header("Authorization: Bearer tk_1234567");
    got.assert_header("Priority: 1");
    let priorities = got
        .headers
        .iter()
        .filter(|line| line.to_lowercase().starts_with("priority"));
    assert_eq!(priorities.count(), 1);
    // A user in the URL becomes a header field.
    let text = format!("http://me:s%40cret@127.0.0.1:{}/topic", server.port);
    let channel = place.channel("ntfy", &text, &json!({"when": "always"}));
    assert_sent(&tell(&place.plan(&json!([channel])), &bad()));
    let got = server.requests.recv().unwrap();
    assert_eq!(got.line, "POST /topic");
    got.assert_header("Authorization: Basic bWU6c0BjcmV0");
}

#[test]
fn gotify_gets_json_with_a_priority() {
    let got = send("gotify", &bad());
    got.assert_header("Content-Type: application/json");
    let json: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(json["title"], "FAILURE on nas: web not backed up");
    assert_eq!(json["priority"], 8);
    assert!(
        json["message"]
            .as_str()
            .unwrap()
            .contains("the disk is full")
    );
}

#[test]
fn a_webhook_gets_the_outcome_of_the_run() {
    let got = send("webhook", &bad());
    got.assert_header("Content-Type: application/json");
    let json: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(json["stacks"][0]["status"], "failed");
    assert_eq!(json["log"][0], "a line of the log");
    let back: RunOutcome = serde_json::from_value(json).unwrap();
    assert_eq!(back.host, "nas");
    // A log that is too long is left out.
    let mut long = bad();
    long.log = vec!["x".repeat(1000); 1000];
    let json: Value = serde_json::from_str(&send("webhook", &long).body).unwrap();
    assert_eq!(json["log"], json!([]));
    assert_eq!(json["stacks"][0]["status"], "failed");
}

#[test]
fn a_test_reaches_every_channel_and_changes_no_monitor_that_can_take_it_otherwise() {
    let place = Place::new();
    let server = serve(ok);
    let kinds = ["healthchecks", "uptime-kuma", "ntfy", "gotify", "webhook"];
    let channels: Vec<Value> = kinds
        .iter()
        .map(|kind| place.channel(kind, &url(&server), &json!({})))
        .collect();
    let plan = place.plan(&json!(channels));
    for (name, result) in test(&plan, Some(&bad())) {
        result.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    let lines: Vec<String> = server.requests.try_iter().map(|got| got.line).collect();
    assert_eq!(lines.len(), 5);
    // They are tried at the same time.
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(has(&format!("POST /{SECRET}/log")), "{lines:?}");
    assert!(has("status=down&msg=TEST"), "{lines:?}");
    assert_eq!(place.queued(), Vec::<String>::new());
}
