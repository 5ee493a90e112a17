//! A first configuration of what runs on a host, and one that takes all that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::engine::Engine;
use crate::common::{Ended, PROGRAM, Place, Stack, output};

/// An Engine of its own, with stacks that are found by themselves.
struct Host {
    // Dropped first, while the Engine runs.
    stacks: Vec<Stack>,
    engine: Engine,
    place: Place,
}

impl Host {
    fn new() -> Host {
        let place = Place::new();
        let engine = Engine::start(&place);
        Host {
            stacks: Vec::new(),
            engine,
            place,
        }
    }

    /// Makes a stack with a volume, a bind and a database, by name of its image at least.
    fn start(&mut self, dir: &str, project: &str, file: &str) -> PathBuf {
        self.start_with_labels(dir, project, file, "{}")
    }

    fn start_with_labels(&mut self, dir: &str, project: &str, file: &str, labels: &str) -> PathBuf {
        let dir = self.place.path(dir);
        fs::create_dir_all(dir.join("inside")).unwrap();
        let outside = self.place.path("outside");
        fs::create_dir_all(&outside).unwrap();
        let compose = format!(
            "services:\n  db:\n    image: docker-stack-backup/busybox:1\n    command: sleep 1000000\n    \
             init: true\n    labels: {labels}\n    volumes: [\"data:/data\", \"./inside:/inside\", \"{}:/outside\"]\n\
             volumes:\n  data:\n",
            outside.display()
        );
        fs::write(dir.join(file), compose).unwrap();
        fs::write(dir.join("inside/file"), "").unwrap();
        let stack = Stack {
            name: project.to_owned(),
            project: project.to_owned(),
            dir: dir.clone(),
            host: Some(self.engine.host()),
        };
        stack.up_with(&["--file", file]);
        self.stacks.push(stack);
        dir
    }

    /// The program, with no configuration but what is given.
    fn program(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(PROGRAM);
        command.args(args).env("DOCKER_HOST", self.engine.host());
        output(command.env_remove("DOCKER_STACK_BACKUP_CONFIG"))
    }

