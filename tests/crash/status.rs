//! What `status` and the file of metrics say of stacks that are up, of one that is
//! stopped, and of one that a killed run has left down.

use std::fs;

use crate::common::scene::Scene;
use crate::common::{Ended, output};
use serde_json::json;

fn status(scene: &Scene, args: &[&str]) -> Ended {
    output(&mut scene.place.program(&[&["status"], args].concat()))
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn status_and_metrics_tell_what_is_up_what_is_down_and_what_to_do() {
    let scene = Scene::new("stop", 0);
    let (place, name) = (&scene.place, &scene.stack.name);
    let metrics = place.path("backup.prom");
    place.config(json!([name]), json!({"metricsFile": metrics}));
    let metric = |metric: &str| -> f64 {
        let text = fs::read_to_string(&metrics).unwrap();
        let begin = format!("docker_stack_backup_{metric}{{stack=\"{name}\"}} ");
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix(&begin));
        found
            .unwrap_or_else(|| panic!("no {metric} in {text}"))
            .parse()
            .unwrap()
    };

    let never = status(&scene, &[]).expect_status(2).stdout;
    assert!(never.contains("running"), "{never}");
    let advice = format!("{name} was never backed up: `docker-stack-backup run {name}`");
    assert!(never.contains(&advice), "{never}");

    place.run().expect_status(0);
    let up = status(&scene, &[]).expect_status(0).stdout;
    assert!(up.contains("running") && up.contains("0 h"), "{up}");
    assert!(!up.contains("docker-stack-backup run"), "{up}");
    assert_eq!(metric("stack_down"), 0.0);
    assert_eq!(metric("stack_last_attempt_success"), 1.0);
    assert!(metric("stack_archive_bytes") > f64::from(17 << 20));
    assert!(metric("stack_downtime_seconds") > 0.0);
    let good = metric("stack_last_success_timestamp_seconds");
    assert!(good > 1.7e9);

    scene.leave_down();
    let ended = status(&scene, &[]).expect_status(3);
    assert!(ended.stdout.contains("DOWN"), "{}", ended.stdout);
    let advice = "start it with `docker-stack-backup recover`";
    assert!(ended.stdout.contains(advice), "{}", ended.stdout);
    let json = status(&scene, &["--json"]).expect_status(3).json();
    assert_eq!(json["stacks"][0]["state"], "down");
    assert!(json["advice"][0].as_str().unwrap().contains("recover"));

    output(&mut place.program(&["recover"])).expect_status(0);
    // The killed run made no backup.
    let back = status(&scene, &[]).expect_status(2).stdout;
    assert!(
        back.contains("running") && !back.contains("DOWN "),
        "{back}"
    );
    assert_eq!(metric("stack_down"), 0.0);
    assert_eq!(metric("stack_last_attempt_success"), 0.0);
    assert_eq!(metric("stack_last_success_timestamp_seconds"), good);
    let runs = status(&scene, &[name, "--json"])
        .expect_status(2)
        .items("runs");
    assert_eq!(runs[0]["status"], "ok");
    assert_eq!(runs.as_array().unwrap().len(), 2);

    place.run().expect_status(0);
    output(&mut scene.stack.compose(&["stop", "--timeout", "0"])).expect_status(0);
    // A stack that its owner has stopped is nothing to worry about.
    let stopped = status(&scene, &[]).expect_status(0).stdout;
    assert!(stopped.contains("stopped"), "{stopped}");
    let unknown = status(&scene, &["nonesuch"]).expect_status(1);
    assert!(unknown.stderr.contains("no stack `nonesuch` is configured"));

    // A file that cannot be written is told, and nothing else is missing.
    place.config(json!([name]), json!({"metricsFile": "/nonexistent/x.prom"}));
    let json = place.run().expect_status(2).json();
    assert_eq!(scene.stack.outcome(&json)["status"], "ok");
    assert!(
        json["errors"][0]
            .as_str()
            .unwrap()
            .contains("`metricsFile`")
    );
}
