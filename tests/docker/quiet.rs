//! Other processes and containers that write to a stack's data are found and
//! named.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;

use crate::common::{Ended, Place, Spy, Stack, docker, output};
use serde_json::{Value, json};

/// Another project's running container, which mounts `source` with `mode`.
fn other_project(place: &Place, source: &str, mode: &str) -> Stack {
    let other = place.stack("paused");
    let target = format!("{source}:/theirs:{mode}");
    let service = format!("services:\n  app:\n    volumes: ['{target}']\n");
    let volume = if source.starts_with('/') {
        String::new()
    } else {
        format!("volumes:\n  {source}:\n    external: true\n")
    };
    fs::write(other.dir.join("compose.override.yaml"), service + &volume).unwrap();
    other.up();
    other
}

#[track_caller]
fn run(place: &Place, spy: &Spy) -> Ended {
    spy.clear();
    output(spy.watch(&mut place.program(&["run", "--json"])))
}

fn stops(spy: &Spy) -> usize {
    let calls = spy.calls();
    calls
        .iter()
        .filter(|call| call.starts_with("stop "))
        .count()
}

fn failures(outcome: &Value) -> String {
    outcome["failures"].to_string()
}

/// Checks that the run fails before the stop and names `mount`, and that it
/// only warns with `onBusy: warn`.
#[track_caller]
fn assert_busy(place: &Place, stack: &Stack, other: &Stack, mount: &str) {
    let spy = place.spy("");
    place.config(json!([stack.name]), json!({}));
    let json = run(place, &spy).expect_status(2).json();
    let outcome = stack.outcome(&json);
    let found = format!(
        "container {0}-app-1 of project {0} runs and mounts {mount} writable",
        other.project
    );
    assert!(failures(outcome).contains(&found), "{}", failures(outcome));
    assert!(failures(outcome).contains("nothing was stopped"));
    assert_eq!(outcome["downtimeMs"], Value::Null);
    assert_eq!(stops(&spy), 0);
    assert!(place.stored(&stack.name).is_empty());
    for (command, status) in [(&["plan"][..], 2), (&["check", "--live"], 1)] {
        let told = output(&mut place.program(command)).expect_status(status);
        assert!(told.stdout.contains(&found), "{}", told.stdout);
    }

    place.config(json!([{"name": stack.name, "onBusy": "warn"}]), json!({}));
    for command in [&["plan"][..], &["check", "--live"]] {
        output(&mut place.program(command)).expect_status(0);
    }
    let json = run(place, &spy).expect_status(0).json();
    let warnings = stack.outcome(&json)["warnings"].to_string();
    let in_use = format!("the data is in use ({found}");
    assert_eq!(warnings.matches(&in_use).count(), 1, "{warnings}");
    assert_eq!(stops(&spy), 1);
    place.archive(&stack.name);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn another_projects_container_that_can_write_is_found_before_the_stop() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    let dir = stack.dir.display().to_string();
    let other = other_project(&place, &dir, "rw");
    assert_busy(&place, &stack, &other, &dir);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_volume_that_another_project_can_write_to_is_found_before_the_stop() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    let volume = format!("{}_data", stack.name);
    let other = other_project(&place, &volume, "rw");
    let mountpoint = docker(["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
    assert_busy(&place, &stack, &other, &mountpoint);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_volume_bound_to_the_stacks_directory_is_found_before_the_stop() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    let device = format!("device={}", stack.dir.display());
    let volume = format!("{}-bound", stack.name);
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt"];
    docker([&["volume", "create"], &options[..], &[&device, &volume]].concat());
    let other = other_project(&place, &volume, "rw");
    let mountpoint = docker(["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
    assert_busy(&place, &stack, &other, &mountpoint);
    drop(other);
    docker(["volume", "rm", &volume]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn containers_that_only_read_the_data_or_mount_a_parent_directory_are_accepted() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    let above = place.path("stacks").display().to_string();
    for (source, mode) in [(stack.dir.display().to_string(), "ro"), (above, "rw")] {
        let _other = other_project(&place, &source, mode);
        let json = place.run().expect_status(0).json();
        let warnings = stack.outcome(&json)["warnings"].as_array().unwrap();
        let is_in_use = |warning: &&Value| warning.to_string().contains("in use");
        assert_eq!(warnings.iter().find(is_in_use), None, "{source}");
        // Whoever can write to the directory above can exchange the compose file.
        let expected = usize::from(mode == "rw");
        assert_eq!(warnings.len(), expected, "{warnings:?}");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_is_excluded_may_be_in_use_by_others() {
    let place = Place::new();
    let stack = place.stack("paused");
    stack.up();
    let theirs = stack.dir.join("theirs");
    fs::create_dir_all(theirs.join("data")).unwrap();
    fs::write(theirs.join("data/log"), "").unwrap();
    let _other = other_project(&place, theirs.join("data").to_str().unwrap(), "rw");
    let _writer = open(&theirs.join("data/log"), true);
    for patterns in [&["/theirs/"][..], &["/theirs/data/*"]] {
        let options = json!({"name": stack.name, "exclude": patterns});
        place.config(json!([options]), json!({}));
        let json = place.run().expect_status(0).json();
        assert_eq!(stack.outcome(&json)["warnings"], json!([]), "{patterns:?}");
    }
    // The control: something of it is archived.
    let options = json!({"name": stack.name, "exclude": ["/theirs/data/*", "!/theirs/data/log"]});
    place.config(json!([options]), json!({}));
    let json = place.run().expect_status(2).json();
    let failures = failures(stack.outcome(&json));
    assert!(failures.contains("theirs/data writable"), "{failures}");
}

fn open(file: &Path, writable: bool) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(writable).open(file).unwrap()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_process_with_a_file_open_for_writing_is_named_and_the_stack_is_up_again() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    let before = stack.ids();
    let path = stack.dir.join("notes");
    fs::write(&path, "").unwrap();
    place.config(json!([stack.name]), json!({}));

    let writer = open(&path, true);
    let json = place.run().expect_status(2).json();
    let outcome = stack.outcome(&json);
    let failures = failures(outcome);
    assert!(
        failures.contains(&format!("process {} (", std::process::id())),
        "{failures}"
    );
    let open_for_writing = format!("has {}/notes open for writing", stack.name);
    assert!(failures.contains(&open_for_writing), "{failures}");
    assert!(outcome["downtimeMs"].as_u64().is_some(), "it was stopped");
    assert_eq!(stack.states(), ["cache:running"]);
    assert_eq!(stack.ids(), before);
    assert!(place.stored(&stack.name).is_empty());
    assert!(place.journalled().is_empty());

    place.config(json!([{"name": stack.name, "onBusy": "warn"}]), json!({}));
    let json = place.run().expect_status(0).json();
    let warnings = stack.outcome(&json)["warnings"].to_string();
    assert!(warnings.contains(&open_for_writing), "{warnings}");
    place.archive(&stack.name);
    drop(writer);

    // The control: a process that only reads is accepted.
    let _reader = open(&path, false);
    place.config(json!([stack.name]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!(stack.outcome(&json)["warnings"], json!([]));
}

/// Removes a container that a spy started.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = output(Command::new("docker").args(["rm", "--force", &self.0]));
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_that_starts_while_the_stack_stops_is_found() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    let intruder = Container(format!("{}-intruder", stack.name));
    let hook = |mode: &str| {
        format!(
            "if [ \"$1\" = stop ]; then docker rm --force {0} >/dev/null 2>&1; docker run --detach \
             --name {0} --init -v '{1}:/theirs:{mode}' docker-stack-backup/busybox:1 \
             sleep infinity >/dev/null 2>&1; fi",
            intruder.0,
            stack.dir.display()
        )
    };
    place.config(json!([stack.name]), json!({}));
    let json = run(&place, &place.spy(&hook("rw"))).expect_status(2).json();
    let found = format!(
        "container {} runs and mounts {} writable",
        intruder.0,
        stack.dir.display()
    );
    let outcome = stack.outcome(&json);
    assert!(failures(outcome).contains(&found), "{}", failures(outcome));
    assert!(!failures(outcome).contains("nothing was stopped"));
    assert_eq!(stack.states(), ["cache:running"]);
    assert!(place.stored(&stack.name).is_empty());
    // The control: a container with a read-only mount is accepted.
    docker(["rm", "--force", &intruder.0]);
    run(&place, &place.spy(&hook("ro"))).expect_status(0);
    assert_eq!(
        docker(["inspect", "--format", "{{.State.Running}}", &intruder.0]),
        "true"
    );
    place.archive(&stack.name);
}
