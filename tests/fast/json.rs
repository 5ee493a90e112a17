//! What commands print with `--json`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::common::schema::output_schema;
use crate::common::{Place, output};
use serde_json::json;

#[test]
fn every_command_prints_json_that_the_schema_describes() {
    let place = Place::new();
    place.config(json!(["web"]), json!({"retention": {"keepLast": 1}}));
    let dir = place.store().join("web");
    fs::create_dir_all(&dir).unwrap();
    let frozen = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/archives/format-1.tar");
    fs::copy(frozen, dir.join("web_20200101_000000.tar")).unwrap();
    let to = place.path("unpacked");
    let file = dir.join("web_20200101_000000.tar");
    let [to, file] = [&to, &file].map(|path| path.to_str().unwrap());
    // There may be no Engine; what is printed has the same form.
    for (args, field) in [
        (&["check"][..], "checks"),
        (&["check", "--live"], "checks"),
        (&["status"], "stacks"),
        (&["plan"], "stacks"),
        (&["run"], "stacks"),
        (&["report"], "stacks"),
        (&["report", "web"], "stacks"),
        (&["report", "--html", &format!("{to}.html")], "written"),
        (&["report", "--send-queued"], "channels"),
        (&["recover"], "recovered"),
        (&["status", "web"], "runs"),
        (&["list"], "archives"),
        (&["list", file], "members"),
        (&["verify"], "archives"),
        (&["prune", "--dry-run"], "archives"),
        (&["prune"], "stacks"),
        (&["drill", "web"], "drills"),
        (&["restore", file, "--to", to, "--dry-run"], "members"),
        (&["restore", file, "--to", to], "lacks"),
        (&["restore", file, "--diff", "--to", to], "differences"),
    ] {
        let ended = output(&mut place.program(&[args, &["--json"]].concat()));
        // This compares it with the schema.
        let json = ended.json();
        assert_eq!(json["formatVersion"], 1, "{args:?}");
        assert!(json.get(field).is_some(), "{args:?} has no {field}: {json}");
    }
    let mut relative = place.program(&["report", "--html", "page.html"]);
    output(relative.current_dir(place.path(""))).expect_status(0);
    assert!(place.path("page.html").exists());
    let page = fs::read_to_string(format!("{to}.html")).unwrap();
    assert!(
        page.contains("<h2>web</h2>") && page.contains("1 archive"),
        "{page}"
    );
}

#[test]
fn times_are_read_by_date() {
    let place = Place::new();
    place.config(json!(["web"]), json!({}));
    let run = output(&mut place.program(&["run", "--json"])).json();
    let read = |time: &str| {
        let mut date = Command::new("date");
        output(date.args(["--date", time, "+%s"]))
    };
    for field in ["started", "finished"] {
        read(run[field].as_str().unwrap()).expect_status(0);
    }
    // The control: the form of earlier versions.
    assert_ne!(read("2026-11-24T03:15:00+01:00[Europe/Berlin]").status, 0);
}

#[test]
fn the_page_about_json_has_every_definition() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<&str> = rows
        .flat_map(|row| {
            row.rsplit(" | ")
                .next()
                .unwrap()
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .collect();
    let outputs = output_schema()["anyOf"].as_array().unwrap().iter();
    let printed: BTreeSet<&str> = outputs
        .map(|output| output["$ref"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(named, printed);
}
