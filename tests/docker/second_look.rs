//! Services that do not stay as they were after they were started again.

use std::fs;

use crate::common::{Ended, Place, Stack, output, wait_until};
use serde_json::{Value, json};

/// Writes a compose file of services that run a shell command. Each has a
/// directory of its own at `/m`, and `more` options.
fn write_services(stack: &Stack, services: &[(&str, &str, &str)]) {
    let mut text = "services:\n".to_owned();
    for (name, command, more) in services {
        let command = json!(["sh", "-c", command]);
        text += &format!(
            "  {name}:\n    image: docker-stack-backup/busybox:1\n    init: true\n    command: \
             {command}\n    volumes: ['./{name}:/m']\n    {more}\n"
        );
    }
    fs::write(stack.dir.join("compose.yaml"), text).unwrap();
}

/// A command that fails by `failure` at each start but its first.
fn after_the_first_start(failure: &str) -> String {
    format!("[ -e /m/again ] && {{ {failure}; }}; touch /m/again; exec sleep infinity")
}

fn recover(place: &Place) -> Ended {
    output(&mut place.program(&["recover", "--json"]))
}

#[track_caller]
fn assert_says(text: &Value, parts: &[&str]) {
    let text = text.to_string();
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn recover_does_not_forget_a_service_that_ends_soon_after_its_start() {
    let place = Place::new();
    let stack = place.stack("paused");
    let (fails, ends) = (
        after_the_first_start("sleep 0.3; exit 1"),
        after_the_first_start("sleep 0.9; exit 0"),
    );
    write_services(
        &stack,
        &[
            ("fails", &fails, ""),
            ("ends", &ends, ""),
            ("good", "exec sleep infinity", ""),
        ],
    );
    stack.up();
    place.config(json!([stack.name]), json!({}));
    let journalled = [format!("{}.json", stack.name)];
    // On a slow machine, the first look may see the end of one of them already, and the
    // other one still runs.
    let json = place.run().expect_status(3).json();
    let told = stack.outcome(&json)["failures"].to_string();
    let is_told = |told: &str, service: &str, status: &str| {
        let mut parts = told.split(';');
        parts.any(|part| part.contains(service) && part.contains(&format!("exit status {status}")))
    };
    assert!(
        is_told(&told, "fails-1 ", "1") || is_told(&told, "ends-1 ", "0"),
        "{told}"
    );
    assert_eq!(place.journalled(), journalled);
    // Status 0 makes a service no job that has come to its end.
    fs::remove_file(stack.dir.join("fails/again")).unwrap();
    let json = recover(&place).expect_status(3).json();
    let told = json["recovered"][0]["error"].to_string();
    assert!(is_told(&told, "ends-1 ", "0"), "{told}");
    assert!(!told.contains("fails-1 "), "{told}");
    assert_eq!(place.journalled(), journalled);
    // The control: once they stay up, the stack is forgotten.
    fs::remove_file(stack.dir.join("ends/again")).unwrap();
    let json = recover(&place).expect_status(0).json();
    assert_eq!(json["recovered"][0]["error"], Value::Null);
    assert_eq!(json["recovered"][0]["warnings"], json!([]));
    assert_eq!(stack.running().len(), 3);
    assert_eq!(place.journalled(), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_service_in_a_restart_loop_after_its_start_is_down_and_one_restart_is_a_warning() {
    let place = Place::new();
    let (looping, once) = (place.stack("paused"), place.stack("paused"));
    // Between two crashes it runs for a second.
    let command = after_the_first_start("sleep 1; exit 1");
    write_services(&looping, &[("app", &command, "restart: unless-stopped")]);
    let command = "echo >>/m/starts; [ $(wc -l </m/starts) = 3 ] && sleep 1 && exit 1; \
                   exec sleep infinity";
    write_services(&once, &[("app", command, "restart: unless-stopped")]);
    looping.up();
    once.up();
    // The control: without a crash, there is no warning.
    place.config(json!([once.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!(once.outcome(&json)["warnings"], json!([]));
    place.config(json!([looping.name, once.name]), json!({}));
    let json = place.run().expect_status(3).json();
    let outcome = looping.outcome(&json);
    assert_eq!(outcome["status"], "down");
    let told = "app-1 started, but keeps restarting";
    assert_says(&outcome["failures"], &[told]);
    assert_eq!(place.journalled(), [format!("{}.json", looping.name)]);
    let outcome = once.outcome(&json);
    assert_eq!(outcome["status"], "ok");
    let told = "its restart policy has started it again (1 time)";
    assert_says(&outcome["warnings"], &[told]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_was_unhealthy_or_only_created_is_so_again_and_health_is_timed_apart() {
    let place = Place::new();
    let stack = place.stack("paused");
    let idle = "exec sleep infinity";
    let slow = "rm -f /run/ready; sleep 2; touch /run/ready; exec sleep infinity";
    write_services(
        &stack,
        &[
            (
                "sick",
                idle,
                "healthcheck: {test: ['CMD', 'false'], interval: 300ms, retries: 1}",
            ),
            // Healthy soon by `start_interval` only.
            (
                "slow",
                slow,
                "healthcheck: {test: ['CMD', 'test', '-e', '/run/ready'], interval: 90s, \
                 start_period: 90s, start_interval: 250ms}",
            ),
            ("created", idle, "profiles: [never]"),
        ],
    );
    output(&mut stack.compose(&["up", "--detach"])).expect_status(0);
    output(&mut stack.compose(&["--profile", "never", "create", "created"])).expect_status(0);
    let health = |service| {
        let format = "{{.State.Health.Status}}";
        crate::common::docker(["inspect", "--format", format, &stack.container(service)])
    };
    wait_until("it is unhealthy", || health("sick") == "unhealthy");
    wait_until("it is healthy", || health("slow") == "healthy");
    let before = stack.states();
    assert_eq!(before, ["created:created", "sick:running", "slow:running"]);
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!(stack.states(), before);
    let outcome = stack.outcome(&json);
    let told = [
        "sick-1 is unhealthy",
        "sick-1 was unhealthy before the stop",
    ];
    assert_says(&outcome["warnings"], &told);
    let ms = |field: &str| outcome[field].as_u64().unwrap();
    let waited_ms = ms("healthyMs") - ms("downtimeMs");
    assert!((1000..20_000).contains(&waited_ms), "{waited_ms} ms");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_and_a_drill_fail_if_a_service_ends_soon_after_its_start() {
    let place = Place::new();
    let stack = place.stack("paused");
    // The archive lacks the file, so the restored service ends.
    let command = "[ -e /m/good ] || { sleep 1; exit 0; }; exec sleep infinity";
    write_services(&stack, &[("app", command, "")]);
    let good = stack.dir.join("app/good");
    fs::create_dir_all(stack.dir.join("app")).unwrap();
    fs::write(&good, "").unwrap();
    stack.up();
    place.config(
        json!([{"name": stack.name, "exclude": ["good"]}]),
        json!({}),
    );
    place.run().expect_status(0);
    let told = "app-1 started, but ended soon after with exit status 0";
    let restored = output(&mut place.program(&["restore", &stack.name, "--yes"])).expect_status(1);
    assert!(restored.stderr.contains(told), "{}", restored.stderr);
    // All is as it was.
    assert!(good.exists());
    assert_eq!(stack.running(), ["app:running"]);
    assert_eq!(place.journalled(), [""; 0]);
    let drilled = output(&mut place.program(&["drill", &stack.name])).expect_status(2);
    // On a slow machine, Compose may see it.
    let is_said = drilled.stdout.contains(told) || drilled.stdout.contains("exited (0)");
    assert!(is_said, "{}", drilled.stdout);
    // The control: with the file, both succeed.
    place.config(json!([stack.name]), json!({}));
    std::thread::sleep(std::time::Duration::from_secs(1));
    place.run().expect_status(0);
    output(&mut place.program(&["drill", &stack.name])).expect_status(0);
    output(&mut place.program(&["restore", &stack.name, "--yes"])).expect_status(0);
}
