//! `handover` with real Borg, by hand: it needs no Engine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{Background, Ended, PATIENCE, Place, output, succeed, wait_until};

const PASSPHRASE: &str = "correct horse battery staple";

/// Stacks with archives, and a repository that is encrypted.
struct Scene {
    place: Place,
    /// What the repository's object in the configuration has beside its place.
    more: Value,
}

impl Scene {
    fn new(stacks: &[&str], more: Value) -> Scene {
        let place = Place::new();
        fs::write(place.path("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
        let scene = Scene { place, more };
        scene.configure(stacks);
        let mut init = scene.borg();
        init.args(["init", "--encryption", "repokey-blake2"]);
        output(&mut init).expect_status(0);
        scene
    }

    fn configure(&self, stacks: &[&str]) {
        let mut repository = json!({
            "kind": "borg",
            "name": "nas",
            "repository": self.place.path("repo"),
            "passphraseFile": self.place.path("passphrase"),
            "checkDays": null,
        });
        for (field, value) in self.more.as_object().unwrap() {
            repository[field] = value.clone();
        }
        let more = json!({ "handover": [repository], "metricsFile": self.place.path("prom") });
        self.place.config(json!(stacks), more);
    }

    /// Borg as a person runs it.
    fn borg(&self) -> Command {
        let mut borg = Command::new("borg");
        borg.env("BORG_REPO", self.place.path("repo"))
            .env("BORG_PASSPHRASE", PASSPHRASE)
            .env("BORG_BASE_DIR", self.place.path("borg"));
        borg
    }

    /// The names of the repository's archives, without the host.
    fn names(&self) -> Vec<String> {
        let listed = output(self.borg().args(["list", "--short"])).expect_status(0);
        let host = nix::unistd::gethostname().unwrap();
        let host = format!("@{}", host.to_str().unwrap());
        let names = listed.stdout.lines();
        let mut names: Vec<String> = names
            .map(|name| name.strip_suffix(&host).expect(name).to_owned())
            .collect();
        names.sort();
        names
    }

    fn hand_over(&self, args: &[&str]) -> Ended {
        let args = [&["handover"], args].concat();
        output(&mut self.place.program(&args))
    }

    /// What was done, as `label: error` or `label`.
    fn steps(&self, status: i32) -> Vec<String> {
        let ended = self.hand_over(&["--json"]).expect_status(status);
        let handovers = ended.items("handovers");
        let steps = handovers[0]["steps"].as_array().unwrap();
        let label = |step: &Value| {
            let [kind, stack, archive] = ["kind", "stack", "archive"]
                .map(|field| step[field].as_str().unwrap_or("-").to_owned());
            format!("{kind} {stack} {archive}")
        };
        steps.iter().map(label).collect()
    }

    /// Puts an archive of GNU tar with this file into the store.
    fn put(&self, stack: &str, time: &str, content: &[u8]) -> String {
        let dir = self.place.path("made").join(stack);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), content).unwrap();
        let stem = format!("{stack}_{time}");
        let store = self.place.store().join(stack);
        fs::create_dir_all(&store).unwrap();
        let archive = store.join(format!("{stem}.tar"));
        let made = self.place.path("made");
        let [archive, made] = [&archive, &made].map(|path| path.to_str().unwrap());
        succeed("tar", ["-cf", archive, "-C", made, stack]);
        stem
    }

