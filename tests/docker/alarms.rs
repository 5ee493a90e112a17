//! What is told although nothing failed: small archives, old ones, and projects that
//! nobody backs up.

use std::fs;

use crate::common::{Place, output, wait_until};
use serde_json::{Value, json};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn small_and_old_archives_and_projects_without_a_stack_are_told_everywhere() {
    let place = Place::new();
    let (stack, other) = (place.stack("web"), place.stack("web"));
    stack.up();
    other.up();
    fs::write(stack.dir.join("data"), vec![7; 1 << 20]).unwrap();
    let configure = |ignored: &str, fail: bool| {
        place.config(
            json!([{"name": stack.name, "maxAge": "1h"}]),
            json!({
                // Other tests have projects on this Engine.
                "ignoreProjects": [ignored, "dsbtest-[!w]*", "case*"],
                "failOnWarning": fail,
                "metricsFile": place.path("backup.prom"),
            }),
        )
    };
    configure("nothing", false);
    let projects = |json: &Value| -> Vec<String> {
        let found = json["unconfigured"].as_array().unwrap().iter();
        let names = found.map(|found| found["project"].as_str().unwrap().to_owned());
        names.collect()
    };
    let status = |args: &[&str]| output(&mut place.program(&[&["status"], args].concat()));

    let run = place.run().expect_status(0).json();
    assert!(projects(&run).contains(&other.project), "{run:#}");
    assert!(!projects(&run).contains(&stack.project), "{run:#}");
    assert_eq!(stack.outcome(&run)["warnings"], json!([]));
    let warning = format!("{}: it runs (from {})", other.project, other.dir.display());
    for text in [
        output(&mut place.program(&["report"]))
            .stdout
            .replace("\n    ", " "),
        status(&[]).expect_status(0).stdout,
        output(&mut place.program(&["check", "--live"])).stdout,
    ] {
        assert!(text.contains(&warning), "{warning} is not in:\n{text}");
    }
    let metrics = || fs::read_to_string(place.path("backup.prom")).unwrap();
    let metric = format!("project_not_backed_up{{project=\"{}\"}} 1", other.project);
    assert!(metrics().contains(&metric), "{}", metrics());

    // The control: it is ignored, and a run of one stack does not look for others.
    configure("*", false);
    assert_eq!(projects(&status(&["--json"]).json()), [""; 0]);
    fs::remove_file(stack.dir.join("data")).unwrap();
    let run = place.run().expect_status(0).json();
    assert_eq!(projects(&run), [""; 0]);
    let warnings = stack.outcome(&run)["warnings"].to_string();
    assert!(warnings.contains("(`sizeDrop` is 50)"), "{warnings}");
    let text = status(&[]).expect_status(0).stdout;
    assert!(text.contains("(`sizeDrop` is 50)"), "{text}");
    assert!(!text.contains("`maxAge`"), "{text}");

    configure("*", true);
    status(&[]).expect_status(2);
    place.run().expect_status(2);
    // As if the last good backup were of yesterday, and the stack failed since.
    let path = place.state().join("history.json");
    let mut history: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    history["lastGood"][&stack.name]["time"] = json!("2026-01-01T03:00:00+01:00");
    fs::write(&path, history.to_string()).unwrap();
    let text = status(&[]).expect_status(2).stdout;
    assert!(text.contains("(`maxAge` is 1h)"), "{text}");
    let live = output(&mut place.program(&["check", "--live"])).stdout;
    assert!(live.contains("(`maxAge` is 1h)"), "{live}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_unhealthy_container_is_shown_with_its_health_check_and_its_log() {
    let place = Place::new();
    let stack = place.stack("paused");
    let compose = "services:\n  app:\n    image: docker-stack-backup/busybox:1\n    init: true\n    \
        command: sh -c 'echo cannot open the pod bay doors; sleep 1000'\n    healthcheck:\n      \
        test: echo no answer from the port; exit 1\n      interval: 1s\n      retries: 1\n";
    fs::write(stack.dir.join("compose.yaml"), compose).unwrap();
    output(&mut stack.compose(&["up", "--detach"])).expect_status(0);
    place.config(json!([stack.name]), json!({}));
    let status = |args: &[&str]| output(&mut place.program(&[&["status"], args].concat()));
    wait_until("it is unhealthy", || {
        status(&[]).stdout.contains("UNHEALTHY")
    });
    let ended = status(&[]).expect_status(2);
    let container = format!("{}-app-1", stack.project);
    for part in [
        format!("{container} is unhealthy"),
        "health check: no answer from the port".to_owned(),
        "log: cannot open the pod bay doors".to_owned(),
        format!("docker logs --tail 50 {container}"),
    ] {
        assert!(
            ended.stdout.contains(&part),
            "no {part} in {}",
            ended.stdout
        );
    }
    let json = status(&["--json"]).json();
    let trouble = &json["stacks"][0]["troubles"][0];
    assert_eq!(trouble["health"], "no answer from the port", "{json}");
    assert_eq!(
        trouble["log"],
        json!(["cannot open the pod bay doors"]),
        "{json}"
    );
}
