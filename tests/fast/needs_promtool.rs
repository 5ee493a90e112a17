//! What Prometheus gets is what it understands.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::dashboard::{dashboard, expressions};
use crate::common::output;
use serde_json::json;

fn promtool(args: &[&str]) -> Command {
    let mut command = Command::new("promtool");
    command.args(args);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/prometheus"));
    command
}

#[test]
fn the_alarms_are_valid_and_go_off() {
    output(&mut promtool(&["check", "rules", "alerts.yml"])).expect_status(0);
    output(&mut promtool(&["test", "rules", "alerts.test.yml"])).expect_status(0);
}

#[test]
fn the_dashboard_asks_in_prometheus_own_language() {
    let dir = tempfile::tempdir().unwrap();
    let is_valid = |expressions: &[String]| {
        let rules = expressions.iter().enumerate().map(|(i, expression)| {
            // Grafana puts in what is chosen.
            let expression = expression
                .replace("$instance", ".*")
                .replace("$stack", ".*");
            json!({"record": format!("rule{i}"), "expr": expression})
        });
        let rules = json!({"groups": [{"name": "x", "rules": rules.collect::<Vec<_>>()}]});
        let file = dir.path().join("rules.yml");
        fs::write(&file, rules.to_string()).unwrap();
        output(&mut promtool(&["check", "rules", file.to_str().unwrap()])).status == 0
    };
    assert!(is_valid(&expressions(&dashboard())));
    assert!(!is_valid(&["sum(".to_owned()]), "the control");
}

#[test]
fn metrics_have_the_right_form() {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/snapshots");
    let name = "docker_stack_backup__metrics__tests__what_runs_did_is_told.snap";
    let snapshot = fs::read_to_string(snapshots.join(name)).unwrap();
    let (_, metrics) = snapshot.rsplit_once("---\n").unwrap();
    assert_eq!(lint(metrics), (true, String::new()));
    // The control: what does not follow the conventions is told.
    let (is_good, told) = lint("# TYPE x_total gauge\nx_total 1\n");
    assert!(!is_good && told.contains("x_total"), "{told}");
}

/// Whether promtool has nothing against it, and what it says.
fn lint(metrics: &str) -> (bool, String) {
    let mut command = promtool(&["check", "metrics"]);
    let command = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.success(), told)
}
