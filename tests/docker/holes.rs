//! What a report tells of mounts that are not archived: each once as new, and nothing
//! that needs no mention.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Place, Stack, output, succeed};
use serde_json::{Value, json};

/// The stack `paused`, with these mounts in addition.
fn stack_with(place: &Place, mounts: &[String]) -> Stack {
    let stack = place.stack("paused");
    mount(&stack, mounts);
    stack
}

fn mount(stack: &Stack, mounts: &[String]) {
    let service = json!({"services": {"app": {"volumes": mounts}}});
    fs::write(stack.dir.join("compose.override.yaml"), service.to_string()).unwrap();
}

fn dir(place: &Place, name: &str) -> PathBuf {
    let dir = place.path(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host.strip_prefix("unix://");
    socket.unwrap_or("/var/run/docker.sock").to_owned()
}

/// Names of the holes that are new, and of the others.
fn holes(coverage: &Value) -> (Vec<&str>, Vec<&str>) {
    let holes = coverage.as_array().unwrap().iter();
    let holes = holes.filter(|mount| mount["archived"] == false && mount["ignored"].is_null());
    let (new, old): (Vec<&Value>, Vec<&Value>) = holes.partition(|hole| hole["isNew"] == true);
    let [new, old] = [new, old].map(|holes| {
        let names = holes.into_iter().map(|hole| hole["name"].as_str().unwrap());
        names.collect()
    });
    (new, old)
}

#[track_caller]
fn reason<'j>(coverage: &'j Value, path: &Path) -> &'j str {
    let mut mounts = coverage.as_array().unwrap().iter();
    let found = mounts.find(|mount| mount["name"] == path.to_str().unwrap());
    let found = found.unwrap_or_else(|| panic!("no {} in {coverage:#}", path.display()));
    found["reason"].as_str().unwrap_or_default()
}

