//! Stacks restored in place from archives without a manifest, which GNU tar
//! made of their directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::kill_points::{if_complete, kill_points};
use crate::common::scene::{at_call, start_times};
use crate::common::{Ended, PROGRAM, Place, Stack, docker, output, succeed};
use serde_json::json;

const RUNNING: [&str; 2] = ["app:running", "db:running"];

/// A stack whose compose file sets the project name, and two archives of its
/// directory. It has a one-shot, a database, a service that needs both, a
/// service with zero replicas, and a volume outside of the directory.
struct Old {
    stack: Stack,
    place: Place,
    /// Archives with members `NAME/...` and `./...`.
    archives: [PathBuf; 2],
}

impl Old {
    fn new() -> Old {
        let place = Place::new();
        let mut stack = place.stack("ordered");
        stack.project = format!("{}-own", stack.name);
        let compose = stack.read("compose.yaml");
        let compose = compose
            .replace("./data:/data", "kept:/data")
            // The delay lets a service that does not wait for the one-shot start
            // before it.
            .replace("echo migrate", "sleep 1; echo migrate");
        let compose = format!(
            "name: {}\n{compose}\n  spare: {{<<: *service, command: *serve, deploy: {{replicas: 0}}}}\n\
             volumes: {{kept: }}\n",
            stack.project
        );
        fs::write(stack.dir.join("compose.yaml"), compose).unwrap();
        fs::write(stack.dir.join("note"), "old").unwrap();
        stack.up();
        stack.exec("app", &["sh", "-c", "echo archived >/data/row"]);
        place.config(json!([stack.name]), json!({}));
        let archives = ["named.tar", "dotted.tar"].map(|name| place.path(name));
        let [named, dotted] = archives.each_ref().map(|path| path.to_str().unwrap());
        let (parent, dir) = (place.path("stacks"), stack.dir.to_str().unwrap());
        succeed(
            "tar",
            ["-cf", named, "-C", parent.to_str().unwrap(), &stack.name],
        );
        succeed("tar", ["-cf", dotted, "-C", dir, "."]);
        Old {
            stack,
            place,
            archives,
        }
    }

    fn change(&self) {
        fs::write(self.stack.dir.join("note"), "changed").unwrap();
        fs::write(self.stack.dir.join("new"), "").unwrap();
        self.stack
            .exec("app", &["sh", "-c", "echo changed >/data/row"]);
    }

    fn is_changed(&self) -> bool {
        self.stack.read("note") == "changed" && self.stack.dir.join("new").exists()
    }

    fn is_restored(&self) -> bool {
        self.stack.read("note") == "old" && !self.stack.dir.join("new").exists()
    }

    fn row(&self) -> String {
        self.stack.exec("app", &["cat", "/data/row"])
    }

    fn migrations(&self) -> usize {
        self.stack.read("log/starts").matches("migrate").count()
    }

    fn restore_from(&self, archive: &str, options: &[&str]) -> Ended {
        let args = ["restore", &self.stack.name, "--from", archive];
        output(&mut self.place.program(&[&args, options].concat()))
    }

    /// The project's volumes. The directory need not exist.
    fn volumes(&self) -> String {
        let filter = format!("label=com.docker.compose.project={}", self.stack.project);
        docker(["volume", "ls", "--quiet", "--filter", &filter])
    }