    /// Puts a program called `borg` before the real one. `$REAL` is that one.
    fn wrap(&self, script: &str) -> PathBuf {
        let bin = self.place.path("bin");
        fs::create_dir_all(&bin).unwrap();
        let real = succeed("sh", ["-c", "command -v borg"]);
        let path = bin.join("borg");
        fs::write(
            &path,
            format!("#!/bin/sh\nREAL={real}\n{script}\nexec $REAL \"$@\"\n"),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        bin
    }

    fn state(&self) -> Value {
        let json = fs::read(self.place.state().join("handover.json")).unwrap();
        let state: Value = serde_json::from_slice(&json).unwrap();
        state["repositories"]["nas"].clone()
    }
}

fn with_path(command: &mut Command, dir: &Path) {
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", dir.display()));
}

#[test]
fn archives_are_handed_over_once_pruned_and_checked_and_come_back() {
    let more = json!({ "retention": { "keepLast": 1 }, "checkDays": 1 });
    // The name of the second one begins like those of the first one's archives.
    let scene = Scene::new(&["frozen", "frozen_2"], more);
    let archive = scene.place.add_frozen_archive("20200101");
    let other = scene.put("frozen_2", "20200101_000000", b"other");
    // Of what was there before, only the newest is handed over.
    scene.put("frozen_2", "20191231_000000", b"older");
    let metrics = || fs::read_to_string(scene.place.path("prom")).unwrap();
    let first = [
        "archive frozen_2 frozen_2_20200101_000000.tar",
        "archive frozen frozen_20200101_000000.tar",
        "prune frozen -",
        "prune frozen_2 -",
        "compact - -",
        "check - -",
    ];
    let mut steps = scene.steps(0);
    // Both are of the same time.
    steps[..2].sort_by_key(|step| !step.contains("_2 "));
    assert_eq!(steps, first);
    assert_eq!(scene.names(), ["frozen_20200101_000000", other.as_str()]);
    let series = "docker_stack_backup_handover_last_success_timestamp_seconds";
    let series = format!("{series}{{stack=\"frozen\",repository=\"nas\"}} ");
    let value = metrics().split_once(&series).unwrap().1.to_owned();
    assert!(
        value.starts_with("17") || value.starts_with("18"),
        "{value}"
    );

    // There is nothing more to do, and the check is not due.
    assert_eq!(scene.steps(0), [""; 0]);
    let status = output(&mut scene.place.program(&["status", "--json"])).json();
    let view = &status["handovers"][0]["stacks"][0];
    assert_eq!(view["last"]["archive"], "frozen_20200101_000000.tar");
    assert_eq!(view["waitingCount"], 0);

    // The next ones, both of the same day: the older ones go, each by its own stack's rule.
    scene.place.add_frozen_archive("20200102");
    assert_eq!(scene.steps(0)[1..], ["prune frozen -", "compact - -"]);
    assert_eq!(scene.names(), ["frozen_20200102_000000", other.as_str()]);

    // The way back, by the command of the documentation; the sums are beside it.
    let host = nix::unistd::gethostname().unwrap();
    let name = format!("::frozen_20200102_000000@{}", host.to_str().unwrap());
    let to = scene.place.path("to");
    let file = "frozen_20200102_000000.tar";
    let mut extract = scene.borg();
    extract.args(["extract", "--stdout", &name, file]);
    let mut borg = extract.stdout(Stdio::piped()).spawn().unwrap();
    let mut restore = scene
        .place
        .program(&["restore", "-", "--to", to.to_str().unwrap()]);
    let restored = restore.stdin(borg.stdout.take().unwrap()).output().unwrap();
    assert!(restored.status.success() && borg.wait().unwrap().success());
    assert!(to.join("frozen").is_dir());
    let extracted = scene.place.path("extracted");
    fs::create_dir(&extracted).unwrap();
    let mut extract = scene.borg();
    output(extract.current_dir(&extracted).args(["extract", &name])).expect_status(0);
    assert_eq!(
        fs::read(extracted.join(file)).unwrap(),
        fs::read(&archive).unwrap()
    );
    let path = extracted.join(file);
    let verified = output(&mut scene.place.program(&["verify", path.to_str().unwrap()]));
    let verified = verified.expect_status(0);
    assert!(!verified.stdout.contains("no sums"), "{}", verified.stdout);
}

#[test]
fn what_fails_waits_is_told_without_secrets_and_is_tried_again() {
    let scene = Scene::new(&["web", "db"], json!({}));
    let web = scene.put("web", "20200101_000000", b"web");
    let db = scene.put("db", "20200102_000000", b"db");
    let wrong = "wrong password, with \u{1b}[2J in it";
    fs::write(scene.place.path("passphrase"), wrong).unwrap();
    let failed = scene.hand_over(&[]).expect_status(2);
    assert!(
        failed.stderr.contains("passphrase supplied"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("the rest was not tried"),
        "{}",
        failed.stderr
    );
    let status = output(&mut scene.place.program(&["status"]));
    let waits = "off-site  nas: web NEVER (1 waiting), db NEVER (1 waiting)";
    assert!(status.stdout.contains(waits), "{}", status.stdout);
    let advice = "try again: docker-stack-backup handover";
    assert!(status.stdout.contains(advice), "{}", status.stdout);
    let state = fs::read_to_string(scene.place.state().join("handover.json")).unwrap();
    for text in [&failed.stderr, &failed.stdout, &status.stdout, &state] {
        assert!(!text.contains("wrong password"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    // Nothing hurts the archives.
    assert_eq!(scene.place.stored("web"), [format!("{web}.tar")]);

    // One that fails keeps no other from being handed over.
    fs::write(scene.place.path("passphrase"), PASSPHRASE).unwrap();
    let bin = scene.wrap(
        "case \"$*\" in create*db_*) echo \"cannot: $BORG_PASSPHRASE \u{1b}[2J\"
         echo 'Failed to create/acquire the lock (timeout).'; exit 2;; esac",
    );
    let mut again = scene.place.program(&["handover", "--json"]);
    with_path(&mut again, &bin);
    let ended = output(&mut again).expect_status(2);
    let handover = &ended.items("handovers")[0];
    let steps = handover["steps"].as_array().unwrap();
    let errors: Vec<&Value> = steps.iter().map(|step| &step["error"]).collect();
    let told = errors[0].as_str().unwrap();
    assert!(
        told.contains("`borg create`: exit status 2: cannot: ***"),
        "{told}"
    );
    // Such a lock is not ours, so it is not broken.
    assert!(told.contains("if none runs, `borg break-lock`"), "{told}");
    assert!(!ended.stdout.contains(PASSPHRASE) && !ended.stderr.contains(PASSPHRASE));
    assert!(!ended.stderr.contains('\u{1b}'), "{:?}", ended.stderr);
    assert_eq!((errors.len(), errors[1]), (2, &Value::Null));
    assert_eq!(handover["waitingCount"], 1);
    assert_eq!(scene.names(), [web.as_str()]);

    // What is removed before it was handed over is told, once.
    fs::remove_file(scene.place.store().join("db").join(format!("{db}.tar"))).unwrap();
    let ended = scene.hand_over(&["--json"]).expect_status(0);
    let warnings = &ended.items("handovers")[0]["warnings"];
    let expected = format!("{db}.tar was removed from the store before it was handed over");
    assert_eq!(*warnings, json!([expected]));
    assert_eq!(scene.steps(0), [""; 0]);
    // And so it is for a stack that is not named.
    let later = scene.put("db", "20200103_000000", b"db");
    scene.hand_over(&["web"]).expect_status(0);
    assert_eq!(scene.names(), [web.as_str()]);
    scene.hand_over(&["db"]).expect_status(0);
    assert_eq!(scene.names(), [later.as_str(), web.as_str()]);
    scene.hand_over(&["no-such"]).expect_status(1);
}

#[test]
fn a_handover_that_is_killed_leaves_nothing_half_and_is_made_again() {
    let scene = Scene::new(&["web"], json!({ "checkDays": 30 }));
    let mut content = vec![0_u8; 32 << 20];
    let mut random = fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut random, &mut content).unwrap();
    let web = scene.put("web", "20200101_000000", &content);
    let mut running = scene.place.program(&["handover"]);
    let mut running = running
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // It has the lock, and has begun to write.
    let lock = scene.place.path("repo/lock.exclusive");
    let began = Instant::now();
    while !lock.exists() || size(&scene.place.path("repo/data")) < 4 << 20 {
        assert!(began.elapsed() < PATIENCE);
        assert!(
            running.try_wait().unwrap().is_none(),
            "it was over before it was killed"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    let repository = scene.place.path("repo");
    wait_until("no Borg works on the repository", || !is_used(&repository));
    assert!(lock.exists(), "it was not killed while it worked");
    assert_eq!(scene.state()["stacks"]["web"]["waiting"][0]["tryCount"], 1);
    // The lock of its own dead process is no obstacle; the check finds nothing wrong.
    assert_eq!(
        scene.steps(0),
        [format!("archive web {web}.tar"), "check - -".to_owned()]
    );
    assert_eq!(scene.names(), [web.as_str()]);
    assert_eq!(scene.state()["stacks"]["web"]["waiting"], json!([]));
    // Killed after Borg was done, but before that was noted: it is replaced, not doubled.
    let mut state: Value =
        serde_json::from_slice(&fs::read(scene.place.state().join("handover.json")).unwrap())
            .unwrap();
    state["repositories"]["nas"]["stacks"]["web"]["waiting"] =
        json!([{ "archive": format!("{web}.tar"), "tryCount": 1, "error": null }]);
    fs::write(scene.place.state().join("handover.json"), state.to_string()).unwrap();
    assert_eq!(scene.steps(0), [format!("archive web {web}.tar")]);
    assert_eq!(scene.names(), [web.as_str()]);
}

fn size(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Whether a process has the path in its environment.
fn is_used(path: &Path) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let wanted = format!("BORG_REPO={}", path.display());
    entries.into_iter().any(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&wanted)
    })
}

#[test]
fn programs_that_hang_are_ended_with_their_children_at_the_limit_and_by_a_signal() {
    let scene = Scene::new(&["web", "db"], json!({ "timeLimit": 5 }));
    scene.put("web", "20200101_000000", b"web");
    scene.put("db", "20200102_000000", b"db");
    // Its child ignores what asks it to end.
    let hangs = "case $1 in create) trap 'exit 1' TERM; (trap '' TERM; sleep 1000) & \
                 sleep 1000 & wait;; esac";
    let bin = scene.wrap(hangs);
    let repository = scene.place.path("repo");
    let command = || {
        let mut command = scene.place.program(&["handover", "--json"]);
        with_path(&mut command, &bin);
        command
    };
    let began = Instant::now();
    let ended = output(&mut command()).expect_status(2);
    assert!(began.elapsed() < PATIENCE);
    let handover = &ended.items("handovers")[0];
    assert_eq!(handover["steps"].as_array().unwrap().len(), 1, "{handover}");
    let error = handover["steps"][0]["error"].as_str().unwrap();
    assert!(error.contains("still running after"), "{error}");
    assert_eq!(handover["waitingCount"], 2);
    let warning = handover["warnings"][0].as_str().unwrap();
    assert!(warning.contains("`timeLimit`"), "{warning}");
    assert!(!is_used(&repository), "a child was left");

    // With more time, a signal ends it.
    let more = Scene {
        more: json!({ "timeLimit": 1000 }),
        ..scene
    };
    more.configure(&["web", "db"]);
    let mut command = more.place.program(&["handover"]);
    with_path(&mut command, &bin);
    let running = Background::spawn(&mut command);
    wait_until("Borg hangs", || is_used(&repository));
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(running.pid()), Signal::SIGTERM).unwrap();
    let ended = running.end();
    assert_eq!(ended.status, 2, "{}", ended.stderr);
    assert!(!is_used(&repository), "a child was left");
    // The control: without what hangs, all is handed over.
    assert_eq!(more.steps(0).len(), 2);
}
