//! Real stacks, restored over what they became since, and over nothing.

mod common;

use std::fs;
use std::path::PathBuf;

use common::engine::Engine;
use common::scene::at_call;
use common::{Ended, Place, Stack, docker, output};
use serde_json::{Value, json};

/// A shop with rows, keys and uploads, and one archive of it.
struct Shop {
    stack: Stack,
    place: Place,
}

impl Shop {
    fn new() -> Shop {
        let place = Place::new();
        let stack = place.stack("shop");
        let env = format!("GREETING=hello\nAPP_CONTAINER={}-app\n", stack.name);
        fs::write(stack.dir.join(".env"), env).unwrap();
        output(&mut stack.compose(&["up", "--detach", "--wait", "db", "cache", "app"]))
            .expect_status(0);
        place.config(json!([{"name": stack.name}]), json!({}));
        let shop = Shop { stack, place };
        shop.sql(
            "CREATE TABLE orders (id int); INSERT INTO orders SELECT generate_series(1, 1000)",
        );
        shop.redis(&["set", "visitors", "42"]);
        shop.place.run().expect_status(0);
        shop
    }

    fn sql(&self, statement: &str) -> String {
        self.stack
            .exec("db", &["psql", "-U", "postgres", "-qtAc", statement])
    }

    fn redis(&self, command: &[&str]) -> String {
        self.stack
            .exec("cache", &[&["redis-cli"], command].concat())
    }

    fn spoil(&self) {
        self.sql("DROP TABLE orders");
        self.redis(&["del", "visitors"]);
        fs::remove_file(self.stack.dir.join("uploads/picture")).unwrap();
        fs::write(self.stack.dir.join("uploads/new"), "new").unwrap();
    }

    fn is_spoilt(&self) -> bool {
        self.redis(&["exists", "visitors"]) == "0"
            && self.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'orders'") == "0"
            && self.stack.dir.join("uploads/new").exists()
            && !self.stack.dir.join("uploads/picture").exists()
    }

    fn is_restored(&self) -> bool {
        self.redis(&["get", "visitors"]) == "42"
            && self.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'orders'") == "1"
            && self.sql("SELECT sum(id) FROM orders") == "500500"
            && self.stack.read("uploads/picture") == "first picture\n"
            && !self.stack.dir.join("uploads/new").exists()
    }

    fn restore(&self, options: &[&str]) -> Ended {
        let what = [&["restore", self.stack.name.as_str()], options].concat();
        output(&mut self.place.program(&what))
    }

    fn running(&self) -> Vec<String> {
        let mut states = self.stack.states();
        states.retain(|state| state.ends_with(":running"));
        states
    }

    /// Paths beside the stack's directory and its volumes' data.
    fn beside(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.stack.dir.parent().unwrap().to_owned()];
        for volume in ["db", "cache"] {
            let name = format!("{}_{volume}", self.stack.project);
            let mountpoint = docker(["volume", "inspect", "--format", "{{.Mountpoint}}", &name]);
            dirs.push(PathBuf::from(mountpoint).parent().unwrap().to_owned());
        }
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with('.'));
        paths
    }

    #[track_caller]
    fn assert_no_traces(&self, point: &str) {
        assert_eq!(self.beside(), Vec::<PathBuf>::new(), "{point}");
        let left = fs::read_dir(self.place.state().join("restore")).map(Iterator::count);
        assert_eq!(left.unwrap_or(0), 0, "{point}");
        assert_eq!(self.place.journalled(), [""; 0], "{point}");
    }
}

