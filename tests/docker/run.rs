//! `run`: names of stacks, excluded files, and the places of archives.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::{PROGRAM, Place, Stack, archive_stem, output, succeed};
use serde_json::{Value, json};

/// Runs the program without a configuration, in the directory of the stacks.
fn ad_hoc(place: &Place, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(place.path("stacks"));
    command.arg("--state-dir").arg(place.state()).args(args);
    command.env_remove("DOCKER_STACK_BACKUP_CONFIG");
    command
}

fn members(archive: &Path) -> Vec<String> {
    let listing = succeed("tar", [Path::new("-tf"), archive]);
    listing.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_contains(text: &str, expected: &str) {
    assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn stacks_may_be_named_by_their_directories_alone() {
    let place = Place::new();
    let (web, redis) = (place.stack("web"), place.stack("redis"));
    web.up();
    let slash = format!("{}/", web.name);
    let run = ["run", "--stack", &slash, "--stack", &redis.name];
    let args = [&run[..], &["--backup-dir", "../store", "--json"]].concat();
    let json = output(&mut ad_hoc(&place, &args)).expect_status(0).json();
    assert!(web.outcome(&json)["downtimeMs"].as_u64().is_some());
    assert_eq!(web.states(), ["web:running"]);
    assert_eq!(redis.outcome(&json)["downtimeMs"], Value::Null);
    for stack in [&web, &redis] {
        let members = members(&place.archive(&stack.name));
        assert!(members.contains(&format!("{}/", stack.name)));
    }
    assert_eq!(
        json["pruned"],
        json!([]),
        "nothing is pruned without a retention"
    );

    // The stack's directory is given relative to itself.
    for dir in [".".to_owned(), "./".to_owned(), format!("../{}", web.name)] {
        let args = ["run", "--stack", &dir, "--backup-dir", "../../store"];
        let mut command = ad_hoc(&place, &args);
        output(command.current_dir(&web.dir)).expect_status(0);
    }
    assert_eq!(place.stored(&web.name).len(), 4);
    // A store that holds the stack's directory, or lies in it, is refused.
    let dir = web.dir.display().to_string();
    symlink(&web.dir, place.path("stacks/store-link")).unwrap();
    let own = "would archive its own archives";
    for (store, why) in [
        ("../stacks/.", "lies in `backupDir`"),
        (dir.as_str(), own),
        (&format!("{dir}/store"), own),
        ("store-link/new", own),
    ] {
        let args = ["run", "--stack", &web.name, "--backup-dir", store];
        let ended = output(&mut ad_hoc(&place, &args));
        assert_ne!(ended.status, 0, "{store}: {}", ended.stderr);
        assert_contains(&ended.stderr, why);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn odd_directories_are_archived_or_refused_with_a_reason() {
    let place = Place::new();
    let stack = place.stack("web");
    stack.up();
    // A symlink gives the stack its name, and the target's content is archived.
    symlink(&stack.dir, place.path("stacks/link")).unwrap();
    let run = |dir: &str| {
        let args = ["run", "--json", "--stack", dir, "--backup-dir", "../store"];
        output(&mut ad_hoc(&place, &args))
    };
    let json = run("link").expect_status(0).json();
    assert_eq!(json["stacks"][0]["project"], stack.project.as_str());
    assert!(json["stacks"][0]["downtimeMs"].as_u64().is_some());
    let linked = members(&place.archive("link"));
    for member in ["link/", "link/html/index.html"] {
        assert!(linked.iter().any(|m| m == member), "{linked:?}");
    }
    // No compose file; no directory; no directory but a file.
    fs::create_dir(place.path("stacks/empty")).unwrap();
    fs::write(place.path("stacks/file"), "").unwrap();
    for (dir, expected) in [
        ("empty", "stacks/empty: exit status"),
        ("empty", "no configuration file provided"),
        ("none", "stacks/none does not exist"),
        ("file", "stacks/file does not exist"),
    ] {
        let json = run(dir).expect_status(2).json();
        let failures = json["stacks"][0]["failures"].to_string();
        assert_contains(&failures, expected);
        assert!(place.stored(dir).is_empty());
    }
    // The name cannot be used in file names.
    let odd = place.path("stacks/my stäck");
    succeed("cp", [Path::new("-a"), &stack.dir, &odd]);
    let ended = run("my stäck").expect_status(1);
    assert_contains(&ended.stderr, "may have another `name`");
    let odd = Stack {
        name: format!("{}-odd", stack.name),
        project: format!("{}-odd", stack.name),
        dir: odd,
        host: None,
    };
    odd.up();
    place.config(json!([{"name": odd.name, "path": odd.dir}]), json!({}));
    let json = place.run().expect_status(0).json();
    assert_eq!(odd.outcome(&json)["project"], odd.project.as_str());
    assert!(odd.outcome(&json)["downtimeMs"].as_u64().is_some());
    assert_eq!(odd.states(), ["web:running"]);
    let report = output(&mut place.program(&["report"])).stdout;
    assert_contains(&report, "st\\u{e4}ck");
    // Not UTF-8.
    let mut command = ad_hoc(&place, &["run", "--stack", &stack.name, "--backup-dir"]);
    let ended = output(command.arg(std::ffi::OsStr::from_bytes(b"st\xff"))).expect_status(1);
    assert_contains(&ended.stderr, "it is not UTF-8");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn compose_variables_of_the_caller_are_ignored() {
    let place = Place::new();
    let (web, other) = (place.stack("web"), place.stack("paused"));
    web.up();
    other.up();
    place.config(json!([web.name]), json!({}));
    let before = other.ids();
    let mut command = place.program(&["run", "--json"]);
    command.env("COMPOSE_FILE", other.dir.join("compose.yaml"));
    command.env("COMPOSE_PROJECT_NAME", &other.project);
    command.env("COMPOSE_PROFILES", "none");
    let json = output(&mut command).expect_status(0).json();
    assert_eq!(web.outcome(&json)["project"], web.project.as_str());
    assert!(web.outcome(&json)["downtimeMs"].as_u64().is_some());
    assert_eq!(other.ids(), before);
    // The control: Compose itself uses these variables.
    let mut config = Command::new("docker");
    config.args(["compose", "config"]).current_dir(&web.dir);
    config.env("COMPOSE_FILE", other.dir.join("compose.yaml"));
    config.env("COMPOSE_PROJECT_NAME", &other.project);
    let config = output(&mut config).expect_status(0).stdout;
    assert_contains(&config, &format!("name: {}", other.project));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn only_the_named_stacks_are_backed_up_and_failed_ones_are_not_pruned() {
    let place = Place::new();
    let (web, broken, third) = (
        place.stack("web"),
        place.stack("broken"),
        place.stack("web"),
    );
    fs::remove_file(broken.dir.join("compose.yaml")).unwrap();
    fs::remove_file(broken.dir.join("compose.broken.yaml")).unwrap();
    // A month ago, as the end of an archive's name.
    let old_time = archive_stem("", 30);
    for stack in [&web, &broken, &third] {
        let dir = place.store().join(&stack.name);
        fs::create_dir_all(&dir).unwrap();
        let old = dir.join(format!("{}{old_time}.tar", stack.name));
        succeed("tar", [Path::new("-cf"), &old, Path::new("/dev/null")]);
        fs::write(dir.join("foreign.tar"), "").unwrap();
    }
    let keep = json!({"retention": {"keepDays": 7}});
    place.config(json!([web.name, broken.name, third.name]), keep);
    let args = ["run", "--json", &broken.name, &web.name];
    let json = output(&mut place.program(&args)).expect_status(2).json();
    assert_eq!(json["stacks"].as_array().unwrap().len(), 2);
    assert_eq!(web.outcome(&json)["status"], "ok");
    assert_eq!(broken.outcome(&json)["status"], "failed");
    let stored = place.stored(&web.name);
    assert_eq!(stored.len(), 2, "{stored:?}");
    assert!(!stored.iter().any(|name| name.contains(&old_time)));
    assert!(stored.contains(&"foreign.tar".to_owned()));
    for stack in [&broken, &third] {
        let old = format!("{}{old_time}.tar", stack.name);
        assert_eq!(place.stored(&stack.name), [old, "foreign.tar".to_owned()]);
    }
    let report = output(&mut place.program(&["report"]))
        .expect_status(0)
        .stdout;
    assert_contains(&report, &format!("FAILURE: {} not backed up", broken.name));
    assert_contains(&report, "RETENTION: 1 archive removed");
    let saved = output(&mut place.program(&["report", "--json"])).expect_status(0);
    assert_eq!(saved.json(), json);
    // The control: a run of the third stack prunes it.
    output(&mut place.program(&["run", &third.name])).expect_status(0);
    assert!(!place.stored(&third.name)[0].contains(&old_time));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn only_the_owner_can_read_archives_and_none_is_overwritten() {
    let place = Place::new();
    let stack = place.stack("web");
    place.config(json!([stack.name]), json!({}));
    // Several runs start within one second.
    for _ in 0..4 {
        place.run().expect_status(0);
    }
    let stored = place.stored(&stack.name);
    assert_eq!(stored.len(), 4, "{stored:?}");
    let listed = output(&mut place.program(&["list", "--json"])).items("archives");
    let complete = |archive: &Value| archive["complete"] == true;
    assert!(listed.as_array().unwrap().iter().all(complete), "{listed}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let dir = place.store().join(&stack.name);
    for name in &stored {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    for dir in [&place.store(), &dir, &place.state()] {
        assert_eq!(mode(dir), 0o700, "{}", dir.display());
    }
    assert_eq!(mode(&place.state().join("last-run.json")), 0o600);
    // An existing store keeps its mode.
    fs::set_permissions(place.store(), fs::Permissions::from_mode(0o750)).unwrap();
    place.run().expect_status(0);
    assert_eq!(mode(&place.store()), 0o750);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn excluded_files_and_caches_are_left_out_and_counted() {
    let place = Place::new();
    let stack = place.stack("redis");
    stack.up();
    let files = [
        "logs/a.log",
        "logs/keep.log",
        "data/tmp/x",
        "tmp/y",
        "cache/big",
        "cache/CACHEDIR.TAG",
        "fake/CACHEDIR.TAG",
        "fake/file",
    ];
    for file in files {
        let path = stack.dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n";
    fs::write(stack.dir.join("cache/CACHEDIR.TAG"), tag).unwrap();
    stack.exec(
        "cache",
        &["sh", "-c", "mkdir /data/tmp; touch /data/tmp/x /data/x.log"],
    );
    let exclude = ["*.log", "!keep.log", "/tmp/"];
    place.config(
        json!([{"name": stack.name, "exclude": exclude, "excludeCaches": true}]),
        json!({"defaults": {"exclude": ["nothing-of-this-name"]}}),
    );
    let json = place.run().expect_status(0).json();
    let members = members(&place.archive(&stack.name));
    let volume = format!("{0}.volumes/{0}_data", stack.name);
    let has = |path: &str| members.iter().any(|member| member == path);
    let in_stack = |path: &str| has(&format!("{}/{path}", stack.name));
    for left_out in ["logs/a.log", "tmp/", "tmp/y", "cache/big"] {
        assert!(!in_stack(left_out), "{left_out} in {members:#?}");
    }
    for kept in [
        "logs/keep.log",
        "data/tmp/x",
        "cache/",
        "cache/CACHEDIR.TAG",
        "fake/file",
    ] {
        assert!(in_stack(kept), "{kept} not in {members:#?}");
    }
    // Patterns are also relative to the root of each volume.
    for left_out in ["tmp/", "x.log"] {
        assert!(!has(&format!("{volume}/{left_out}")), "{members:#?}");
    }
    assert!(has(&format!("{volume}/")));
    // logs/a.log, tmp/, cache/big; and tmp/ and x.log of the volume.
    assert_eq!(stack.outcome(&json)["archive"]["excludedCount"], 5);
    let report = output(&mut place.program(&["report"])).stdout;
    assert_contains(&report, "5 excluded");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_asks_compose_twice_and_the_engine_by_its_socket() {
    let place = Place::new();
    let stack = place.stack("web");
    place.config(json!([stack.name]), json!({}));
    let spy = place.spy("");
    let run = || {
        spy.clear();
        output(spy.watch(&mut place.program(&["run"]))).expect_status(0);
        let calls = spy.calls();
        let count = |start: &str| calls.iter().filter(|call| call.starts_with(start)).count();
        // Only as commands these have options.
        assert_eq!(count("volume ls --"), 0, "{calls:#?}");
        // The control: the spy sees that they are asked for.
        assert!(count("volume ls") >= 2, "{calls:#?}");
        count("compose")
    };
    // Once for the plan, and once right before a stop: the file may have changed.
    assert_eq!(run(), 2);
}