    #[track_caller]
    fn assert_no_traces(&self, point: &str) {
        self.place
            .assert_no_restore(std::slice::from_ref(&self.stack.dir), point);
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_plain_tar_is_restored_in_place_and_its_missing_parts_are_reported() {
    let old = Old::new();
    let ids = old.stack.ids();
    let volume = format!("{}_kept", old.stack.project);
    for archive in &old.archives {
        let archive = archive.to_str().unwrap();
        old.change();
        assert!(old.is_changed());
        let shown = old.restore_from(archive, &["--dry-run"]).expect_status(0);
        for said in [
            "the archive has no manifest: which services ran, and from which images, is not known",
            "there is no sums file beside the archive",
            &format!("{volume} is not in the archive and stays as it is"),
            &format!("replaces  {} (", old.stack.dir.display()),
            "starts    what `docker compose up` starts with the restored compose file, except for services that are down now: migrate\n",
        ] {
            assert!(shown.stdout.contains(said), "{said}: {}", shown.stdout);
        }
        let diff = old.restore_from(archive, &["--diff"]).expect_status(2);
        assert!(diff.stdout.contains("note: size 3 -> 7"), "{}", diff.stdout);
        let refused = old.restore_from(archive, &[]).expect_status(1);
        assert!(refused.stderr.contains("give --yes"), "{}", refused.stderr);
        assert!(old.is_changed());
        let json = old.restore_from(archive, &["--yes", "--json"]);
        let json = json.expect_status(0).json();
        assert_eq!(json["services"], json!(["app", "db"]), "{json}");
        assert!(old.is_restored());
        // The volume, which is not in the archive, is unchanged, and the one-shot
        // did not run again.
        assert_eq!(old.row(), "changed");
        assert_eq!(old.migrations(), 1);
        assert_eq!(old.stack.running(), RUNNING);
        assert_eq!(old.stack.ids(), ids);
        old.assert_no_traces(archive);
    }
    // A service with zero replicas in the file keeps the replicas that it was
    // scaled to.
    let scaled = [
        "app:running",
        "db:running",
        "spare:running",
        "spare:running",
    ];
    old.stack.scale("spare=2");
    assert_eq!(old.stack.running(), scaled);
    let archive = old.archives[0].to_str().unwrap();
    old.restore_from(archive, &["--yes"]).expect_status(0);
    assert_eq!(old.stack.running(), scaled);
    let mut rm = old.stack.compose(&["rm", "--stop", "--force", "spare"]);
    output(&mut rm).expect_status(0);
    // The directory in the archive may have another name, and the file name
    // need not end in `.tar`.
    old.change();
    let renamed = old.place.path("other");
    fs::create_dir(&renamed).unwrap();
    let dotted = old.archives[1].to_str().unwrap();
    succeed("tar", ["-xf", dotted, "-C", renamed.to_str().unwrap()]);
    let mut tar = Command::new("tar");
    tar.args(["-cf", "renamed", "other"]);
    output(tar.current_dir(old.place.path(""))).expect_status(0);
    let mut program =
        old.place
            .program(&["restore", &old.stack.name, "--from", "renamed", "--yes"]);
    let restored = output(program.current_dir(old.place.path(""))).expect_status(0);
    let said = "in the archive the directory is called other: is it this stack's?";
    assert!(restored.stderr.contains(said), "{}", restored.stderr);
    assert!(old.is_restored());
    // The control: with the stack's own name there is no such message.
    let named = old.archives[0].to_str().unwrap();
    let shown = old.restore_from(named, &["--dry-run"]).expect_status(0);
    assert!(!shown.stdout.contains("is called"), "{}", shown.stdout);
    // An archive in the store needs no `--from`.
    old.change();
    let dir = old.place.store().join(&old.stack.name);
    fs::create_dir_all(&dir).unwrap();
    let stored = dir.join(format!("{}_20240102_030000.tar", old.stack.name));
    fs::copy(&old.archives[0], stored).unwrap();
    let restore = ["restore", &old.stack.name, "--yes", "--keep-old"];
    output(&mut old.place.program(&restore)).expect_status(0);
    assert!(old.is_restored());
    assert_eq!(old.stack.running(), RUNNING);
    let kept = old.place.beside(std::slice::from_ref(&old.stack.dir));
    assert!(kept.len() == 1 && kept[0].join("new").exists(), "{kept:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_removed_stack_is_started_from_a_plain_tar_as_compose_up_does() {
    let old = Old::new();
    let archive = old.archives[0].to_str().unwrap();
    old.stack.remove();
    // If the start fails, everything that the restore created is removed.
    let hook = "case \"$*\" in *--no-start*) \"$REAL\" \"$@\"; exit 1;; esac";
    let args = ["restore", &old.stack.name, "--from", archive, "--yes"];
    let mut program = old.place.program(&args);
    let failed = output(old.place.spy(hook).watch(&mut program)).expect_status(1);
    let said = "all is as it was";
    assert!(failed.stderr.contains(said), "{}", failed.stderr);
    assert!(!old.stack.dir.exists());
    assert_eq!((old.stack.states(), old.volumes()), (vec![], String::new()));
    old.assert_no_traces("failed start");
    let restored = old.restore_from(archive, &["--yes"]).expect_status(0);
    assert!(old.is_restored());
    assert_eq!(old.stack.running(), RUNNING);
    // The project name is that of the restored file. The one-shot ran to its
    // end before the service that waits for it. The volume is new.
    assert_eq!(old.migrations(), 2);
    let starts = old.stack.read("log/starts");
    let starts: Vec<&str> = starts.lines().skip(3).collect();
    assert_eq!(starts, ["start", "migrate", "start"]);
    let volume = format!("{}_kept did not exist", old.stack.project);
    assert!(restored.stderr.contains(&volume), "{}", restored.stderr);
    let app = old.stack.container("app");
    let rows = succeed("docker", ["exec", &app, "ls", "/data"]);
    assert_eq!(rows, "");
    old.assert_no_traces("restored");
    // With `--no-start` the stack stays down.
    old.stack.remove();
    old.restore_from(archive, &["--yes", "--no-start"])
        .expect_status(0);
    assert!(old.is_restored());
    assert_eq!(old.stack.states(), [""; 0]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_tar_that_cannot_be_started_is_refused_before_the_stop() {
    let old = Old::new();
    let times = start_times(&old.stack);
    let compose = old.stack.read("compose.yaml");
    let archive = old.place.path("unstartable.tar");
    let archive = archive.to_str().unwrap();
    let tar = |compose: &str| {
        fs::write(old.stack.dir.join("compose.yaml"), compose).unwrap();
        succeed(
            "tar",
            ["-cf", archive, "-C", old.stack.dir.to_str().unwrap(), "."],
        );
    };
    // The missing image is that of the one-shot, which is down but needed by
    // others.
    let migrate = "command: sh -c 'sleep 1; echo migrate >>/log/starts'";
    assert!(compose.contains(migrate), "{compose}");
    let away = format!("image: docker-stack-backup/none:1\n    {migrate}");
    let away = compose.replace(migrate, &away);
    tar(&away);
    fs::write(old.stack.dir.join("compose.yaml"), &compose).unwrap();
    let refused = old.restore_from(archive, &["--yes"]).expect_status(1);
    for said in [
        "images are missing on this machine: docker-stack-backup/none:1 of service migrate",
        "pull or load them, or give --no-start",
        "all is as it was",
    ] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    assert_eq!(start_times(&old.stack), times);
    old.assert_no_traces("missing image");
    // The option that the message names works.
    let args = ["--yes", "--no-start"];
    old.restore_from(archive, &args).expect_status(0);
    assert_eq!(old.stack.read("compose.yaml"), away);
    assert_eq!(old.stack.running(), [""; 0]);
    fs::write(old.stack.dir.join("compose.yaml"), &compose).unwrap();
    old.stack.up();
    let times = start_times(&old.stack);
    tar("services: [");
    fs::write(old.stack.dir.join("compose.yaml"), &compose).unwrap();
    let refused = old.restore_from(archive, &["--yes"]).expect_status(1);
    let said = "cannot read the unpacked compose file";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    assert_eq!(start_times(&old.stack), times);
    old.assert_no_traces("broken file");
    // The control: the unmodified archive is restored.
    tar(&compose);
    old.restore_from(archive, &["--yes"]).expect_status(0);
    assert_ne!(start_times(&old.stack), times);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_from_a_tar_killed_at_any_docker_call_is_wholly_old_or_wholly_new() {
    for is_gone in [false, true] {
        let old = Old::new();
        let archive = old.archives[1].to_str().unwrap();
        let (mut undone, mut halfway) = (0, 0);
        for n in kill_points() {
            match is_gone {
                true if old.stack.dir.exists() => old.stack.remove(),
                false if old.is_restored() => old.change(),
                _ => {}
            }
            let spy = old.place.spy(&at_call(n, "kill -9 $PARENT; exit 1"));
            spy.clear();
            let args = ["restore", &old.stack.name, "--from", archive, "--yes"];
            let ended = output(spy.watch(&mut old.place.program(&args)));
            let point = format!("{is_gone}: killed at call {n}: {:?}", spy.calls().last());
            if ended.status != -1 {
                ended.expect_status(0);
                assert!(n > 4, "{point}");
                break;
            }
            halfway += usize::from(
                !old.place
                    .beside(std::slice::from_ref(&old.stack.dir))
                    .is_empty(),
            );
            output(&mut old.place.program(&["recover"])).expect_status(0);
            if is_gone && !old.stack.dir.exists() {
                let left = (old.stack.states(), old.volumes());
                assert_eq!(left, (vec![], String::new()), "{point}");
                undone += 1;
            } else {
                assert_eq!(old.stack.running(), RUNNING, "{point}");
                undone += usize::from(old.is_changed());
                assert!(old.is_changed() != old.is_restored(), "{point}");
            }
            old.assert_no_traces(&point);
        }
        assert!(old.is_restored());
        assert!(undone >= if_complete(3), "{undone}");
        assert!(is_gone || halfway >= if_complete(1), "{halfway}");
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn files_that_are_no_archive_of_the_stack_are_refused_and_nothing_is_touched() {
    let old = Old::new();
    let ids = old.stack.ids();
    old.change();
    let parent = old.place.path("stacks");
    let parent = parent.to_str().unwrap();
    fs::create_dir_all(format!("{parent}/other")).unwrap();
    fs::write(format!("{parent}/other/compose.yaml"), "services: {}").unwrap();
    fs::create_dir_all(format!("{parent}/plain")).unwrap();
    fs::write(format!("{parent}/plain/data"), "").unwrap();
    let name = old.stack.name.as_str();
    let tar = |members: &[&str]| {
        let path = old.place.path("bad.tar");
        let path = path.to_str().unwrap().to_owned();
        succeed("tar", [&["-cf", &path, "-C", parent], members].concat());
        path
    };
    let refuses = |archive: &str, said: &str| {
        let refused = old.restore_from(archive, &["--yes"]).expect_status(1);
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    };
    refuses(
        &tar(&[name, "other"]),
        "several directories with a compose file",
    );
    refuses(&tar(&[name, "plain"]), "something in plain");
    refuses(&tar(&["plain"]), "it has no compose file");
    let good = old.archives[0].to_str().unwrap();
    let bytes = fs::read(good).unwrap();
    let cut = old.place.path("cut.tar");
    // The file ends where the final zero blocks should begin.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 512 * 512 + 512;
    fs::write(&cut, &bytes[..end]).unwrap();
    refuses(cut.to_str().unwrap(), "it may have been cut");
    // The stack must be named, and it must be configured.
    let restore = |args: &[&str]| {
        let mut program = old.place.program(&[&["restore", "--yes"], args].concat());
        output(&mut program).expect_status(1).stderr
    };
    for (args, said) in [
        (&[good][..], "restore STACK --from FILE"),
        (
            &["unknown", "--from", good],
            "no stack unknown is configured",
        ),
        (
            &[good, "--from", good],
            "--from FILE needs the name of a stack",
        ),
        (
            &["web@2024", "--from", good],
            "--from FILE needs the name of a stack",
        ),
    ] {
        let stderr = restore(args);
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let mut shell = Command::new("bash");
    shell.args(["-c", "\"$@\" <\"$ARCHIVE\"", "bash", PROGRAM]);
    let config = old.place.path("config.json");
    shell.args(["--config", config.to_str().unwrap(), "restore", name]);
    shell.args(["--from", "-", "--yes"]).env("ARCHIVE", good);
    let refused = output(&mut shell).expect_status(1);
    assert!(
        refused.stderr.contains("save it to a file first"),
        "{}",
        refused.stderr
    );
    // An archive of another stack is refused.
    let other = old.place.stack("profiles");
    output(&mut other.compose(&["create"])).expect_status(0);
    old.place.config(json!([name, other.name]), json!({}));
    let run = ["run", &other.name];
    output(&mut old.place.program(&run)).expect_status(0);
    let archive = old.place.archive(&other.name);
    refuses(
        archive.to_str().unwrap(),
        &format!("belongs to the stack {}", other.name),
    );
    assert!(old.is_changed());
    assert_eq!((old.stack.ids(), old.row().as_str()), (ids, "changed"));
    assert_eq!(old.stack.running(), RUNNING);
    old.assert_no_traces("refused");
    // The control: the unmodified archive is restored.
    old.restore_from(good, &["--yes"]).expect_status(0);
    assert!(old.is_restored());
}
