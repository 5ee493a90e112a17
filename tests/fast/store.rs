//! `list` and `prune`, and the output of long lists.

use std::fs;
use std::process::Command;

use crate::common::{PROGRAM, Place, archive_stem, output, succeed};
use jiff::ZonedDateTime;
use serde_json::{Value, json};

#[test]
fn a_closed_output_pipe_is_no_error() {
    let place = Place::new();
    place.config(json!([]), json!({}));
    for i in 0..2000 {
        put(
            &place,
            "web",
            &format!("web_20200101_{:02}{:02}00.tar", i / 60, i % 60),
            b"",
        );
    }
    let run = |script: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -o pipefail; {script}")]);
        shell.env("P", PROGRAM).env("C", place.path("config.json"));
        output(&mut shell)
    };
    let ended = run("\"$P\" -c \"$C\" list 2>/dev/null | head -n 1").expect_status(0);
    assert!(ended.stdout.starts_with("STACK"), "{}", ended.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&format!("\"$P\" completions {shell} | head -c 1"));
        assert_eq!(ended.expect_status(0).stderr, "");
    }
    // The control: a full disk is an error.
    let ended = run("\"$P\" completions bash >/dev/full").expect_status(1);
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
}

/// Puts a file into a stack's directory of the store.
fn put(place: &Place, stack: &str, name: &str, content: &[u8]) {
    let dir = place.store().join(stack);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), content).unwrap();
}

/// Puts an archive into the store as the predecessor script made them: a
/// directory, archived by GNU tar.
fn put_script_archive(place: &Place, stack: &str, days_ago: i64) -> String {
    let dir = place.path("scripts").join(stack);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("compose.yaml"), "services: {}\n").unwrap();
    let name = format!("{}.tar", archive_stem(stack, days_ago));
    put(place, stack, &name, b"");
    let archive = place.store().join(stack).join(&name);
    let parent = place.path("scripts");
    let paths = [&archive, &parent].map(|path| path.to_str().unwrap());
    succeed("tar", ["-cf", paths[0], "-C", paths[1], stack]);
    name
}

