//! Real stacks, restored after changes and after their removal.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use crate::common::disk::Disk;
use crate::common::engine::Engine;
use crate::common::kill_points::{if_complete, kill_points};
use crate::common::mixed::Mixed;
use crate::common::scene::{at_call, start_times};
use crate::common::shop::{RUNNING, Shop};
use crate::common::{PROGRAM, Place, Stack, docker, output, succeed, wait_until};
use age::secrecy::ExposeSecret as _;
use serde_json::{Value, json};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_changed_stack_is_restored_in_place() {
    let shop = Shop::new();
    let ids = shop.stack.ids();
    shop.spoil();
    assert!(shop.is_spoilt());
    // Without a terminal, a restore needs `--yes`.
    let refused = shop.restore(&[]).expect_status(1);
    assert!(refused.stderr.contains("give --yes"), "{}", refused.stderr);
    let shown = shop.restore(&["--dry-run"]).expect_status(0);
    assert!(shown.stdout.contains("replaces"), "{}", shown.stdout);
    assert!(shop.is_spoilt());
    let json: Value =
        serde_json::from_str(&shop.restore(&["--yes", "--json"]).expect_status(0).stdout).unwrap();
    assert_eq!(json["services"], json!(["app", "cache", "db"]));
    assert!(shop.is_restored());
    assert_eq!(shop.running(), RUNNING);
    // The containers were not recreated, because their configuration had not
    // changed.
    assert_eq!(shop.stack.ids(), ids);
    assert_eq!(shop.stack.read("uploads/.migrations"), "migrate\n");
    shop.assert_no_traces("restored");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn keep_old_keeps_the_replaced_trees_and_the_compose_file_is_restored() {
    let shop = Shop::new();
    let greeting = shop.greeting();
    shop.spoil();
    let compose = shop.stack.dir.join("compose.yaml");
    let changed = shop
        .stack
        .read("compose.yaml")
        .replace("${GREETING}", "changed");
    fs::write(&compose, changed).unwrap();
    shop.stack.up();
    assert_eq!(shop.greeting(), "changed");
    shop.restore(&["--yes", "--keep-old"]).expect_status(0);
    assert!(shop.is_restored());
    assert_eq!(shop.greeting(), greeting);
    let kept = shop.place.beside(&shop.trees());
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(
        kept.iter().any(|old| old.join("uploads/new").exists()),
        "{kept:?}"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_removed_stack_is_restored_with_its_volume_labels() {
    let shop = Shop::new();
    let labels = || shop.stack.inspect_volume("db", "{{json .Labels}}");
    let before = labels();
    assert!(before.contains("kept.by"), "{before}");
    shop.stack.remove();
    shop.restore(&["--yes"]).expect_status(0);
    assert!(shop.is_restored());
    assert_eq!(shop.running(), RUNNING);
    assert_eq!(labels(), before);
    shop.assert_no_traces("restored");
    assert_compose_takes_it(&shop.stack, &["db", "cache"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn the_archived_number_of_replicas_is_restored() {
    let place = Place::new();
    let stack = place.stack("profiles");
    stack.scale("worker=2");
    let ran = ["always:running", "worker:running", "worker:running"];
    assert_eq!(stack.running(), ran);
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    for now in ["worker=4", "worker=0"] {
        stack.scale(now);
        assert_ne!(stack.running(), ran);
        let mut restore = place.program(&["restore", &stack.name, "--yes"]);
        output(&mut restore).expect_status(0);
        assert_eq!(stack.running(), ran, "{now}");
    }
}

/// Checks that Compose recreates nothing and warns about nothing.
#[track_caller]
fn assert_compose_takes_it(stack: &Stack, services: &[&str]) {
    let ids = || services.iter().map(|service| stack.container(service));
    let before: Vec<String> = ids().collect();
    let up = || {
        let up = [&["up", "--detach", "--wait"], services].concat();
        output(&mut stack.compose(&up)).expect_status(0).stderr
    };
    assert_eq!(up(), "");
    assert!(ids().eq(before));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn volumes_and_binds_are_restored_after_changes_after_removal_and_from_a_pipe() {
    let mixed = Mixed::new();
    let volumes = || {
        let format = "{{json .Labels}} {{json .Options}} {{.Driver}}";
        ["data", "repos"].map(|volume| mixed.stack.inspect_volume(volume, format))
    };
    let before = volumes();
    assert!(before[0].contains("kept.by") && before[1].contains("device"));
    mixed.change();
    mixed.assert_changed("before");
    mixed.restore(&["--yes"]).expect_status(0);
    mixed.assert_archived("over what had changed");
    mixed
        .place
        .assert_no_restore(&mixed.trees(), "over what had changed");
    mixed.remove();
    mixed.assert_gone("before");
    mixed.restore(&["--yes"]).expect_status(0);
    mixed.assert_archived("over nothing");
    assert_eq!(volumes(), before);
    assert_compose_takes_it(&mixed.stack, &["forge"]);
    // The control: Compose warns about a volume that it did not create.
    let data = format!("{}_data", mixed.stack.project);
    output(&mut mixed.stack.compose(&["down", "--timeout", "1"])).expect_status(0);
    docker(["volume", "rm", &data]);
    docker(["volume", "create", &data]);
    let up = output(&mut mixed.stack.compose(&["create"]));
    assert!(
        up.stderr.contains("was not created by Docker Compose"),
        "{}",
        up.stderr
    );
    mixed.remove();
    docker(["volume", "rm", &data]);
    // The archive can come from a pipe.
    let archive = mixed.place.archive(&mixed.stack.name);
    let restore_from = |writer: &str, options: &str| {
        let mut shell = Command::new("bash");
        let reader = "\"$PROGRAM\" -c \"$CONFIG\" restore - --yes --allow-volume-options";
        shell.args([
            "-c",
            &format!("set -o pipefail; {writer} | {reader} {options}"),
        ]);
        shell.env("ARCHIVE", &archive).env("PROGRAM", PROGRAM);
        shell.env("CONFIG", mixed.place.path("config.json"));
        output(&mut shell)
    };
    restore_from("cat \"$ARCHIVE\"", "").expect_status(0);
    mixed.assert_archived("from a pipe");
    mixed.place.assert_no_restore(&mixed.trees(), "from a pipe");
    // Several archives in one pipe are refused, and one that is encrypted and lacks its end.
    mixed.change();
    let ids = mixed.stack.ids();
    let starts = start_times(&mixed.stack);
    let key = age::x25519::Identity::generate();
    let key_file = mixed.place.path("key.txt");
    fs::write(&key_file, key.to_string().expose_secret()).unwrap();
    let identity = format!("--identity {}", key_file.display());
    // Zeros may follow an archive. So the last piece is behind all that is unpacked.
    let padded = mixed.place.path("padded.tar");
    fs::copy(&archive, &padded).unwrap();
    let file = fs::File::options().write(true).open(&padded).unwrap();
    file.set_len(fs::metadata(&archive).unwrap().len() + 200_000)
        .unwrap();
    let export = format!(
        "\"$PROGRAM\" -c \"$CONFIG\" export {} -r {}",
        padded.display(),
        key.to_public()
    );
    for (writer, options, reason) in [
        (
            "cat \"$ARCHIVE\" \"$ARCHIVE\"",
            "",
            "data follows the end of the archive on standard input: give one archive alone",
        ),
        (
            &format!("{export} | head -c -1"),
            &identity,
            "the archive on standard input",
        ),
    ] {
        let refused = restore_from(writer, options).expect_status(1);
        for said in [reason, "nothing was restored, all is as it was"] {
            assert!(refused.stderr.contains(said), "{}", refused.stderr);
        }
        mixed.assert_changed(reason);
        assert_eq!(mixed.stack.ids(), ids);
        assert_eq!(start_times(&mixed.stack), starts);
        mixed.place.assert_no_restore(&mixed.trees(), reason);
    }
    restore_from(&export, &identity).expect_status(0);
    mixed.assert_archived("encrypted, from a pipe");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_that_fails_leaves_everything_as_it_was() {
    let shop = Shop::new();
    shop.spoil();
    let ids = shop.stack.ids();
    // The data of one member is damaged.
    let archive = shop.place.archive(&shop.stack.name);
    let good = fs::read(&archive).unwrap();
    let mut damaged = good.clone();
    let picture = b"first picture";
    let at = good
        .windows(picture.len())
        .rposition(|data| data == picture);
    damaged[at.unwrap()] = b'w';
    fs::write(&archive, damaged).unwrap();
    let failed = shop.restore(&["--yes"]).expect_status(1);
    let said = format!("{}/uploads/picture: its data is damaged", shop.stack.name);
    assert!(failed.stderr.contains(&said), "{}", failed.stderr);
    assert!(shop.is_spoilt());
    assert_eq!(shop.stack.ids(), ids);
    shop.assert_no_traces("damaged data");
    // The control: with `--allow-damaged` the archive is restored.
    shop.restore(&["--yes", "--allow-damaged"]).expect_status(0);
    assert_eq!(shop.stack.read("uploads/picture"), "wirst picture\n");
    shop.spoil();
    // The restore fails while unpacking.
    let mut damaged = good.clone();
    let at = good.len() / 2 / 512 * 512;
    damaged[at..at + 200_000].fill(b'x');
    fs::write(&archive, damaged).unwrap();
    let failed = shop.restore(&["--yes", "--allow-damaged"]).expect_status(1);
    assert!(
        failed.stderr.contains("all is as it was"),
        "{}",
        failed.stderr
    );
    assert!(shop.is_spoilt());
    assert_eq!(shop.stack.ids(), ids);
    shop.assert_no_traces("damaged archive");
    // The restore fails when it starts the stack.
    fs::write(&archive, good).unwrap();
    let hook = "case \"$*\" in *--no-start*) echo 'no such thing' >&2; exit 1;; esac";
    let mut program = shop.place.program(&["restore", &shop.stack.name, "--yes"]);
    let failed = output(shop.place.spy(hook).watch(&mut program)).expect_status(1);
    assert!(failed.stderr.contains("no such thing"), "{}", failed.stderr);
    assert!(shop.is_spoilt());
    assert_eq!(shop.running(), RUNNING);
    shop.assert_no_traces("failed start");
    // The control: without the cause of the failure, the restore succeeds.
    shop.restore(&["--yes"]).expect_status(0);
    assert!(shop.is_restored());
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_killed_at_any_docker_call_is_wholly_old_or_wholly_new() {
    let shop = Shop::new();
    let (mut old, mut new, mut halfway) = (0, 0, 0);
    for n in kill_points() {
        if !shop.is_spoilt() {
            shop.spoil();
        }
        let spy = shop.place.spy(&at_call(n, "kill -9 $PARENT; exit 1"));
        spy.clear();
        let mut program = shop.place.program(&["restore", &shop.stack.name, "--yes"]);
        let ended = output(spy.watch(&mut program));
        let point = format!("killed at call {n}: {:?}", spy.calls().last());
        if ended.status != -1 {
            ended.expect_status(0);
            assert!(n > 8, "{point}");
            break;
        }
        halfway += usize::from(!shop.place.beside(&shop.trees()).is_empty());
        output(&mut shop.place.program(&["recover"])).expect_status(0);
        assert_eq!(shop.running(), RUNNING, "{point}");
        let (is_old, is_new) = (shop.is_spoilt(), shop.is_restored());
        assert!(is_old != is_new, "{point}");
        (old, new) = (old + usize::from(is_old), new + usize::from(is_new));
        shop.assert_no_traces(&point);
    }
    assert!(shop.is_restored());
    let least = if_complete(4);
    assert!(old >= least && halfway >= least, "{old} {new} {halfway}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn missing_images_are_named_and_nothing_is_touched() {
    let place = Place::new();
    let stack = place.stack("web");
    let image = format!("{}-image:1", stack.name);
    docker(["tag", "docker-stack-backup/busybox:1", &image]);
    let compose =
        format!("services: {{one: {{image: '{image}', command: sleep infinity, init: true}}}}\n");
    let _ = fs::remove_file(stack.dir.join("docker-compose.override.yml"));
    fs::write(stack.dir.join("docker-compose.yml"), compose).unwrap();
    stack.up();
    place.config(json!([{"name": stack.name}]), json!({}));
    place.run().expect_status(0);
    output(&mut stack.compose(&["down", "--timeout", "1"])).expect_status(0);
    docker(["rmi", &image]);
    let failed = output(&mut place.program(&["restore", &stack.name, "--yes"])).expect_status(1);
    assert!(failed.stderr.contains(&image), "{}", failed.stderr);
    output(&mut place.program(&["restore", &stack.name, "--yes", "--no-start"])).expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_is_restored_on_another_engine() {
    let place = Place::new();
    let stack = place.stack("ordered");
    // The stack gets a volume in addition to its binds.
    let compose = stack
        .read("compose.yaml")
        .replace("./data:/data", "kept:/data");
    fs::write(
        stack.dir.join("compose.yaml"),
        compose + "\nvolumes:\n  kept:\n",
    )
    .unwrap();
    stack.up();
    stack.exec("app", &["sh", "-c", "echo kept >/data/row"]);
    place.config(json!([{"name": stack.name}]), json!({}));
    place.run().expect_status(0);
    stack.remove();
    let engine = Engine::start(&place);
    assert_eq!(engine.states(&stack), [""; 0]);
    let mut restore = place.program(&["restore", &stack.name, "--yes"]);
    output(restore.env("DOCKER_HOST", engine.host())).expect_status(0);
    let mut running = engine.states(&stack);
    running.retain(|state| state.ends_with(":running"));
    assert_eq!(running, ["app:running", "db:running"]);
    let name = format!("{}-app-1", stack.project);
    let row = output(&mut engine.docker(&["exec", &name, "cat", "/data/row"])).expect_status(0);
    assert_eq!(row.stdout, "kept\n");
    // The one-shot had ended, and was not run again.
    let starts = stack.read("log/starts");
    assert_eq!(starts.matches("migrate").count(), 1, "{starts}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn databases_and_mixed_data_are_restored_on_another_engine() {
    let (mut shop, mut mixed) = (Shop::new(), Mixed::new());
    shop.stack.remove();
    mixed.remove();
    let engine = Engine::start(&mixed.place);
    for stack in [&mut shop.stack, &mut mixed.stack] {
        stack.host = Some(engine.host());
    }
    let restore = |place: &Place, stack: &Stack| {
        let mut restore = place.program(&["restore", &stack.name, "--yes"]);
        output(restore.env("DOCKER_HOST", engine.host()))
    };
    // Without the image the restore names it, and leaves nothing behind.
    let failed = restore(&shop.place, &shop.stack).expect_status(1);
    let missing = "docker-stack-backup/debian:1 of service db";
    assert!(failed.stderr.contains(missing), "{}", failed.stderr);
    assert!(!shop.stack.dir.exists());
    engine.load_image("docker-stack-backup/debian:1");
    restore(&shop.place, &shop.stack).expect_status(0);
    assert!(shop.is_restored());
    assert_eq!(shop.running(), RUNNING);
    shop.assert_no_traces("on another Engine");
    restore(&mixed.place, &mixed.stack).expect_status(0);
    mixed.assert_archived("on another Engine");
    assert_compose_takes_it(&shop.stack, &["db", "cache"]);
    assert_compose_takes_it(&mixed.stack, &["forge"]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_diff_lists_directory_and_volume_differences_and_changes_nothing() {
    let shop = Shop::new();
    let name = &shop.stack.name;
    shop.restore(&["--yes", "--no-start"]).expect_status(0);
    let same = shop.restore(&["--diff", "--json"]).expect_status(0).json();
    assert_eq!(same["differences"], json!([]));
    assert!(same["sameCount"].as_u64().unwrap() > 900, "{same}");
    shop.assert_no_traces("after a diff");
    fs::remove_file(shop.stack.dir.join("uploads/picture")).unwrap();
    fs::write(shop.stack.dir.join("uploads/new"), "new").unwrap();
    shop.stack.compose(&["down"]).status().unwrap();
    let cache = format!("{}_cache", shop.stack.project);
    docker(["volume", "rm", &cache]);
    let text = shop.restore(&["--diff"]).expect_status(2).stdout;
    for line in [
        format!("+ {name}/uploads/new"),
        format!("- {name}/uploads/picture"),
        format!("- {name}.volumes/{cache}/"),
        format!("- {name}.volumes/{cache}/dump.rdb"),
    ] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
    let database = format!("{}_db", shop.stack.project);
    shop.restore(&["--diff", "--only", &database])
        .expect_status(0);
    // A second diff shows the same.
    assert_eq!(shop.restore(&["--diff"]).expect_status(2).stdout, text);
    // A diff also compares an archive file with a directory.
    let archive = shop.place.archive(name);
    let archive = archive.to_str().unwrap();
    let to = shop.place.path("out");
    let to = to.to_str().unwrap();
    let restore = |more: &[&str]| {
        output(
            &mut shop
                .place
                .program(&[&["restore", archive, "--to", to], more].concat()),
        )
    };
    restore(&[]).expect_status(0);
    restore(&["--diff"]).expect_status(0);
    fs::write(format!("{to}/{name}/compose.yaml"), "").unwrap();
    let text = restore(&["--diff"]).expect_status(2).stdout;
    assert!(
        text.starts_with(&format!("~ {name}/compose.yaml: size ")),
        "{text}"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_announces_that_excluded_files_will_be_removed() {
    let place = Place::new();
    let stack = place.stack("web");
    fs::create_dir(stack.dir.join("cache")).unwrap();
    fs::write(stack.dir.join("cache/file"), "x").unwrap();
    let restore = |options: &[&str]| {
        output(&mut place.program(&[&["restore", stack.name.as_str()], options].concat()))
    };
    let told = |shown: &str| shown.contains("patterns excluded");
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    assert!(!told(&restore(&["--dry-run"]).expect_status(0).stdout));
    fs::remove_dir_all(place.store().join(&stack.name)).unwrap();
    let excluding = json!([{"name": stack.name, "exclude": ["cache/"]}]);
    place.config(excluding, json!({}));
    place.run().expect_status(0);
    assert!(told(&restore(&["--dry-run"]).expect_status(0).stdout));
    let differs = restore(&["--diff"]).expect_status(2).stdout;
    assert!(
        differs.contains(&format!("+ {}/cache/file\n", stack.name)),
        "{differs}"
    );
    restore(&["--yes", "--keep-old"]).expect_status(0);
    assert!(!stack.dir.join("cache").exists());
    let beside = fs::read_dir(stack.dir.parent().unwrap()).unwrap();
    let kept = beside.map(|item| item.unwrap().path().join("cache/file"));
    assert_eq!(kept.filter(|path| path.exists()).count(), 1);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_refuses_targets_with_mounts_or_used_by_other_containers() {
    let place = Place::new();
    let stack = place.stack("web");
    let page = stack.dir.join("html/page");
    fs::write(&page, "archived").unwrap();
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    fs::write(&page, "now").unwrap();
    let ids = stack.ids();
    let refused = |said: &str| {
        let mut restore = place.program(&["restore", &stack.name, "--yes"]);
        let refused = output(&mut restore).expect_status(1);
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
        // The stack was not stopped either.
        assert!(!refused.stderr.contains("stopping"), "{}", refused.stderr);
        assert_eq!(stack.ids(), ids);
        assert_eq!(fs::read_to_string(&page).unwrap(), "now");
        place.assert_no_restore(std::slice::from_ref(&stack.dir), said);
    };
    let disk = Disk::new(&place, "stacks/media", 20);
    fs::write(disk.path.join("film"), "only here").unwrap();
    let media = stack.dir.join("media of 2026");
    fs::create_dir(&media).unwrap();
    succeed(
        "mount",
        [
            OsStr::new("--move"),
            disk.path.as_os_str(),
            media.as_os_str(),
        ],
    );
    refused("is mounted within");
    assert_eq!(fs::read_to_string(media.join("film")).unwrap(), "only here");
    succeed(
        "mount",
        [
            OsStr::new("--move"),
            media.as_os_str(),
            disk.path.as_os_str(),
        ],
    );
    // Another container mounts the data, for example a proxy that reads
    // certificates. It may be paused.
    let reader = format!("{}-reader", stack.name);
    let bind = format!("{}:/certificates:ro", stack.dir.join("html").display());
    let image = "docker-stack-backup/busybox:1";
    let run = [
        "run", "--detach", "--init", "--name", &reader, "--volume", &bind, image,
    ];
    docker(run.iter().chain(&["sleep", "infinity"]));
    refused(&format!("container {reader} runs and mounts"));
    docker(["pause", &reader]);
    refused(&format!("container {reader} is paused and mounts"));
    docker(["rm", "--force", &reader]);
    // The control: without the cause of the failure, the restore succeeds.
    output(&mut place.program(&["restore", &stack.name, "--yes"])).expect_status(0);
    assert_eq!(fs::read_to_string(&page).unwrap(), "archived");
}

/// `/data` is an anonymous volume. With the file `/data/broken` the service is
/// unhealthy.
const ANONYMOUS: &str = "
services:
  db:
    image: docker-stack-backup/busybox:1
    command: sleep infinity
    init: true
    environment: {VERSION: '1'}
    volumes: [/data]
    healthcheck:
      test: [CMD, test, '!', -e, /data/broken]
      interval: 200ms
      retries: 1
  web:
    image: docker-stack-backup/busybox:1
    command: sleep infinity
    init: true
";

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_failed_or_killed_restore_keeps_anonymous_volumes_with_their_services() {
    let place = Place::new();
    let stack = place.stack("ordered");
    let compose = stack.dir.join("compose.yaml");
    fs::write(&compose, ANONYMOUS).unwrap();
    stack.up();
    place.config(json!([{"name": stack.name, "startTimeout": 10}]), json!({}));
    place.run().expect_status(0);
    // The running version is newer, so the restore recreates its containers.
    let newer = ANONYMOUS.replace("VERSION: '1'", "VERSION: '2'") + "    stop_grace_period: 1s\n";
    fs::write(&compose, &newer).unwrap();
    stack.up();
    stack.exec(
        "db",
        &["sh", "-c", "echo kept >/data/row; touch /data/broken"],
    );
    let volume = || {
        let id = stack.container("db");
        docker([
            "inspect",
            "--format",
            "{{range .Mounts}}{{.Name}}{{end}}",
            &id,
        ])
    };
    let before = volume();
    wait_until("it is unhealthy", || {
        let id = stack.container("db");
        docker(["inspect", "--format", "{{.State.Health.Status}}", &id]) == "unhealthy"
    });
    let assert_as_it_was = |point: &str| {
        assert_eq!(volume(), before, "{point}");
        assert_eq!(stack.exec("db", &["cat", "/data/row"]), "kept", "{point}");
        assert_eq!(
            stack.exec("db", &["sh", "-c", "echo $VERSION"]),
            "2",
            "{point}"
        );
        assert_eq!(fs::read_to_string(&compose).unwrap(), newer, "{point}");
        assert_eq!(stack.states(), ["db:running", "web:running"], "{point}");
        place.assert_no_restore(std::slice::from_ref(&stack.dir), point);
    };
    let mut restore = place.program(&["restore", &stack.name, "--yes"]);
    let failed = output(&mut restore).expect_status(1);
    assert!(
        failed.stderr.contains("is not healthy"),
        "{}",
        failed.stderr
    );
    assert_as_it_was("it failed");
    // The restore is killed after it created the new containers.
    let hook = "case \"$*\" in *--no-start*) docker \"$@\"; kill -9 $PARENT; exit 1;; esac";
    let mut restore = place.program(&["restore", &stack.name, "--yes"]);
    output(place.spy(hook).watch(&mut restore)).expect_status(-1);
    assert_eq!(stack.states(), ["db:created", "web:created"]);
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_as_it_was("it was killed");
    // The control: without the file the restore succeeds.
    stack.exec("db", &["rm", "/data/broken"]);
    output(&mut place.program(&["restore", &stack.name, "--yes"])).expect_status(0);
    assert_eq!(stack.exec("db", &["sh", "-c", "echo $VERSION"]), "1");
    assert_eq!(volume(), before);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_uses_the_compose_and_env_files_recorded_in_the_archive() {
    let place = Place::new();
    let stack = place.stack("ordered");
    let rename = |from: &str, to: &str| {
        fs::rename(stack.dir.join(from), stack.dir.join(to)).unwrap();
    };
    rename("compose.yaml", "base.yaml");
    let more = "services: {db: {environment: {SITE: '${SITE}'}}}\n";
    fs::write(stack.dir.join("production.yaml"), more).unwrap();
    let env = place.path("env.production");
    fs::write(&env, "SITE=production\n").unwrap();
    let files = ["base.yaml", "production.yaml"];
    let ignored = json!({
        "name": stack.name, "files": files, "envFiles": [env], "ignoreBinds": [env],
    });
    place.config(json!([ignored]), json!({}));
    let options = ["--file", files[0], "--file", files[1], "--env-file"];
    let options = [&options[..], &[env.to_str().unwrap()]].concat();
    let up = [&options[..], &["up", "--detach", "--wait", "db", "app"]].concat();
    output(&mut stack.compose(&up)).expect_status(0);
    place.run().expect_status(0);
    let archive = place.archive(&stack.name);
    let down = [&options[..], &["down", "--timeout", "1"]].concat();
    output(&mut stack.compose(&down)).expect_status(0);
    fs::remove_dir_all(&stack.dir).unwrap();
    // The restore works without any configured stack.
    place.config(json!([]), json!({}));
    let mut restore = place.program(&["restore", archive.to_str().unwrap(), "--yes"]);
    let kept = fs::read(&env).unwrap();
    fs::remove_file(&env).unwrap();
    let refused = output(&mut restore).expect_status(1);
    assert!(
        refused.stderr.contains("env.production does not exist"),
        "{}",
        refused.stderr
    );
    fs::write(&env, kept).unwrap();
    output(&mut restore).expect_status(0);
    let id = docker([
        "ps",
        "--quiet",
        "--filter",
        &format!("name={}-db", stack.project),
    ]);
    assert_eq!(
        docker(["exec", &id, "sh", "-c", "echo $SITE"]),
        "production"
    );
    output(&mut stack.compose(&down)).expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_whose_restore_cannot_be_undone_is_reported_down() {
    let place = Place::new();
    let stack = place.stack("ordered");
    stack.up();
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    // All Compose commands of the restore fail, and no container can be
    // started.
    let hook = "case \"$*\" in *--no-start*|*'start '*) echo 'no such thing' >&2; exit 1;; esac";
    let mut restore = place.program(&["restore", &stack.name, "--yes"]);
    let restore = place.spy(hook).watch(&mut restore);
    let failed = output(restore).expect_status(3);
    assert!(
        failed.stderr.contains("cannot undo the restore"),
        "{}",
        failed.stderr
    );
    output(&mut place.program(&["recover"])).expect_status(0);
    assert_eq!(stack.running(), ["app:running", "db:running"]);
}