    fn with_config(&self, args: &[&str]) -> Ended {
        output(
            self.place
                .program(args)
                .env("DOCKER_HOST", self.engine.host()),
        )
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn init_proposes_what_runs_and_never_overwrites() {
    let mut host = Host::new();
    let web = host.start("stacks/web", "web", "compose.yaml");
    let other = host.start("elsewhere/x", "other", "x.yml");
    let down = host.place.path("stacks/down");
    fs::create_dir(&down).unwrap();
    fs::write(down.join("compose.yaml"), "services: {a: {image: i}}\n").unwrap();
    let (store, state) = (host.place.store(), host.place.state());
    let dirs = ["--backup-dir", text(&store), "--state-dir", text(&state)];
    let init = |more: &[&str]| host.program(&[&["init"], &dirs[..], more].concat());

    let ended = init(&[]).expect_status(0);
    let config = ended.parsed();
    assert_eq!(config["baseDir"], json!(host.place.path("stacks")));
    let expected = json!([
        "down",
        {"name": "other", "path": other, "files": ["x.yml"], "project": "other"},
        "web",
    ]);
    assert_eq!(config["stacks"], expected);
    for note in [
        "# decide: nobody is told when a backup fails",
        "# web: decide: not in the archive: bind mount",
        " B to archive; 1 container to stop",
        " B to archive; nothing runs",
        "is on the same disk as a stack",
    ] {
        assert!(
            ended.stderr.contains(note),
            "{note} is not in:\n{}",
            ended.stderr
        );
    }

    // A file that exists is left alone.
    let file = host.place.path("new/config.json");
    init(&["--output", text(&file)]).expect_status(0);
    let written = fs::read(&file).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), config);
    let refused = init(&["--output", text(&file)]).expect_status(1);
    assert!(
        refused.stderr.contains("never overwritten"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read(&file).unwrap(), written);

    // It is a configuration, and backs up what it names.
    let with_file = |args: &[&str]| host.program(&[&["--config", text(&file)], args].concat());
    with_file(&["check"]).expect_status(0);
    with_file(&["check", "--live"]).expect_status(0);
    let run = with_file(&["run", "--json"]).expect_status(0).json();
    assert_eq!(run["stacks"].as_array().unwrap().len(), 3);

    let nix = init(&["--nix"]).expect_status(0);
    assert!(
        nix.stdout
            .contains("\n      # decide: not in the archive: bind"),
        "{}",
        nix.stdout
    );
    assert!(
        nix.stdout.contains("project = \"other\";"),
        "{}",
        nix.stdout
    );
    assert!(
        web.exists() && !nix.stderr.contains("decide"),
        "{}",
        nix.stderr
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn all_stacks_are_backed_up_and_new_and_gone_ones_are_told() {
    let mut host = Host::new();
    host.start("stacks/web", "web", "compose.yaml");
    host.start("stacks/test", "test-1", "compose.yaml");
    let more = json!({"ignoreProjects": ["test-*"], "retention": {"keepLast": 1}});
    host.place.config(json!("all"), more);
    let run = |host: &Host, status: i32| {
        host.with_config(&["run", "--json"])
            .expect_status(status)
            .json()
    };
    let names = |run: &Value| -> Vec<String> {
        let stacks = run["stacks"].as_array().unwrap().iter();
        stacks
            .map(|stack| stack["stack"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = run(&host, 0);
    assert_eq!(names(&first), ["web"]);
    assert!(!first.to_string().contains("it is new"), "{first}");

    // A new project elsewhere, and one that is gone.
    host.start("elsewhere/x", "other", "compose.yaml");
    let second = run(&host, 0);
    assert_eq!(names(&second), ["other", "web"]);
    assert!(
        second["stacks"][0]["warnings"]
            .to_string()
            .contains("it is new"),
        "{second}"
    );
    assert!(
        !second["stacks"][1]["warnings"]
            .to_string()
            .contains("it is new"),
        "{second}"
    );
    host.stacks[2].remove();
    let third = run(&host, 0);
    assert_eq!(names(&third), ["web"]);
    assert_eq!(third["gone"][0]["stack"], "other", "{third}");
    let report = host.with_config(&["report"]).expect_status(0).stdout;
    assert!(report.contains("other: it is gone"), "{report}");
    assert_eq!(host.place.stored("other").len(), 1);
    assert!(!run(&host, 0).to_string().contains("it is gone"));

    // A project that cannot be backed up is a failure, and no other stack is in its way.
    let store = host.place.path("");
    fs::write(
        store.join("compose.yaml"),
        "services: {a: {image: docker-stack-backup/busybox:1}}\n",
    )
    .unwrap();
    let above = Stack {
        name: "above".to_owned(),
        project: "above".to_owned(),
        dir: store,
        host: Some(host.engine.host()),
    };
    output(&mut above.compose(&["create"])).expect_status(0);
    let fourth = run(&host, 2);
    assert_eq!(names(&fourth), ["web"]);
    assert!(
        fourth["errors"][0]
            .as_str()
            .unwrap()
            .contains("above is not backed up"),
        "{fourth}"
    );
    drop(above);

    // A stack that is listed and ignored is an error.
    host.place
        .config(json!(["web"]), json!({"ignoreProjects": ["w*"]}));
    let refused = host.with_config(&["check"]).expect_status(1);
    assert!(
        refused.stderr.contains("names the stack web"),
        "{}",
        refused.stderr
    );
    host.place
        .config(json!(["web"]), json!({"ignoreProjects": ["x*"]}));
    host.with_config(&["check"]).expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn labels_of_services_set_options_of_their_stack() {
    let mut host = Host::new();
    let labels =
        r#"{docker-stack-backup.exclude: "/inside/file", docker-stack-backup.stop-method: pause}"#;
    host.start_with_labels("stacks/web", "web", "compose.yaml", labels);
    let off = r#"{docker-stack-backup.enable: "false"}"#;
    host.start_with_labels("stacks/off", "off", "compose.yaml", off);
    host.start("stacks/plain", "plain", "compose.yaml");
    // Who publishes an image does not decide what is backed up.
    let engine = |args: &[&str]| output(&mut host.engine.docker(args)).expect_status(0);
    engine(&["create", "--name", "base", "docker-stack-backup/busybox:1"]);
    let label = "LABEL docker-stack-backup.enable=false";
    engine(&[
        "commit",
        "--change",
        label,
        "base",
        "docker-stack-backup/labelled:1",
    ]);
    let dir = host.place.path("stacks/image");
    fs::create_dir(&dir).unwrap();
    let compose = "services: {a: {image: \"docker-stack-backup/labelled:1\", command: sleep 1000000, init: true}}\n";
    fs::write(dir.join("compose.yaml"), compose).unwrap();
    let stack = Stack {
        name: "image".to_owned(),
        project: "image".to_owned(),
        dir,
        host: Some(host.engine.host()),
    };
    stack.up();
    host.stacks.push(stack);
    host.place.config(json!("all"), json!({}));
    let run = host.with_config(&["run", "--json"]).expect_status(0).json();
    let stacks = run["stacks"].as_array().unwrap();
    let of = |name: &str| stacks.iter().find(|stack| stack["stack"] == name);
    assert!(of("off").is_none() && of("image").is_some(), "{run}");
    for (name, is_labelled) in [("web", true), ("plain", false)] {
        let archive = &of(name).unwrap()["archive"];
        assert_eq!(archive["crashConsistent"], is_labelled, "{run}");
        assert_eq!(archive["excludedCount"] == 1, is_labelled, "{run}");
    }
    // What contradicts the configuration is an error, and stops nothing.
    for (options, expected) in [
        (json!({"name": "off"}), "the configuration lists it"),
        (
            json!({"name": "web", "stopMethod": "stop"}),
            "take one of them out",
        ),
    ] {
        host.place.config(json!([options]), json!({}));
        let failed = host.with_config(&["run", "--json"]).expect_status(2).json();
        let failure = failed["stacks"][0]["failures"][0].to_string();
        assert!(failure.contains(expected), "{failed}");
        assert_eq!(failed["stacks"][0]["downtimeMs"], Value::Null);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn without_an_engine_the_stacks_of_the_last_run_are_told_as_failed() {
    let mut host = Host::new();
    host.start("elsewhere/x", "other", "compose.yaml");
    host.place.config(json!("all"), json!({}));
    let away = |args: &[&str]| {
        let mut command = host.place.program(args);
        output(command.env("DOCKER_HOST", "unix:///no/such/engine.sock"))
    };
    // Nothing is known yet.
    away(&["run"]).expect_status(1);
    away(&["check"]).expect_status(0);
    host.with_config(&["run"]).expect_status(0);
    let failed = away(&["run", "--json"]).expect_status(2).json();
    assert_eq!(failed["stacks"][0]["stack"], "other");
    assert_eq!(failed["stacks"][0]["status"], "failed");
    away(&["list"]).expect_status(0);
}
