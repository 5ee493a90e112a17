//! Updates of a stack that are kept, and those that are rolled back.

use std::fs;

use serde_json::json;

use crate::common::disk::Disk;
use crate::common::guarded::Guarded;
use crate::common::{Place, docker, output, succeed};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_update_that_works_is_kept_and_any_other_is_rolled_back() {
    let guarded = Guarded::new(&["one", "two", "sick", "broken"]);
    let old = guarded.image_id(&guarded.name);
    let anonymous = || {
        let format =
            "{{range .Mounts}}{{if eq .Destination \"/anonymous\"}}{{.Name}}{{end}}{{end}}";
        docker([
            "inspect",
            "--format",
            format,
            &guarded.stack.container("app"),
        ])
    };
    let volume = anonymous();

    // The command fails after the new version has migrated the data.
    let ended = guarded.guard(&[], &guarded.update_to("two", "echo no luck >&2; exit 7"));
    let json = ended.expect_status(2).json();
    assert_eq!(json["status"], "rolledBack");
    assert_eq!(json["reason"], "the command failed: exit status 7");
    assert!(json["output"].to_string().contains("no luck"), "{json}");
    assert_eq!(guarded.assert_whole("the command fails"), "one");
    assert_eq!(anonymous(), volume);

    // Everything is removed, and the new version ends.
    let command = guarded.update_to("broken", "");
    let command = command.replace("set -e;", "set -e; docker compose down;");
    let json = guarded.guard(&[], &command).expect_status(2).json();
    let reason = json["reason"].as_str().unwrap();
    assert!(reason.contains("ended with exit status 1"), "{reason}");
    assert_eq!(guarded.assert_whole("a new container"), "one");
    assert_eq!(anonymous(), volume);
    // What had ended is there again, and was not run.
    assert_eq!(guarded.stack.states(), ["app:running", "job:created"]);

    // The new version is not healthy, and is left running by a command that goes on.
    let within = ["--healthy-within", "2"];
    let sick = guarded.update_to("sick", "setsid sleep 987654 >/dev/null 2>&1 &");
    let json = guarded.guard(&within, &sick).expect_status(2).json();
    let reason = json["reason"].as_str().unwrap();
    assert!(reason.contains("is not healthy (unhealthy)"), "{reason}");
    assert_eq!(guarded.assert_whole("not healthy"), "one");
    assert!(!succeed("ps", ["-eo", "args"]).contains("sleep 987654"));

    // The command hangs. What the stack writes before it would be lost, so nothing is
    // handed over meanwhile.
    let repository = json!({
        "kind": "borg", "repository": "/nonexistent/repo", "passphraseFile": "/nonexistent/key",
    });
    let options = json!({ "handover": [repository] });
    let place = &guarded.place;
    place.config(json!([guarded.stack.name]), options);
    let is_tried = || {
        let report = output(&mut place.program(&["report", "--json"]));
        let report = report.json();
        let tried = report["handovers"].as_array().map_or(0, Vec::len);
        tried > 0
    };
    let json = guarded
        .guard(&["--limit", "1"], "sleep 987653")
        .expect_status(2)
        .json();
    assert_eq!(
        json["reason"],
        "the command failed: still running after 1 s, killed"
    );
    assert!(!is_tried());
    place.run().expect_status(2);
    assert!(is_tried(), "the control: a run hands it over");
    place.config(json!([guarded.stack.name]), json!({}));
    assert_eq!(guarded.assert_whole("the command hangs"), "one");

    // The control: an update that works.
    let json = guarded
        .guard(&[], &guarded.update_to("two", ""))
        .expect_status(0)
        .json();
    let new = guarded.image_id(&guarded.name);
    assert_eq!(json["status"], "updated");
    let app = &json["images"][0];
    assert_eq!(app["before"], json!({"reference": guarded.name, "id": old}));
    assert_eq!(app["after"], json!({"reference": guarded.name, "id": new}));
    assert_eq!(guarded.assert_whole("it works"), "two");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_could_not_be_rolled_back_is_refused_before() {
    let place = Place::new();
    let disk = Disk::new(&place, "stacks", 40);
    let guarded = Guarded::in_place(place, &["one", "two"]);
    // It is unmounted before its mount point is removed.
    let disk = disk;
    let (stack, name) = (&guarded.stack, &guarded.name);
    let compose = |args: &[&str]| {
        output(&mut stack.compose(args)).expect_status(0);
    };
    let guard = |options: &[&str]| {
        let args = [&["guard", &stack.name], options, &["--", "touch", "done"]].concat();
        output(&mut guarded.place.program(&args))
    };
    let refused = |options: &[&str], reason: &str| {
        let ended = guard(options).expect_status(1);
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
        assert!(!stack.dir.join("done").exists(), "{reason}");
    };
    let holes = ["--allow-holes"];
    refused(
        &[],
        "some data is in no archive, so it could not be put back: volume ",
    );

    // Two images of one name.
    docker(["tag", &format!("{}:two", stack.name), name]);
    compose(&[
        "up",
        "--no-start",
        "--no-deps",
        "--no-recreate",
        "--scale",
        "job=2",
        "job",
    ]);
    refused(&holes, "run from two images of the same name");
    docker(["tag", &format!("{}:one", stack.name), name]);
    compose(&["up", "--detach"]);

    let command = [
        "guard",
        &stack.name,
        "--allow-holes",
        "--",
        "no such program",
    ];
    let ended = output(&mut guarded.place.program(&command)).expect_status(1);
    let reason = "cannot find the program `no such program`";
    assert!(ended.stderr.contains(reason), "{}", ended.stderr);

    // Nothing runs.
    compose(&["stop", "--timeout", "1"]);
    refused(&holes, "nothing of ");
    compose(&["start"]);
    assert_eq!(
        guarded.place.stored(&stack.name),
        [""; 0],
        "all is refused before the archive"
    );

    // The archive would have no room beside the data.
    let bulk = stack.dir.join("bulk");
    fs::write(&bulk, vec![7; 24 << 20]).unwrap();
    refused(&holes, "there is not enough room beside");
    fs::remove_file(&bulk).unwrap();

    // The control: otherwise, it runs.
    guard(&holes).expect_status(0);
    assert!(stack.dir.join("done").exists());
    assert_eq!(guarded.held(), "");
    drop(disk);
}
