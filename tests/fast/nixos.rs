//! The NixOS module and the program have the same configuration fields.
//! scripts/render-module renders a configuration with every option of the module.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::common::{PROGRAM, output};
use serde_json::{Value, json};

const ALL_OPTIONS: &str = "tests/all-options/etc/docker-stack-backup/config.json";

/// Returns whether `check` accepts a configuration, and its messages.
fn check(config: &Value) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(PROGRAM);
    let ended = output(command.args(["check", "--config"]).arg(&path));
    (ended.status == 0, ended.stderr)
}

/// Returns the fields that the program lists when it refuses an unknown one.
fn known_fields(with_unknown: &Value) -> BTreeSet<String> {
    let (ok, message) = check(with_unknown);
    assert!(!ok, "{with_unknown} is accepted");
    let (_, known) = message
        .split_once("expected ")
        .unwrap_or_else(|| panic!("{message}"));
    let names = known.lines().next().unwrap().split('`').skip(1).step_by(2);
    names
        .map(str::to_owned)
        .filter(|name| name != "zzz")
        .collect()
}

fn fields_of(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_module_sets_every_field_and_the_program_accepts_them() {
    let all: Value = serde_json::from_str(&fs::read_to_string(ALL_OPTIONS).unwrap()).unwrap();
    let (ok, message) = check(&all);
    assert!(ok, "{message}");

    let unknown = json!({"zzz": 1});
    // A hook runs in a service or on the host, so no hook has all fields.
    let mut joined = all["stacks"][0]["hooks"][0].clone();
    joined["host"] = all["defaults"]["hooks"][0]["host"].clone();
    let stack_fields = known_fields(&json!({"stacks": [unknown]}));
    for (at, rendered, known) in [
        ("the top", &all, known_fields(&unknown)),
        ("stacks", &all["stacks"][0], stack_fields),
        (
            "retention",
            &all["retention"],
            known_fields(&json!({"retention": unknown})),
        ),
        (
            "email",
            &all["email"],
            known_fields(&json!({"email": unknown})),
        ),
        (
            "hooks",
            &joined,
            known_fields(&json!({"stacks": [{"hooks": [unknown]}]})),
        ),
    ] {
        assert_eq!(fields_of(rendered), known, "at {at}");
    }
}

#[test]
fn the_module_has_every_default_that_the_program_accepts() {
    let all: Value = serde_json::from_str(&fs::read_to_string(ALL_OPTIONS).unwrap()).unwrap();
    let stack = all["stacks"][0].as_object().unwrap();
    let can_be_default = |(field, value): (&String, &Value)| {
        let config = json!({"stacks": ["a"], "defaults": {field.as_str(): value}});
        check(&config).0.then(|| field.clone())
    };
    let expected: BTreeSet<String> = stack.iter().filter_map(can_be_default).collect();
    assert!(!expected.contains("path"), "{expected:?}");
    assert_eq!(fields_of(&all["defaults"]), expected);
}
