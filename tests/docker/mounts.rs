//! The mounts that an archive holds, and the reasons given for the others.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Place, Stack, docker, output};
use serde_json::{Value, json};

/// A volume of no project; removed when dropped.
struct Volume(String);

impl Volume {
    fn create(name: String) -> Volume {
        docker(["volume", "create", &name]);
        Volume(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = output(Command::new("docker").args(["volume", "rm", "--force", &self.0]));
    }
}

/// The stack `mounts` with everything it mounts. The fields are in drop order:
/// containers go before the volume they use.
struct Mounts {
    stack: Stack,
    external: Volume,
    bound: PathBuf,
    outside: PathBuf,
    place: Place,
}

impl Mounts {
    fn up() -> Mounts {
        let place = Place::new();
        let stack = place.stack("mounts");
        let external = Volume::create(format!("{}-external", stack.name));
        let [bound, outside] = ["bound", "outside"].map(|name| place.path(name));
        for dir in [&bound, &outside, &place.path("linked")] {
            fs::create_dir(dir).unwrap();
        }
        symlink(place.path("linked"), stack.dir.join("link")).unwrap();
        let more = "services:\n  app:\n    volumes:\n      - ./link:/link\n      - memory:/memory\n\
                    volumes:\n  memory:\n    driver_opts: {type: tmpfs, device: tmpfs}\n";
        fs::write(stack.dir.join("compose.override.yaml"), more).unwrap();
        let env = format!(
            "EXTERNAL_VOLUME={}\nBIND_DEVICE={}\nOUTSIDE_DIR={}\n",
            external.0,
            bound.display(),
            outside.display()
        );
        fs::write(stack.dir.join(".env"), env).unwrap();
        stack.up();
        let write = "for d in inside named external bound outside anonymous link memory scratch; \
                     do echo in-$d >/$d/file; done";
        stack.exec("app", &["sh", "-c", write]);
        Mounts {
            stack,
            external,
            bound,
            outside,
            place,
        }
    }

    fn configure(&self, mut options: Value) {
        options["name"] = self.stack.name.as_str().into();
        self.place.config(json!([options]), json!({}));
    }

    /// Makes an archive, and extracts it into an empty directory.
    #[track_caller]
    fn run(&self) -> (Value, PathBuf) {
        let json = self.place.run().expect_status(0).json();
        let outcome = self.stack.outcome(&json).clone();
        let _ = fs::remove_dir_all(self.place.path("extracted"));
        let archive = PathBuf::from(outcome["archive"]["path"].as_str().unwrap());
        (outcome, self.place.extract(&archive))
    }

    fn volume(&self, key: &str) -> String {
        format!("{}_{key}", self.stack.name)
    }

    fn volumes_member(&self, volume: &str) -> String {
        format!("{}.volumes/{volume}/file", self.stack.name)
    }

