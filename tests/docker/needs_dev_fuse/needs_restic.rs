//! Real restic: two nights of a mounted store, and the way back.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Scene;
use crate::common::{output, succeed};

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
