//! What belongs to a stack, and what a container can make the program take for it.

use std::fs;
use std::path::Path;

use crate::common::{Ended, Place, Stack, docker, output};
use serde_json::json;

/// Writes a compose file with a service `app` that only waits, and `more` lines.
fn write_app(stack: &Stack, more: &str) {
    let compose = format!(
        "services:\n  app:\n    image: docker-stack-backup/busybox:1\n    \
         command: sleep infinity\n    init: true\n{more}"
    );
    fs::write(stack.dir.join("compose.yaml"), compose).unwrap();
}

fn restore(place: &Place, args: &[&str]) -> Ended {
    output(&mut place.program(&[&["restore"], args].concat()))
}

/// Lines for a compose file whose volume `data` is bound to a directory.
fn bound_volume(device: &Path) -> String {
    format!(
        "volumes:\n  data:\n    driver_opts: {{type: none, o: bind, device: '{}'}}\n",
        device.display()
    )
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_volume_of_another_project_is_neither_archived_nor_replaced() {
    let place = Place::new();
    let (victim, other) = (place.stack("paused"), place.stack("paused"));
    write_app(&victim, "    volumes: ['data:/d']\nvolumes: {data: }\n");
    write_app(&other, "");
    victim.up();
    other.up();
    victim.exec("app", &["sh", "-c", "echo archived >/d/file"]);
    docker(["stop", &victim.container("app")]);
    let volume = format!("{}_data", victim.name);
    let claim = format!("    volumes: ['mine:/x']\nvolumes: {{mine: {{name: {volume}}}}}\n");
    write_app(&other, &claim);
    let run = |options| {
        place.config(json!([options]), json!({}));
        let json = place.run().expect_status(0).json();
        let outcome = other.outcome(&json)["coverage"].to_string();
        let newest = place.stored(&other.name).pop().unwrap();
        let extracted = place.extract(&place.store().join(&other.name).join(newest));
        let member = format!("{}.volumes/{volume}/file", other.name);
        (outcome, extracted.join(member).exists())
    };
    let plain = json!({"name": other.name});
    let included = json!({"name": other.name, "includeVolumes": ["mine"]});
    let (coverage, is_archived) = run(plain.clone());
    let reason = format!("a volume of the project {}", victim.name);
    assert!(coverage.contains(&reason), "{coverage}");
    assert!(!is_archived);
    // The control: asked for, it is archived.
    let (_, is_archived) = run(included.clone());
    assert!(is_archived);

    let file = victim.mountpoint("data").join("file");
    fs::write(&file, "live").unwrap();
    place.config(json!([plain]), json!({}));
    let refused = restore(&place, &[&other.name, "--yes", "--no-start"]).expect_status(1);
    let reason = format!("volume {volume} is one of the project {}", victim.name);
    assert!(refused.stderr.contains(&reason), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), "live");
    place.config(json!([included]), json!({}));
    restore(&place, &[&other.name, "--yes", "--no-start"]).expect_status(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "archived\n");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_symlink_that_a_container_made_leads_neither_a_run_nor_a_restore_to_the_host() {
    let place = Place::new();
    let stack = place.stack("paused");
    let host = place.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("secret"), "secret").unwrap();
    let data = stack.dir.join("data");
    fs::create_dir_all(&data).unwrap();
    let mounts = "    volumes: ['./:/stack', 'data:/d']\n";
    write_app(&stack, &format!("{mounts}{}", bound_volume(&data)));
    stack.up();
    let options = json!({"name": stack.name, "includeVolumes": ["data"]});
    place.config(json!([options]), json!({}));
    place.run().expect_status(0);
    let swap = format!(
        "mv /stack/data /stack/moved && ln -s {} /stack/data",
        host.display()
    );
    stack.exec("app", &["sh", "-c", &swap]);
    // The control: the symlink leads there.
    assert_eq!(fs::read_to_string(data.join("secret")).unwrap(), "secret");
    let why = "a container that can write there may have made it";
    let archives = place.stored(&stack.name).len();
    let failed = place.run().expect_status(2);
    assert!(failed.stderr.contains(why), "{}", failed.stderr);
    assert_eq!(place.stored(&stack.name).len(), archives);
    let refused = restore(&place, &[&stack.name, "--yes"]).expect_status(1);
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(host.join("secret")).unwrap(), "secret");
    assert_eq!(stack.states(), ["app:running"]);
    // Another directory in its place is not what the Engine has mounted.
    stack.exec("app", &["sh", "-c", "rm /stack/data && mkdir /stack/data"]);
    let failed = place.run().expect_status(2);
    let why = "is not the directory that the Engine has mounted from there";
    assert!(failed.stderr.contains(why), "{}", failed.stderr);
    // The control: with the right one, the stack is backed up.
    stack.exec(
        "app",
        &[
            "sh",
            "-c",
            "rmdir /stack/data && mv /stack/moved /stack/data",
        ],
    );
    place.run().expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn compose_is_not_led_to_a_file_of_the_host_by_a_symlink_of_a_container() {
    let place = Place::new();
    let stack = place.stack("paused");
    let foreign = place.path("foreign.env");
    fs::write(&foreign, "TOKEN=of-another-stack\n").unwrap();
    for part in ["part", "data"] {
        fs::create_dir_all(stack.dir.join(part)).unwrap();
    }
    fs::write(stack.dir.join("data/app.env"), "TOKEN=its-own\n").unwrap();
    fs::write(stack.dir.join("part/more.yaml"), "x-more: 1\n").unwrap();
    write_app(
        &stack,
        "    volumes: ['./data:/data', './part:/part']\n    env_file: data/app.env\n\
         include: [part/more.yaml]\n",
    );
    stack.up();
    place.config(json!([stack.name]), json!({}));
    let archived = |word: &str| {
        let newest = place.stored(&stack.name).pop().unwrap();
        let bytes = fs::read(place.store().join(&stack.name).join(newest)).unwrap();
        bytes
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    };
    let plan = output(&mut place.program(&["plan"])).expect_status(0);
    let writer = "can change the compose file or `.env`";
    assert!(plan.stdout.contains(writer), "{}", plan.stdout);
    place.run().expect_status(0);
    assert!(archived("its-own"));
    let swap = format!("ln -sf {} /data/app.env", foreign.display());
    stack.exec("app", &["sh", "-c", &swap]);
    // The control: Compose follows it.
    let config = output(&mut stack.compose(&["config"])).expect_status(0);
    assert!(
        config.stdout.contains("of-another-stack"),
        "{}",
        config.stdout
    );
    let json = place.run().expect_status(0).json();
    let warnings = stack.outcome(&json)["warnings"].to_string();
    let why = "Compose reads a file that is not the stack's";
    assert!(warnings.contains(why), "{warnings}");
    assert!(!archived("of-another-stack"));
    assert_eq!(stack.states(), ["app:running"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_foreign_archive_binds_a_volume_to_a_directory_only_when_allowed_and_shown() {
    let place = Place::new();
    let stack = place.stack("paused");
    let (bound, copy) = (place.path("bound"), place.path("copy.tar"));
    fs::create_dir(&bound).unwrap();
    fs::write(bound.join("file"), "archived").unwrap();
    let mounts = "    volumes: ['data:/d']\n";
    write_app(&stack, &format!("{mounts}{}", bound_volume(&bound)));
    stack.up();
    let options = json!({"name": stack.name, "includeVolumes": ["data"]});
    place.config(json!([options]), json!({}));
    place.run().expect_status(0);
    fs::copy(place.archive(&stack.name), &copy).unwrap();
    output(&mut stack.compose(&["down", "--volumes", "--timeout", "1"])).expect_status(0);
    fs::write(bound.join("file"), "live").unwrap();
    let (from, bound_text) = (copy.to_str().unwrap(), bound.display().to_string());
    let foreign = [&stack.name, "--from", from];
    let refused = restore(&place, &[&foreign[..], &["--yes", "--no-start"]].concat());
    let refused = refused.expect_status(1);
    assert!(
        refused.stderr.contains("--allow-volume-options"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains(&bound_text), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(bound.join("file")).unwrap(), "live");
    let allowed = [&foreign[..], &["--allow-volume-options"]].concat();
    // An archive from the store needs no flag. What is shown is the same.
    for args in [&allowed[..], &[&stack.name]] {
        let shown = restore(&place, &[args, &["--dry-run"]].concat()).expect_status(0);
        for line in [
            format!("replaces  {bound_text} (8 B in 2 members)\n"),
            format!(
                "volume {}_data (driver local, device={bound_text}, o=bind",
                stack.name
            ),
        ] {
            assert!(shown.stdout.contains(&line), "{}", shown.stdout);
        }
    }
    restore(&place, &[&allowed[..], &["--yes", "--no-start"]].concat()).expect_status(0);
    assert_eq!(fs::read_to_string(bound.join("file")).unwrap(), "archived");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_that_can_write_the_compose_file_is_named_everywhere() {
    let place = Place::new();
    let stack = place.stack("paused");
    place.config(json!([stack.name]), json!({}));
    let start = |mount: &str| {
        write_app(&stack, &format!("    volumes: ['{mount}']\n"));
        stack.up();
    };
    let plan = || {
        let plan = output(&mut place.program(&["plan"])).expect_status(0);
        plan.stdout.replace('\n', " ")
    };
    let told_otherwise = || {
        let json = place.run().expect_status(0).json();
        let check = output(&mut place.program(&["check", "--live"])).expect_status(0);
        let warnings = stack.outcome(&json)["warnings"].to_string();
        [warnings, check.stdout.replace('\n', " ")]
    };
    fs::create_dir_all(stack.dir.join("data")).unwrap();
    fs::write(stack.dir.join(".env"), "").unwrap();
    let above = format!("{}:/all", place.path("stacks").display());
    for mount in [
        "./:/stack",
        "./.env:/env",
        "./compose.yaml:/compose",
        &above,
    ] {
        start(mount);
        let text = plan();
        let is_told = text.contains("can change the compose file or `.env`");
        assert!(is_told, "{mount}: {text}");
    }
    for text in told_otherwise() {
        let is_told = text.contains("can change the compose file or `.env`");
        assert!(is_told, "{text}");
    }
    // The controls: one that only reads, and one that has a directory of data.
    for mount in ["./:/stack:ro", "./data:/data"] {
        start(mount);
        let text = plan();
        let is_told = text.contains("can change the compose file");
        assert!(!is_told, "{mount}: {text}");
    }
    for text in told_otherwise() {
        let is_told = text.contains("can change the compose file");
        assert!(!is_told, "{text}");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_container_that_reaches_what_is_unpacked_is_shown_and_needs_consent() {
    let place = Place::new();
    let (stack, manager) = (place.stack("paused"), place.stack("paused"));
    write_app(&stack, "");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    restore(&place, &[&stack.name, "--yes"]).expect_status(0);
    let above = place.path("stacks");
    write_app(
        &manager,
        &format!("    volumes: ['{}:/all']\n", above.display()),
    );
    manager.up();
    let shown = restore(&place, &[&stack.name, "--dry-run"]).expect_status(0);
    assert!(
        shown.stdout.contains("a directory above what is replaced"),
        "{}",
        shown.stdout
    );
    let ids = stack.ids();
    let refused = restore(&place, &[&stack.name, "--yes"]).expect_status(1);
    assert!(
        refused.stderr.contains("--allow-reachable"),
        "{}",
        refused.stderr
    );
    assert_eq!(stack.ids(), ids);
    restore(&place, &[&stack.name, "--yes", "--allow-reachable"]).expect_status(0);
}