const RUNNING: [&str; 3] = ["app:running", "cache:running", "db:running"];

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_changed_stack_becomes_what_it_was() {
    let shop = Shop::new();
    let ids = shop.stack.ids();
    shop.spoil();
    assert!(shop.is_spoilt());
    // Nobody is there to be asked.
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
    // The same containers: nothing about them had changed.
    assert_eq!(shop.stack.ids(), ids);
    assert_eq!(shop.stack.read("uploads/.migrations"), "migrate\n");
    shop.assert_no_traces("restored");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn what_was_there_is_kept_when_asked_for_and_a_changed_compose_file_comes_back() {
    let shop = Shop::new();
    shop.spoil();
    let compose = shop.stack.dir.join("compose.yaml");
    let changed = shop
        .stack
        .read("compose.yaml")
        .replace("${GREETING}", "changed");
    fs::write(&compose, changed).unwrap();
    shop.stack.up();
    assert_eq!(
        shop.stack.exec("app", &["sh", "-c", "echo $GREETING"]),
        "changed"
    );
    shop.restore(&["--yes", "--keep-old"]).expect_status(0);
    assert!(shop.is_restored());
    assert_eq!(
        shop.stack.exec("app", &["sh", "-c", "echo $GREETING"]),
        "hello"
    );
    let kept = shop.beside();
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(
        kept.iter().any(|old| old.join("uploads/new").exists()),
        "{kept:?}"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_stack_that_is_gone_comes_back_with_its_volumes_as_compose_made_them() {
    let shop = Shop::new();
    let labels = |volume: &str| {
        let name = format!("{}_{volume}", shop.stack.project);
        docker(["volume", "inspect", "--format", "{{json .Labels}}", &name])
    };
    let before = labels("db");
    assert!(before.contains("kept.by"), "{before}");
    output(&mut shop.stack.compose(&["down", "--volumes", "--timeout", "1"])).expect_status(0);
    fs::remove_dir_all(&shop.stack.dir).unwrap();
    shop.restore(&["--yes"]).expect_status(0);
    assert!(shop.is_restored());
    assert_eq!(shop.running(), RUNNING);
    assert_eq!(labels("db"), before);
    shop.assert_no_traces("restored");
    // Compose takes all of it for its own: nothing is made anew or complained of.
    let ids = shop.stack.container("db");
    let up = output(
        &mut shop
            .stack
            .compose(&["up", "--detach", "--wait", "db", "cache"]),
    )
    .expect_status(0);
    assert!(!up.stderr.contains("already exists"), "{}", up.stderr);
    assert_eq!(shop.stack.container("db"), ids);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_that_fails_leaves_everything_as_it_was() {
    let shop = Shop::new();
    shop.spoil();
    let ids = shop.stack.ids();
    // Fails while unpacking.
    let archive = shop.place.archive(&shop.stack.name);
    let good = fs::read(&archive).unwrap();
    let mut damaged = good.clone();
    let at = good.len() / 2 / 512 * 512;
    damaged[at..at + 200_000].fill(b'x');
    fs::write(&archive, damaged).unwrap();
    let failed = shop.restore(&["--yes"]).expect_status(1);
    assert!(
        failed.stderr.contains("all is as it was"),
        "{}",
        failed.stderr
    );
    assert!(shop.is_spoilt());
    assert_eq!(shop.stack.ids(), ids);
    shop.assert_no_traces("damaged archive");
    // Fails when it starts.
    fs::write(&archive, good).unwrap();
    let hook = "case \"$*\" in *--no-start*) echo 'no such thing' >&2; exit 1;; esac";
    let mut program = shop.place.program(&["restore", &shop.stack.name, "--yes"]);
    let failed = output(shop.place.spy(hook).watch(&mut program)).expect_status(1);
    assert!(failed.stderr.contains("no such thing"), "{}", failed.stderr);
    assert!(shop.is_spoilt());
    assert_eq!(shop.running(), RUNNING);
    shop.assert_no_traces("failed start");
    // The control.
    shop.restore(&["--yes"]).expect_status(0);
    assert!(shop.is_restored());
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_killed_at_any_docker_call_is_wholly_old_or_wholly_new() {
    let shop = Shop::new();
    let (mut old, mut new, mut halfway) = (0, 0, 0);
    for n in 1.. {
        shop.spoil_if_restored();
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
        halfway += usize::from(!shop.beside().is_empty());
        output(&mut shop.place.program(&["recover"])).expect_status(0);
        assert_eq!(shop.running(), RUNNING, "{point}");
        let (is_old, is_new) = (shop.is_spoilt(), shop.is_restored());
        assert!(is_old != is_new, "{point}");
        (old, new) = (old + usize::from(is_old), new + usize::from(is_new));
        shop.assert_no_traces(&point);
    }
    assert!(shop.is_restored());
    assert!(old > 3 && halfway > 3, "{old} {new} {halfway}");
}

impl Shop {
    fn spoil_if_restored(&self) {
        if !self.is_spoilt() {
            self.spoil();
        }
    }
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
fn a_stack_is_restored_on_an_engine_that_has_never_seen_it() {
    let place = Place::new();
    let stack = place.stack("ordered");
    // A volume beside the binds.
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
    output(&mut stack.compose(&["down", "--volumes", "--timeout", "1"])).expect_status(0);
    fs::remove_dir_all(&stack.dir).unwrap();
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
fn what_differs_is_told_of_directory_and_volumes_and_nothing_is_changed() {
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
    // As before: another look tells the same.
    assert_eq!(shop.restore(&["--diff"]).expect_status(2).stdout, text);
    // An archive's file, and a directory.
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
fn what_was_excluded_is_told_to_go() {
    let place = Place::new();
    let stack = place.stack("web");
    fs::create_dir(stack.dir.join("cache")).unwrap();
    fs::write(stack.dir.join("cache/file"), "x").unwrap();
    let restore = |options: &[&str]| {
        output(&mut place.program(&[&["restore", stack.name.as_str()], options].concat()))
    };
    let told = |shown: &str| shown.contains("were left out of the archive by patterns");
    place.config(json!([stack.name]), json!({}));
    place.run().expect_status(0);
    assert!(!told(&restore(&["--dry-run"]).expect_status(0).stdout));
    fs::remove_dir_all(place.store()).unwrap();
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
