//! The dashboard for Grafana asks for metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

const PREFIX: &str = "docker_stack_backup_";

pub fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/grafana/dashboard.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns what the panels ask Prometheus.
pub fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let texts = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    texts.collect()
}

/// Returns the metrics of an expression that the program does not write.
fn unknown(expression: &str, source: &str) -> Vec<String> {
    let names = expression.split(PREFIX).skip(1).map(|rest| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        rest.split(|c| !is_part(c)).next().unwrap().to_owned()
    });
    names
        .filter(|name| !source.contains(&format!("\"{name}\",")))
        .collect()
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics.rs"));
    let source = source.unwrap();
    let dashboard = dashboard();
    let asked = expressions(&dashboard);
    assert!(asked.len() > 10, "{asked:?}");
    for expression in &asked {
        assert_eq!(unknown(expression, &source), [""; 0], "{expression}");
    }
    // The control.
    let planted = "sum(docker_stack_backup_stack_down) + docker_stack_backup_nonesuch{a=\"b\"}";
    assert_eq!(unknown(planted, &source), ["nonesuch"]);
}

#[test]
fn the_panels_of_the_dashboard_lie_beside_one_another() {
    let dashboard = dashboard();
    let mut places = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(places.insert((x, y)), "two panels are at {x}, {y}: {panel}");
            }
        }
    }
    let known: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    for expression in expressions(&dashboard) {
        for rest in expression.split('$').skip(1) {
            let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            assert!(known.contains(&name), "{expression}");
        }
    }
}