/// A tmpfs; unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Tmpfs {
        fs::create_dir_all(&at).unwrap();
        succeed("mount", ["-t", "tmpfs", "tmpfs", at.to_str().unwrap()]);
        Tmpfs(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = output(Command::new("umount").arg(&self.0));
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn known_holes_are_not_told_and_new_ones_come_first_everywhere() {
    let place = Place::new();
    let neighbour = place.stack("paused");
    let [media, scans, late] = ["media", "scans", "late"].map(|name| dir(&place, name));
    let mut mounts = vec![
        format!("{}:/docker.sock", socket()),
        "/etc/localtime:/etc/localtime:ro".to_owned(),
        "/dev/shm:/host/shm".to_owned(),
        "/proc:/host/proc:ro".to_owned(),
        "/sys:/host/sys:ro".to_owned(),
        format!("{}:/neighbour:ro", neighbour.dir.display()),
        format!("{}:/media", media.display()),
        "/etc/hostname:/host/name:ro".to_owned(),
        format!("{}:/scans", scans.display()),
    ];
    let stack = stack_with(&place, &mounts);
    let _crossed = Tmpfs::mount(stack.dir.join("disk"));
    let _left_out = Tmpfs::mount(stack.dir.join("other-disk"));
    stack.up();
    let configure = |ignored: &[&str]| {
        let options = json!({
            "name": stack.name, "ignoreBinds": ignored, "exclude": ["/other-disk"],
        });
        place.config(json!([options, neighbour.name]), json!({}));
    };
    let run = || {
        let run = place.run().expect_status(0).json();
        stack.outcome(&run)["coverage"].clone()
    };
    let media_path = media.to_str().unwrap();
    let scans_path = scans.to_str().unwrap();
    let late_path = late.to_str().unwrap();

    configure(&[media_path, "app:/host/name"]);
    let coverage = run();
    assert_eq!(holes(&coverage), (vec![], vec![scans_path]), "{coverage:#}");
    assert_eq!(reason(&coverage, &media), "ignored (ignoreBinds)");
    let crossed = reason(&coverage, &stack.dir.join("disk"));
    assert_eq!(crossed, "a mount of tmpfs within a tree");
    assert!(!coverage.to_string().contains("other-disk"));

    mounts.push(format!("{late_path}:/late"));
    mount(&stack, &mounts);
    stack.up();
    let planned = output(&mut place.program(&["plan", "--json"]))
        .expect_status(0)
        .items("stacks");
    let plan = output(&mut place.program(&["plan"]))
        .expect_status(0)
        .stdout;
    let checked = output(&mut place.program(&["check", "--live"]))
        .expect_status(0)
        .stdout;
    let coverage = run();
    assert_eq!(holes(&coverage), (vec![late_path], vec![scans_path]));
    assert_eq!(planned[0]["coverage"], coverage);
    let outside = "outside the stack's directory: add it to includeBinds to have it archived";
    for (mark, path, target) in [("NEW: ", late_path, "late"), ("", scans_path, "scans")] {
        let told = format!("NOT in    {mark}bind mount {path} (used by app:/{target}): {outside}");
        assert!(
            plan.contains(&told) && checked.contains(&told),
            "{plan}{checked}"
        );
    }
    assert!(checked.contains("2 mounts not covered"), "{checked}");
    let report = output(&mut place.program(&["report"]))
        .expect_status(0)
        .stdout;
    let report = report.split("\nLOG\n").next().unwrap_or_default();
    let at = |text: &str| {
        report
            .find(text)
            .unwrap_or_else(|| panic!("no {text} in {report}"))
    };
    assert!(at("STACKS") < at("NEW: NOT IN THE ARCHIVES"), "{report}");
    assert!(
        at("NEW: NOT IN THE ARCHIVES") < at("ARCHIVES in"),
        "{report}"
    );
    assert!(at("\nNOT IN THE ARCHIVES") > at("ARCHIVES in"), "{report}");
    // Lines are wrapped, depending on the length of the path.
    let words: Vec<&str> = report.split_whitespace().collect();
    assert!(
        words.join(" ").contains("(a mount of tmpfs within a tree)"),
        "{report}"
    );
    for known in [
        media_path,
        "docker.sock",
        "/dev/shm",
        "/proc",
        "/sys",
        "localtime",
    ] {
        for text in [&*plan, &*checked, report] {
            assert!(!text.contains(known), "{known}: {text}");
        }
    }

    // The controls: it is new only once, and is told if it is not ignored.
    configure(&["app:/host/name"]);
    let coverage = run();
    assert_eq!(
        holes(&coverage),
        (vec![media_path], vec![late_path, scans_path])
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn following_the_advice_about_a_mount_does_not_make_backups_fail() {
    let place = Place::new();
    let [shared, logs] = ["shared", "logs"].map(|name| dir(&place, name));
    let above = place.store().parent().unwrap().to_owned();
    fs::write(shared.join("f"), "shared").unwrap();
    let _log = File::create(logs.join("log")).unwrap();
    let mounts = [(&shared, "/shared"), (&logs, "/logs"), (&above, "/above")];
    let mounts = mounts.map(|(path, target)| format!("{}:{target}:ro", path.display()));
    let stack = stack_with(&place, &mounts);
    stack.up();
    let other = stack_with(&place, &[format!("{}:/theirs", shared.display())]);
    other.up();
    let run = |options: Value, status: i32| {
        let mut stack_options = json!({"name": stack.name});
        for (key, value) in options.as_object().unwrap() {
            stack_options[key] = value.clone();
        }
        place.config(json!([stack_options]), json!({}));
        let run = place.run().expect_status(status).json();
        stack.outcome(&run)["coverage"].clone()
    };
    let coverage = run(json!({}), 0);
    let advice = "add it to includeBinds and set onBusy to warn to have it archived";
    for path in [&shared, &logs] {
        let reason = reason(&coverage, path);
        assert!(
            reason.contains("in use by others") && reason.contains(advice),
            "{reason}"
        );
    }
    assert!(reason(&coverage, &shared).contains(&other.name));
    let refused = reason(&coverage, &above);
    let place_holds = format!("cannot be archived: {} lies there", place.store().display());
    assert!(refused.contains(&place_holds), "{refused}");

    let followed = json!({"includeBinds": [shared, logs], "onBusy": "warn"});
    let coverage = run(followed, 0);
    assert_eq!(reason(&coverage, &shared), "");
    let newest = place.stored(&stack.name);
    let newest = newest.iter().rfind(|name| name.ends_with(".tar")).unwrap();
    let archive = place.store().join(&stack.name).join(newest);
    let members = succeed("tar", ["-tf", archive.to_str().unwrap()]);
    assert!(members.contains("/shared/f"), "{members}");
    // The control: without the second half of the advice, it fails.
    run(json!({"includeBinds": [shared]}), 2);
}

/// A directory in the Nix store, whether the machine has Nix or not.
struct Store(PathBuf);

impl Store {
    fn new() -> Store {
        let dir = PathBuf::from(format!("/nix/store/dsbtest-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Store(dir)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Only if nothing else is there.
        let _ = fs::remove_dir("/nix/store").and_then(|()| fs::remove_dir("/nix"));
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn files_that_compose_reads_from_elsewhere_are_archived_restored_and_drilled() {
    let place = Place::new();
    let outside = dir(&place, "outside");
    let file = |name: &str, text: &str| {
        let path = outside.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let idle = "image: docker-stack-backup/busybox:1, command: sleep infinity, init: true";
    let base = file("base.yaml", &format!("services: {{base: {{{idle}}}}}"));
    let common = file("common.env", "TOKEN=abc\n");
    let secret = file("secret", "the secret");
    let linked = file("linked.env", "X=1\n");
    let more = file("more.env", "Z=1\n");
    let large = file("large.env", &"# \n".repeat(400_000));
    let busy = file("busy.env", "Y=1\n");
    let writer = File::options().append(true).open(&busy).unwrap();
    let store = Store::new();
    let made = store.file("settings.env", "MADE=1\n");
    let stack = place.stack("paused");
    symlink(&made, stack.dir.join("settings.env")).unwrap();
    let compose = json!({
        "services": {"app": {
            "extends": {"file": base, "service": "base"},
            "env_file": ["../../outside/common.env", large, busy, "settings.env"],
            "secrets": ["s"],
        }},
        "secrets": {"s": {"file": secret}},
    });
    fs::write(stack.dir.join("compose.yaml"), compose.to_string()).unwrap();
    symlink(&linked, stack.dir.join(".env")).unwrap();
    stack.up();
    let check = json!(["app", "grep", "-q", "the secret", "/run/secrets/s"]);
    place.config(
        json!([{
            "name": stack.name, "drillCheck": check, "envFiles": [".env", more],
        }]),
        json!({}),
    );
    let run = place.run().expect_status(0).json();
    let coverage = &stack.outcome(&run)["coverage"];
    let paths = |paths: &[&PathBuf]| -> Vec<String> {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    assert_eq!(holes(coverage).1, paths(&[&busy, &large]), "{coverage:#}");
    assert!(
        reason(coverage, &large).contains("too large"),
        "{coverage:#}"
    );
    assert!(
        reason(coverage, &busy).contains("in use by others"),
        "{coverage:#}"
    );
    drop(writer);
    let extracted = place.extract(&place.archive(&stack.name));
    for path in [&base, &common, &secret, &linked, &more, &made] {
        let member = format!("{}.files{}", stack.name, path.display());
        let archived = fs::read_to_string(extracted.join(member)).unwrap();
        assert_eq!(archived, fs::read_to_string(path).unwrap());
    }

    // All is lost but the store, and another file is in the place of one.
    output(&mut stack.compose(&["down", "--timeout", "1"])).expect_status(0);
    let [kept_large, kept_busy] = [&large, &busy].map(|path| fs::read(path).unwrap());
    fs::remove_dir_all(&outside).unwrap();
    fs::remove_dir_all(&stack.dir).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(&large, kept_large).unwrap();
    fs::write(&busy, kept_busy).unwrap();
    let elsewhere = place.path("elsewhere");
    fs::write(&elsewhere, "X=2\n").unwrap();
    symlink(&elsewhere, &linked).unwrap();
    // What the system makes is not written by a restore, but by the system.
    fs::remove_file(&made).unwrap();
    let shown = output(&mut place.program(&["restore", &stack.name]));
    let missing = format!(
        "{} does not exist, and is made by the system",
        made.display()
    );
    assert!(
        (shown.stdout + &shown.stderr).contains(&missing),
        "{missing}"
    );
    store.file("settings.env", "MADE=2\n");
    let restored = output(&mut place.program(&["restore", &stack.name, "--yes"]));
    let restored = restored.expect_status(0);
    for path in [&base, &common, &secret, &more] {
        let told = format!("creates   {}", path.display());
        assert!(
            restored.stderr.contains(&told) || restored.stdout.contains(&told),
            "{told}"
        );
    }
    let told = [restored.stdout, restored.stderr].concat();
    let left = format!("{} stays as it is, because a symlink", linked.display());
    assert!(told.contains(&left), "{told}");
    assert_eq!(fs::read_to_string(&common).unwrap(), "TOKEN=abc\n");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "X=2\n");
    assert_eq!(fs::read_to_string(&made).unwrap(), "MADE=2\n");
    assert!(!told.contains(made.to_str().unwrap()), "{told}");
    assert_eq!(stack.states(), ["app:running"]);

    // A drill has the secret from the archive, not from the host.
    fs::write(&secret, "another").unwrap();
    output(&mut place.program(&["drill", &stack.name])).expect_status(0);
}