#[test]
fn list_shows_all_archives_and_their_problems() {
    let place = Place::new();
    place.config(json!(["web"]), json!({}));
    let ended = output(&mut place.program(&["list"])).expect_status(1);
    assert!(
        ended.stderr.contains("cannot open the backup directory"),
        "{}",
        ended.stderr
    );
    let old = put_script_archive(&place, "web", 30);
    let future = put_script_archive(&place, "web", -2);
    put_script_archive(&place, "gone", 3);
    put(&place, "web", "web_20200101_000000.tar", &[0; 700]);
    put(&place, "web", "notes.tar", b"not an archive's name");
    let text = output(&mut place.program(&["list"]))
        .expect_status(0)
        .stdout;
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(rows.len(), 5, "{text}");
    assert_eq!(rows[0][..5], ["STACK", "TIME", "AGE", "SIZE", "DOWNTIME"]);
    assert_eq!(rows[0][5..], ["VERIFIED", "DRILLED", "RETENTION"]);
    assert_eq!(rows[1][0], "gone");
    assert_eq!(rows[1][2..5], ["3 d", "10.0 KiB", "-"]);
    assert_eq!(rows[1].last(), Some(&"without a manifest"));
    assert_eq!(rows[2][1], "2020-01-01 00:00:00");
    assert_eq!(rows[2][3..5], ["700 B", "-"]);
    assert_eq!(rows[2].last(), Some(&"INCOMPLETE"));
    assert_eq!(rows[3][2], "30 d");
    assert_eq!(rows[4][2], "future");

    let list = |args: &[&str]| {
        output(&mut place.program(args))
            .expect_status(0)
            .items("archives")
    };
    let json = list(&["list", "--json", "web"]);
    let all = json.as_array().unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["complete"], false);
    assert_eq!(all[1]["complete"], true);
    assert_eq!(all[1]["contentBytes"], Value::Null);
    let path = |i: usize| all[i]["path"].as_str().unwrap();
    assert!(path(1).ends_with(&old) && path(2).ends_with(&future));
    assert_eq!(
        list(&["list", "--json", "web@2020"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn every_command_takes_a_stack_and_a_time_and_suggests_a_name() {
    let place = Place::new();
    place.config(json!(["web", "new"]), json!({}));
    let [old, new] = [30, 1].map(|days| put_script_archive(&place, "web", days));
    put_script_archive(&place, "gone", 3);
    let path = |name: &String| place.store().join("web").join(name).display().to_string();
    let day = old[4..12].to_owned();
    let run = |args: &[&str]| output(&mut place.program(args));
    // Paths are for programs: nothing else is printed, and no line is too long.
    let paths = run(&["list", "--paths", "web"]).expect_status(0).stdout;
    assert_eq!(paths, format!("{}\n{}\n", path(&old), path(&new)));
    let wanted = format!("web@{day}");
    let paths = run(&["list", "--paths", &wanted]).expect_status(0).stdout;
    assert_eq!(paths, format!("{}\n", path(&old)));
    let verified = run(&["verify", "--json", &wanted])
        .expect_status(0)
        .items("archives");
    assert_eq!(verified.as_array().unwrap().len(), 1);
    assert_eq!(verified[0]["path"], path(&old));
    let to = place.path("restored");
    let to = ["--to", to.to_str().unwrap(), "--dry-run", "--json"];
    let members = run(&[&["restore", &wanted], &to[..]].concat())
        .expect_status(0)
        .json();
    assert_eq!(members["archive"], path(&old));
    assert_eq!(members["members"], json!(["web/", "web/compose.yaml"]));
    let of_file = run(&["list", "--json", &path(&old)])
        .expect_status(0)
        .json();
    assert_eq!(of_file, members);

    for args in [
        &["list"][..],
        &["verify"],
        &["restore", "--dry-run"],
        &["drill"],
        &["run"],
        &["plan"],
        &["prune", "--dry-run"],
        &["status"],
    ] {
        let ended = run(&[args, &["wbe"]].concat());
        // A drill goes on with the others.
        let status = if args == ["drill"] { 2 } else { 1 };
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("did you mean `web`?"), "{args:?}: {said}");
        assert!(
            said.contains("no stack `wbe` is configured"),
            "{args:?}: {said}"
        );
        ended.expect_status(status);
    }
    for args in [&["list"][..], &["verify"], &["restore", "--dry-run"]] {
        let ended = run(&[args, &["web@1999"]].concat()).expect_status(1);
        assert!(
            ended.stderr.contains("no archive of web of 1999"),
            "{}",
            ended.stderr
        );
        let ended = run(&[args, &["web@soon"]].concat()).expect_status(1);
        assert!(ended.stderr.contains("is not a time"), "{}", ended.stderr);
    }
    // The controls: a stack without an archive, and archives without a stack, are known.
    assert_eq!(
        run(&["list", "--json", "new"])
            .expect_status(0)
            .items("archives"),
        json!([])
    );
    run(&["list", "gone"]).expect_status(0);
}

#[test]
fn lists_fit_the_width() {
    let place = Place::new();
    place.config(json!(["a-stack-with-a-long-name"]), json!({}));
    let name = put_script_archive(&place, "a-stack-with-a-long-name", 3);
    let list = |columns: &str| {
        let mut list = place.program(&["list"]);
        output(list.env("COLUMNS", columns)).expect_status(0).stdout
    };
    let longest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    for columns in [40, 80, 120] {
        let text = list(&columns.to_string());
        assert!(longest(&text) <= columns, "{columns}:\n{text}");
        assert!(
            text.contains("10.0 KiB") && text.contains("newest good archive"),
            "{text}"
        );
    }
    // The control: whoever reads them line by line gets one line for each archive.
    let wide = output(place.program(&["list"]).env_remove("COLUMNS")).stdout;
    assert_eq!(wide.lines().count(), 2, "{wide}");
    assert!(longest(&wide) > 80 && !wide.contains(&name), "{wide}");
}

#[test]
fn prune_removes_old_archives_of_the_script_and_no_other_file() {
    let place = Place::new();
    let keep = json!({"retention": {"keepDays": 7}});
    place.config(json!(["web"]), keep.clone());
    let [old, older, new] = [8, 30, 1].map(|days| put_script_archive(&place, "web", days));
    put_script_archive(&place, "foreign", 30);
    let foreign = [
        "web_20200101_000000.tar.gz",
        "web-20200101_000000.tar",
        "notes",
    ];
    for name in foreign {
        put(&place, "web", name, b"");
    }
    let before = place.stored("web");
    let dry = output(&mut place.program(&["prune", "--dry-run"]))
        .expect_status(0)
        .stdout;
    let verb = |name: &str| {
        let line = dry.lines().find(|line| line.contains(name));
        line.unwrap_or_default()
            .split(' ')
            .next()
            .unwrap_or_default()
    };
    assert_eq!(
        [&old, &older, &new].map(|name| verb(name)),
        ["remove", "remove", "keep"]
    );
    assert!(dry.contains("would free 20.0 KiB"), "{dry}");
    assert_eq!(place.stored("web"), before, "a dry run removes nothing");
    let json = output(&mut place.program(&["prune", "--dry-run", "--json"])).items("archives");
    assert_eq!(json.as_array().unwrap().len(), 3);

    let ended = output(&mut place.program(&["prune"])).expect_status(0);
    assert!(
        ended.stderr.contains("pruned removed=2"),
        "{}",
        ended.stderr
    );
    let mut left: Vec<String> = foreign.map(str::to_owned).into();
    left.push(new.clone());
    left.sort();
    assert_eq!(place.stored("web"), left);
    assert_eq!(place.stored("foreign").len(), 1);

    // The newest good archive stays, however old it is. A truncated one does not
    // count as good.
    let place = Place::new();
    place.config(json!(["web"]), keep);
    let old = put_script_archive(&place, "web", 400);
    let cut = format!("web_{}.tar", ZonedDateTime::now().strftime("%Y%m%d_000000"));
    put(&place, "web", &cut, &[0; 100]);
    output(&mut place.program(&["prune"])).expect_status(0);
    assert!(
        place.stored("web").contains(&old),
        "{:?}",
        place.stored("web")
    );
    // Nothing is pruned when the retention is switched off.
    place.config(json!(["web"]), json!({"retention": null}));
    let ended = output(&mut place.program(&["prune"])).expect_status(0);
    assert!(
        ended.stderr.contains("nothing is pruned"),
        "{}",
        ended.stderr
    );
}

#[test]
fn pruning_after_a_jump_in_time_needs_a_word() {
    let place = Place::new();
    place.config(json!(["web"]), json!({"retention": {"keepDays": 7}}));
    for days_ago in 200..210 {
        put_script_archive(&place, "web", days_ago);
    }
    put_script_archive(&place, "web", 0);
    let before = place.stored("web");
    let dry = output(&mut place.program(&["prune", "--dry-run"])).expect_status(0);
    assert!(dry.stderr.contains("check the clock"), "{}", dry.stderr);
    let ended = output(&mut place.program(&["prune"])).expect_status(2);
    for part in ["10 of 11 good archives", "prune --yes web"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert_eq!(place.stored("web"), before);
    output(&mut place.program(&["prune", "--yes"])).expect_status(0);
    assert_eq!(place.stored("web").len(), 1);
    // The control: archives of a month ago are removed without a word.
    for days_ago in 31..40 {
        put_script_archive(&place, "web", days_ago);
    }
    output(&mut place.program(&["prune"])).expect_status(0);
    assert_eq!(place.stored("web").len(), 1);
}