    fn binds_member(&self, path: &str) -> String {
        format!("{}.binds{path}", self.stack.name)
    }
}

/// The reason why something is not archived; `None` when it is.
#[track_caller]
fn reason<'j>(coverage: &'j Value, name: &str) -> Option<&'j str> {
    let all = coverage.as_array().unwrap();
    let mount = all
        .iter()
        .find(|mount| mount["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {coverage:#}"));
    assert_eq!(
        mount["archived"].as_bool().unwrap(),
        mount["reason"].is_null()
    );
    mount["reason"].as_str()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn every_kind_of_mount_is_archived_or_its_absence_is_explained() {
    let mounts = Mounts::up();
    mounts.configure(json!({}));
    let (outcome, extracted) = mounts.run();
    let coverage = &outcome["coverage"];
    let (place, outside) = (&mounts.place, mounts.outside.to_str().unwrap());

    assert_eq!(reason(coverage, mounts.stack.dir.to_str().unwrap()), None);
    assert_eq!(reason(coverage, &mounts.volume("named")), None);
    let linked = place.path("linked").display().to_string();
    let leads_out =
        format!("a symlink leads out of the stack's directory, to {linked}: add {linked} to");
    let link = mounts.stack.dir.join("link").display().to_string();
    let left_out = [
        (
            mounts.external.0.as_str(),
            "external volume: add it to includeVolumes",
        ),
        (
            &mounts.volume("bound"),
            "not a local directory (driver local, type none): add it to includeVolumes",
        ),
        (&mounts.volume("remote"), "does not exist yet"),
        (&mounts.volume("memory"), "(driver local, type tmpfs)"),
        (outside, "outside the stack's directory: add it to"),
        (
            "/etc/hostname",
            "outside the stack's directory: add it to includeBinds",
        ),
        (&link, &leads_out),
    ];
    let report = output(&mut place.program(&["report"])).expect_status(0);
    // Lines are wrapped.
    let joined = report.stdout.replace(char::is_whitespace, "");
    for (name, expected) in left_out {
        let reason = reason(coverage, name).unwrap();
        assert!(reason.contains(expected), "{name}: {reason}");
        let line = format!("{name} {expected}").replace(char::is_whitespace, "");
        let [name, expected] = [name, expected].map(|t| t.replace(char::is_whitespace, ""));
        assert!(
            joined.contains(&name) && joined.contains(&expected),
            "{line} is not in:\n{}",
            report.stdout
        );
    }
    let anonymous = coverage
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["usedBy"].to_string().contains("\"app:/anonymous\""));
    let reason = anonymous.unwrap()["reason"].to_string();
    assert!(
        reason.contains("anonymous volume: name it in the compose file"),
        "{reason}"
    );
    // A tmpfs holds no lasting data, and a bind inside of the stack's directory
    // is archived with the directory.
    assert!(!coverage.to_string().contains("scratch"), "{coverage:#}");
    assert!(!coverage.to_string().contains("/inside"), "{coverage:#}");

    let read = |path: String| fs::read_to_string(extracted.join(path)).unwrap();
    assert_eq!(
        read(format!("{}/inside/file", mounts.stack.name)),
        "in-inside\n"
    );
    let named = mounts.volumes_member(&mounts.volume("named"));
    assert_eq!(read(named), "in-named\n");
    let volumes = fs::read_dir(extracted.join(format!("{}.volumes", mounts.stack.name)));
    assert_eq!(volumes.unwrap().count(), 1, "only `named` is archived");
    assert!(!extracted.join(mounts.binds_member("")).exists());
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn included_mounts_are_archived_or_reported_missing() {
    let mounts = Mounts::up();
    mounts.configure(json!({
        "includeVolumes": [mounts.external.0, "bound", "memory", "remote", "no-such"],
        "includeBinds": [mounts.outside, mounts.place.path("linked"), "/etc/hostname"],
    }));
    let (outcome, extracted) = mounts.run();
    let coverage = &outcome["coverage"];
    let read = |path: &str| fs::read_to_string(extracted.join(path)).unwrap();
    for (name, content) in [
        (mounts.external.0.clone(), "in-external\n"),
        (mounts.volume("bound"), "in-bound\n"),
        (mounts.volume("memory"), "in-memory\n"),
    ] {
        assert_eq!(reason(coverage, &name), None, "{name}");
        assert_eq!(read(&mounts.volumes_member(&name)), content);
    }
    assert_eq!(
        fs::read_to_string(mounts.bound.join("file")).unwrap(),
        "in-bound\n"
    );
    for (path, content) in [
        (mounts.outside.join("file"), "in-outside\n".to_owned()),
        (mounts.place.path("linked/file"), "in-link\n".to_owned()),
        (
            PathBuf::from("/etc/hostname"),
            fs::read_to_string("/etc/hostname").unwrap(),
        ),
    ] {
        let member = mounts.binds_member(path.to_str().unwrap());
        assert_eq!(read(&member), content);
    }
    // A missing volume is not archived as an empty directory.
    let remote = mounts.volume("remote");
    assert_eq!(reason(coverage, &remote), Some("does not exist yet"));
    let member = format!("{}.volumes/{remote}", mounts.stack.name);
    assert!(!extracted.join(member).exists());
    let warnings = outcome["warnings"].to_string();
    for name in ["remote", "no-such"] {
        let expected = format!("includeVolumes: volume {name} does not exist");
        assert!(warnings.contains(&expected), "{warnings}");
    }
    assert!(!warnings.contains("volume bound"), "{warnings}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn an_included_volume_that_is_not_mounted_fails_the_backup() {
    let mounts = Mounts::up();
    output(&mut mounts.stack.compose(&["stop"])).expect_status(0);
    mounts.configure(json!({"includeVolumes": ["memory"]}));
    let json = mounts.place.run().expect_status(2).json();
    let failures = mounts.stack.outcome(&json)["failures"].to_string();
    let expected = format!(
        "volume {}: it is not mounted, because no container uses it now",
        mounts.volume("memory")
    );
    assert!(failures.contains(&expected), "{failures}");
    assert!(mounts.place.stored(&mounts.stack.name).is_empty());
    // The control: a volume that is not included does not fail the backup.
    mounts.configure(json!({}));
    mounts.run();
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_refuses_a_volume_that_is_reachable_only_while_mounted() {
    let mounts = Mounts::up();
    let restore = || {
        let args = ["restore", &mounts.stack.name, "--yes"];
        output(&mut mounts.place.program(&args))
    };
    mounts.configure(json!({"includeVolumes": ["memory", "bound"]}));
    mounts.run();
    output(&mut mounts.stack.compose(&["stop", "--timeout", "1"])).expect_status(0);
    let refused = restore().expect_status(1).stderr;
    let told = format!(
        "the data of volume {} can be reached only while",
        mounts.volume("memory")
    );
    assert!(refused.contains(&told), "{refused}");
    // The control: a volume in a directory of the host is restored.
    mounts.configure(json!({"includeVolumes": ["bound"]}));
    mounts.run();
    fs::remove_file(mounts.bound.join("file")).unwrap();
    restore().expect_status(0);
    assert_eq!(
        fs::read_to_string(mounts.bound.join("file")).unwrap(),
        "in-bound\n"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_missing_bind_device_fails_the_backup_before_the_stop() {
    let mounts = Mounts::up();
    mounts.configure(json!({"includeVolumes": ["bound"]}));
    fs::rename(&mounts.bound, mounts.place.path("elsewhere")).unwrap();
    let spy = mounts.place.spy("");
    let ended = output(spy.watch(&mut mounts.place.program(&["run", "--json"])));
    let json = ended.expect_status(2).json();
    let failures = mounts.stack.outcome(&json)["failures"].to_string();
    assert!(
        failures.contains(mounts.bound.to_str().unwrap())
            && failures.contains("No such file or directory"),
        "{failures}"
    );
    assert!(!spy.calls().iter().any(|call| call.starts_with("stop")));
    // The control: with the directory back, the run succeeds.
    fs::rename(mounts.place.path("elsewhere"), &mounts.bound).unwrap();
    output(spy.watch(&mut mounts.place.program(&["run"]))).expect_status(0);
    assert!(spy.calls().iter().any(|call| call.starts_with("stop")));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn excluded_volumes_and_paths_are_left_out_and_a_removed_volume_is_named() {
    let mounts = Mounts::up();
    mounts.configure(json!({"excludeVolumes": ["named"], "exclude": ["inside/"]}));
    let (outcome, extracted) = mounts.run();
    let coverage = &outcome["coverage"];
    let excluded = reason(coverage, &mounts.volume("named"));
    assert_eq!(excluded, Some("excluded (excludeVolumes)"));
    let inside = mounts.stack.dir.join("inside").display().to_string();
    assert_eq!(reason(coverage, &inside), Some("excluded (exclude)"));
    assert!(
        !extracted
            .join(format!("{}/inside", mounts.stack.name))
            .exists()
    );
    let volumes = extracted.join(format!("{}.volumes", mounts.stack.name));
    assert!(!volumes.exists());
    assert_eq!(outcome["archive"]["excludedCount"], 1);

    output(&mut mounts.stack.compose(&["down"])).expect_status(0);
    docker(["volume", "rm", &mounts.volume("named")]);
    mounts.configure(json!({}));
    let (outcome, _) = mounts.run();
    let removed = reason(&outcome["coverage"], &mounts.volume("named"));
    assert_eq!(removed, Some("does not exist yet"));
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn plan_shows_what_a_run_covers_and_changes_nothing() {
    let mounts = Mounts::up();
    mounts.configure(json!({"includeVolumes": ["bound", "no-such"]}));
    let before = mounts.stack.ids();
    let spy = mounts.place.spy("");
    let changes = |calls: Vec<String>| {
        let harmless = ["ps", "inspect", "ls", "config", "version", "info"];
        let is_harmless = |call: &String| call.split(' ').any(|word| harmless.contains(&word));
        calls.into_iter().filter(|call| !is_harmless(call)).count()
    };
    let planned = output(spy.watch(&mut mounts.place.program(&["plan", "--json"])));
    let planned = planned.expect_status(0).items("stacks");
    let text = output(spy.watch(&mut mounts.place.program(&["plan"]))).expect_status(0);
    assert_eq!(changes(spy.calls()), 0, "{:?}", spy.calls());
    assert_eq!(mounts.stack.ids(), before);
    for path in [mounts.place.store(), mounts.place.state()] {
        assert!(!path.exists(), "{} was made", path.display());
    }
    assert!(!mounts.place.path("log").exists());

    let run = output(spy.watch(&mut mounts.place.program(&["run", "--json"])));
    let run = run.expect_status(0).json();
    assert!(changes(spy.calls()) > 0, "the control");
    let outcome = mounts.stack.outcome(&run);
    let [planned] = planned.as_array().unwrap().as_slice() else {
        panic!("{planned}")
    };
    assert_eq!(planned["coverage"], outcome["coverage"]);
    assert_eq!(planned["warnings"], outcome["warnings"]);
    assert_eq!(planned["contentBytes"], outcome["archive"]["contentBytes"]);
    assert_eq!(planned["memberCount"], outcome["archive"]["memberCount"]);
    for mount in outcome["coverage"].as_array().unwrap() {
        assert!(
            text.stdout.contains(mount["name"].as_str().unwrap()),
            "{mount} is not in:\n{}",
            text.stdout
        );
    }
    let container = format!("stops     {}-app-1", mounts.stack.project);
    assert!(text.stdout.contains(&container), "{}", text.stdout);
}
