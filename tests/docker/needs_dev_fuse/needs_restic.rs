//! Real restic: two nights of a mounted store, and the way back.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Scene;
use crate::common::{output, succeed, wait_until};

struct Restic<'a> {
    scene: &'a Scene,
}

impl Restic<'_> {
    fn command(&self) -> Command {
        let mut restic = Command::new("restic");
        restic
            .env("RESTIC_REPOSITORY", self.scene.place.path("repo"))
            .env("RESTIC_PASSWORD", "secret")
            .env("RESTIC_CACHE_DIR", self.scene.place.path("cache"));
        restic
    }

    /// Backs the mounted archives up, and returns the summary.
    fn back_up(&self) -> Value {
        let dir = self.scene.dir.to_str().unwrap();
        let args = [
            "mount", "--latest", dir, "--", "restic", "backup", "--json", dir,
        ];
        let mut backup = self.scene.place.program(&args);
        for (key, value) in self.command().get_envs() {
            backup.env(key, value.unwrap());
        }
        let ended = output(&mut backup).expect_status(0);
        let last = ended.stdout.lines().last().unwrap();
        serde_json::from_str(last).unwrap()
    }
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn restic_reads_only_what_changed_and_brings_the_stack_back() {
    let scene = Scene::new();
    fs::remove_dir_all(&scene.store).unwrap();
    let stack = scene.place.stack("web");
    let many = stack.dir.join("many");
    fs::create_dir(&many).unwrap();
    let content = |number: u32| {
        let bytes = (0..2048_u32).map(|at| (at.wrapping_mul(number + 7) >> 3) as u8);
        bytes.collect::<Vec<u8>>()
    };
    for number in 0..2000 {
        fs::write(many.join(number.to_string()), content(number)).unwrap();
    }
    let time = "2024-01-02 03:04:05.123456789";
    succeed("touch", ["-d", time, many.join("7").to_str().unwrap()]);
    scene.place.config(json!([stack.name]), json!({}));
    scene.place.run().expect_status(0);
    let restic = Restic { scene: &scene };
    succeed_with(restic.command().args(["init", "--quiet"]));
    let first = restic.back_up();
    assert!(first["files_new"].as_u64() > Some(2000), "{first}");
    // Another size, other content with the same size and time, and a new file.
    fs::write(many.join("3"), "grown").unwrap();
    fs::write(many.join("7"), content(9999)).unwrap();
    succeed("touch", ["-d", time, many.join("7").to_str().unwrap()]);
    fs::write(many.join("new"), "new").unwrap();
    let wrong = many.join("1999");
    scene.place.run().expect_status(0);
    let second = restic.back_up();
    // The manifest and the sums change every night.
    assert_eq!(second["files_changed"], 4, "{second}");
    assert_eq!(second["files_new"], 1, "{second}");
    let added = second["data_added"].as_u64().unwrap();
    let all = first["data_added"].as_u64().unwrap();
    assert!(added * 4 < all, "{added} of {all}");

    // The way back: a copy of the mounted directory is as good as the archive.
    let target = scene.place.path("target");
    let mut restore = restic.command();
    restore.args(["restore", "latest", "--target"]).arg(&target);
    succeed_with(&mut restore);
    let tree = target.join(scene.dir.strip_prefix("/").unwrap());
    let tree = tree.to_str().unwrap();
    fs::write(&wrong, "wrong").unwrap();
    fs::remove_file(many.join("7")).unwrap();
    let name = stack.name.as_str();
    let args = ["restore", name, "--from-tree", tree];
    let differs = scene
        .run(&[&args[..], &["--diff"]].concat())
        .expect_status(2);
    assert!(differs.stdout.contains("many/7"), "{}", differs.stdout);
    scene
        .run(&[&args[..], &["--yes"]].concat())
        .expect_status(0);
    assert_eq!(fs::read(&wrong).unwrap(), content(1999));
    assert_eq!(fs::read(many.join("7")).unwrap(), content(9999));
    // All of it is as in the archive, owners and times too.
    scene.run(&["restore", name, "--diff"]).expect_status(0);
    // A damaged copy replaces nothing.
    let damaged = Path::new(tree).join(name).join(name).join("many/5");
    let mut bytes = content(5);
    bytes[77] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let refused = scene
        .run(&[&args[..], &["--yes"]].concat())
        .expect_status(1);
    assert!(
        refused.stderr.contains("many/5: its data is damaged"),
        "{}",
        refused.stderr
    );
    scene.run(&["restore", name, "--diff"]).expect_status(0);
}

