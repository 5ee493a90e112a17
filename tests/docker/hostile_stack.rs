//! A stack's files are written by someone who wants more than its data: the host's
//! files, its commands, its memory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Place, Stack, output, succeed};

const SERVICE: &str = "image: docker-stack-backup/busybox:1, init: true, command: sleep infinity";

fn write(stack: &Stack, name: &str, text: &str) {
    fs::write(stack.dir.join(name), text).unwrap();
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn compose_runs_nothing_for_a_stack_and_gets_no_variable_of_the_shell() {
    let place = Place::new();
    let stack = place.stack("paused");
    place.config(json!([stack.name]), json!({}));
    // A `git` that tells that it ran, and an `ssh` of the stack's own choice.
    let (bin, marker) = (place.path("bin"), place.path("marker"));
    fs::create_dir(&bin).unwrap();
    fs::write(
        bin.join("git"),
        format!("#!/bin/sh\nid >{}\n", marker.display()),
    )
    .unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    write(
        &stack,
        ".env",
        &format!(
            "COMPOSE_EXPERIMENTAL_GIT_REMOTE=1\nCOMPOSE_EXPERIMENTAL_OCI_REMOTE=1\nPATH={path}\n\
             DOCKER_HOST=tcp://127.0.0.1:1\nGIT_SSH_COMMAND=sh -c 'id >{}'\n",
            marker.display()
        ),
    );
    for (address, name) in [
        ("git@127.0.0.1:x/y.git", "GIT"),
        ("oci://127.0.0.1:1/x:1", "OCI"),
    ] {
        write(
            &stack,
            "compose.yaml",
            &format!("include: ['{address}']\nservices: {{app: {{{SERVICE}}}}}\n"),
        );
        let told = output(place.program(&["plan"]).env("PATH", &path)).stderr;
        assert!(
            told.contains(&format!("COMPOSE_EXPERIMENTAL_{name}_REMOTE")),
            "{told}"
        );
        assert!(!marker.exists());
    }
    // The control: Compose as a person runs it.
    write(
        &stack,
        "compose.yaml",
        "include: ['git@127.0.0.1:x/y.git']\n",
    );
    let mut control = stack.compose(&["config"]);
    control
        .env("PATH", &path)
        .env("COMPOSE_EXPERIMENTAL_GIT_REMOTE", "1");
    output(&mut control);
    assert!(marker.exists());

    // Of the shell's variables, none reaches the manifest; those of `.env` do.
    write(&stack, ".env", "OWN=own\nDOCKER_HOST=tcp://proxy\n");
    write(
        &stack,
        "compose.yaml",
        &format!(
            "services: {{app: {{{SERVICE}, environment: {{A: '<${{SHELL_VARIABLE}}>', \
             B: '<${{PATH}}>', C: '<${{OWN}}>', D: '<${{DOCKER_HOST}}>'}}}}}}\n"
        ),
    );
    let mut run = place.program(&["run", "--json"]);
    output(run.env("SHELL_VARIABLE", "of the shell")).expect_status(0);
    let archive = place.archive(&stack.name);
    let member = format!("{}.manifest.json", stack.name);
    let manifest = succeed("tar", ["xOf", archive.to_str().unwrap(), &member]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let environment = &manifest["compose"]["services"]["app"]["environment"];
    assert_eq!(
        *environment,
        json!({"A": "<>", "B": "</nonexistent>", "C": "<own>", "D": "<tcp://proxy>"})
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn files_without_an_end_cost_little_and_the_next_stack_gets_its_turn() {
    let place = Place::new();
    let (endless, other) = (place.stack("paused"), place.stack("chain"));
    place.config(json!([endless.name, other.name]), json!({}));
    let compose = |more: &str| {
        write(
            &endless,
            "compose.yaml",
            &format!("services: {{app: {{{SERVICE}{more}}}}}\n"),
        );
    };
    let refused = |expected: &str| {
        let began = Instant::now();
        let ended = place.run().expect_status(2).json();
        let failures = endless.outcome(&ended)["failures"].to_string();
        assert!(failures.contains(expected), "{failures}");
        assert_eq!(other.outcome(&ended)["status"], "ok");
        assert!(
            began.elapsed() < Duration::from_secs(50),
            "{:?}",
            began.elapsed()
        );
    };
    compose("");
    symlink("/dev/zero", endless.dir.join(".env")).unwrap();
    refused("leads to a device, FIFO or socket");
    fs::remove_file(endless.dir.join(".env")).unwrap();
    symlink("/dev/zero", endless.dir.join("more.env")).unwrap();
    compose(", env_file: more.env");
    refused("more memory than it may have");
    // The control: without it, the stack is backed up.
    fs::remove_file(endless.dir.join("more.env")).unwrap();
    write(&endless, "more.env", "A=b\n");
    place.run().expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn no_line_of_a_host_file_is_quoted() {
    let place = Place::new();
    let stack = place.stack("paused");
    let log = place.path("log");
    place.config(json!([stack.name]), json!({"logFile": log}));
    let host = place.path("shadow");
    fs::write(&host, "Sw0rdfish&more\n- x\n").unwrap();
    let host = host.display();
    let said = || {
        let ended = output(&mut place.program(&["run", "--verbose"]));
        let last = fs::read_to_string(place.state().join("last-run.json")).unwrap();
        [
            ended.stdout,
            ended.stderr,
            fs::read_to_string(&log).unwrap(),
            last,
        ]
        .concat()
    };
    let mut quotes = 0;
    for (top, field) in [
        (String::new(), format!(", env_file: {host}")),
        (format!("include: [{host}]\n"), String::new()),
        (
            String::new(),
            format!(", extends: {{file: {host}, service: x}}"),
        ),
    ] {
        let text = format!("{top}services: {{app: {{{SERVICE}{field}}}}}\n");
        write(&stack, "compose.yaml", &text);
        let said = said();
        assert!(!said.contains("Sw0rdfish"), "{said}");
        assert!(said.contains("cannot read the compose file"), "{said}");
        // The control.
        let own = output(&mut stack.compose(&["config"]));
        quotes += usize::from(own.stderr.contains("Sw0rdfish"));
    }
    assert!(quotes > 0);
    // What is wrong in the stack's own file is said.
    write(&stack, "compose.yaml", "services: {app: {imag: nginx}}\n");
    let said = said();
    assert!(said.contains("imag"), "{said}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn down_does_not_start_what_a_container_wrote_at_its_end() {
    let place = Place::new();
    let stack = place.stack("paused");
    let text = format!("services: {{app: {{{SERVICE}}}}}\n");
    write(&stack, "compose.yaml", &text);
    stack.up();
    place.config(
        json!([{"name": stack.name, "stopMethod": "down"}]),
        json!({}),
    );
    let before = stack.ids();
    let hostile = place.path("hostile.yaml");
    fs::write(
        &hostile,
        text.replace("init: true", "init: true, privileged: true"),
    )
    .unwrap();
    let spy = place.spy(&format!(
        "[ \"$1\" != stop ] || cp '{}' '{}'",
        hostile.display(),
        stack.dir.join("compose.yaml").display()
    ));
    let ended = output(spy.watch(&mut place.program(&["run", "--json"])));
    let told = ended.expect_status(2).json();
    let failures = stack.outcome(&told)["failures"].to_string();
    assert!(failures.contains("has other privileges"), "{failures}");
    assert_eq!(stack.ids(), before);
    assert_eq!(stack.states(), ["app:running"]);
    // The control.
    write(&stack, "compose.yaml", &text);
    place.run().expect_status(0);
    assert_ne!(stack.ids(), before);
}