#[track_caller]
fn succeed_with(command: &mut Command) {
    output(command).expect_status(0);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn archives_are_handed_over_to_restic_and_come_back() {
    let scene = Scene::new();
    fs::remove_dir_all(&scene.store).unwrap();
    let stack = scene.place.stack("web");
    let name = stack.name.as_str();
    let many = stack.dir.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..500 {
        fs::write(many.join(number.to_string()), vec![number as u8; 4000]).unwrap();
    }
    fs::write(scene.place.path("password"), "secret\n").unwrap();
    let repository = json!({
        "kind": "restic",
        "repository": scene.place.path("repo"),
        "passphraseFile": scene.place.path("password"),
        "retention": { "keepLast": 1 },
    });
    scene
        .place
        .config(json!([name]), json!({ "handover": [repository] }));
    let restic = Restic { scene: &scene };
    succeed_with(restic.command().args(["init", "--quiet"]));
    let kinds = |outcome: &Value| -> Vec<String> {
        let steps = outcome["handovers"][0]["steps"].as_array().unwrap().iter();
        steps
            .map(|step| step["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = scene.place.run().expect_status(0).json();
    assert_eq!(kinds(&first), ["archive", "prune", "compact", "check"]);
    fs::write(many.join("7"), "changed").unwrap();
    let second = scene.place.run().expect_status(0).json();
    assert_eq!(kinds(&second), ["archive", "prune", "compact"]);
    let snapshots = || -> Value {
        let listed = output(restic.command().args(["snapshots", "--json"])).expect_status(0);
        serde_json::from_str(&listed.stdout).unwrap()
    };
    let kept = snapshots();
    let newest = scene.place.stored(name).pop().unwrap();
    let newest = newest.strip_suffix(".tar").unwrap();
    assert_eq!(kept.as_array().unwrap().len(), 1, "{kept}");
    assert_eq!(kept[0]["tags"], json!([format!("stack={name}"), newest]));
    // Its time is that of the archive.
    let time = kept[0]["time"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    let begun = second["started"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    assert!(
        time.duration_since(begun).as_secs().abs() < 60,
        "{time} {begun}"
    );
    // Nothing stays mounted, and a lock that a killed restic left is no obstacle.
    let archives = scene.place.state().join("handover/restic/archives");
    assert_eq!(fs::read_dir(&archives).unwrap().count(), 0);
    let mut locked = restic.command();
    locked
        .args(["backup", "--stdin"])
        .stdin(std::process::Stdio::piped());
    let mut locked = locked.spawn().unwrap();
    let locks = || {
        fs::read_dir(scene.place.path("repo/locks"))
            .unwrap()
            .count()
    };
    wait_until("restic has a lock", || locks() > 0);
    locked.kill().unwrap();
    locked.wait().unwrap();
    assert!(locks() > 0);
    let third = scene.place.run().expect_status(0).json();
    assert_eq!(kinds(&third), ["archive", "prune", "compact"]);

    // The way back.
    let target = scene.place.path("target");
    let mut restore = restic.command();
    restore.args([
        "restore",
        "latest",
        "--tag",
        &format!("stack={name}"),
        "--target",
    ]);
    succeed_with(restore.arg(&target));
    let tree = target.join(archives.strip_prefix("/").unwrap());
    fs::write(many.join("7"), "wrong").unwrap();
    let args = [
        "restore",
        name,
        "--yes",
        "--from-tree",
        tree.to_str().unwrap(),
    ];
    scene.run(&args).expect_status(0);
    assert_eq!(fs::read(many.join("7")).unwrap(), b"changed");
}
