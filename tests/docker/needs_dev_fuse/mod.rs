//! Mounted archives: the program, real kernels, real restic.

mod needs_fusermount;
mod needs_restic;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Background, Ended, Place, output, succeed, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// A store with two archives of a stack, and an empty directory to mount at.
struct Scene {
    place: Place,
    store: PathBuf,
    dir: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        place.config(json!([]), json!({}));
        let store = place.store().join("frozen");
        for day in ["20200101", "20200102"] {
            place.add_frozen_archive(day);
        }
        let dir = place.path("mnt");
        fs::create_dir(&dir).unwrap();
        Scene { place, store, dir }
    }

    /// Mounts, and waits until it is there.
    #[track_caller]
    fn mount(&self, args: &[&str]) -> Background {
        let dir = self.dir.to_str().unwrap();
        let args = [&["mount"], args, &[dir]].concat();
        let mounted = Background::spawn(&mut self.place.program(&args));
        wait_until("it is mounted, or has ended", || {
            self.is_mounted() || mounted.has_ended()
        });
        assert!(self.is_mounted(), "{:?}", mounted.end());
        mounted
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.contains(&format!(" {} fuse.", self.dir.display()))
    }

    fn run(&self, args: &[&str]) -> Ended {
        output(&mut self.place.program(args))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_archive_the_newest_ones_or_all_are_shown() {
    let scene = Scene::new();
    let content = ["frozen", "frozen.manifest.json", "frozen.sums"];
    let end = |mounted: Background| {
        kill(Pid::from_raw(mounted.pid()), Signal::SIGTERM).unwrap();
        assert_eq!(mounted.wait(), 0);
        assert!(!scene.is_mounted());
    };
    let mounted = scene.mount(&["frozen@2020-01-01"]);
    assert_eq!(names(&scene.dir), content);
    let inode = fs::metadata(scene.dir.join("frozen/compose.yaml"))
        .unwrap()
        .ino();
    // Nobody can change anything, not even root.
    let error = fs::write(scene.dir.join("frozen/x"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(30), "{error}");
    let options = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut options = options.lines();
    let options = options.find(|line| line.contains(scene.dir.to_str().unwrap()));
    assert!(options.unwrap().contains(" ro,nosuid,nodev"), "{options:?}");
    // A mount is not mounted over.
    let dir = scene.dir.to_str().unwrap();
    let refused = scene.run(&["mount", "--all", dir]).expect_status(1);
    assert!(
        refused.stderr.contains("is not empty"),
        "{}",
        refused.stderr
    );
    end(mounted);

    let mounted = scene.mount(&[]);
    assert_eq!(names(&scene.dir), ["frozen"]);
    assert_eq!(names(&scene.dir.join("frozen")), content);
    let file = scene.dir.join("frozen/frozen/compose.yaml");
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    assert!(fs::read_to_string(file).unwrap().starts_with("services:"));
    end(mounted);

    let mounted = scene.mount(&["--all"]);
    let archives = ["frozen_20200101_000000", "frozen_20200102_000000"];
    assert_eq!(names(&scene.dir.join("frozen")), archives);
    for archive in archives {
        assert_eq!(names(&scene.dir.join("frozen").join(archive)), content);
    }
    end(mounted);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn it_is_unmounted_however_it_ends() {
    let scene = Scene::new();
    // A shell that stands in it does not keep it mounted.
    let mounted = scene.mount(&["--latest"]);
    let mut shell = Command::new("sleep");
    let shell = Background::spawn(shell.arg("600").current_dir(scene.dir.join("frozen")));
    kill(Pid::from_raw(mounted.pid()), Signal::SIGINT).unwrap();
    assert_eq!(mounted.wait(), 0);
    assert!(!scene.is_mounted());
    drop(shell);
    // Somebody unmounts it.
    let mounted = scene.mount(&["--latest"]);
    succeed("umount", [&scene.dir]);
    assert_eq!(mounted.wait(), 0);
    // A killed one leaves a mount that the next one replaces.
    let mounted = scene.mount(&["--latest"]);
    kill(Pid::from_raw(mounted.pid()), Signal::SIGKILL).unwrap();
    mounted.wait();
    assert_eq!(
        fs::read_dir(&scene.dir).unwrap_err().raw_os_error(),
        Some(107)
    );
    let dir = scene.dir.to_str().unwrap();
    let file = scene.dir.join("frozen/compose.yaml");
    let program = ["mount", "frozen", dir, "--", "grep", "-c", "services"];
    let ran = scene.run(&[&program[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(ran.expect_status(0).stdout, "1\n");
    assert!(!scene.is_mounted());
    // The failure of a command is told, and it is unmounted all the same.
    let failed = scene.run(&["mount", dir, "--", "false"]).expect_status(2);
    assert!(
        failed.stderr.contains("`false`: exit status 1"),
        "{}",
        failed.stderr
    );
    scene
        .run(&["mount", dir, "--", "/nonexistent"])
        .expect_status(1);
    assert!(!scene.is_mounted());
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_archive_that_is_removed_meanwhile_can_be_read_to_the_end() {
    let scene = Scene::new();
    let mounted = scene.mount(&["frozen"]);
    let before = names(&scene.store).len();
    fs::remove_file(scene.store.join("frozen_20200102_000000.tar")).unwrap();
    fs::remove_file(scene.store.join("frozen_20200102_000000.sums")).unwrap();
    assert_eq!(names(&scene.store).len(), before - 2);
    let large = fs::read(scene.dir.join("frozen/dir/large")).unwrap();
    assert_eq!(large.len(), 70_000);
    assert!(!fs::read(scene.dir.join("frozen.sums")).unwrap().is_empty());
    drop(mounted);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_damaged_archive_is_not_shown_as_if_it_were_whole() {
    let scene = Scene::new();
    let newest = scene.store.join("frozen_20200102_000000.tar");
    let bytes = fs::read(&newest).unwrap();
    let dir = scene.dir.to_str().unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    for what in [&["frozen"][..], &["--latest"]] {
        let args = [&["mount"], what, &[dir]].concat();
        let refused = scene.run(&args).expect_status(1);
        assert!(
            refused.stderr.contains("is incomplete"),
            "{}",
            refused.stderr
        );
    }
    let args = ["mount", "--latest", "--pass-over", dir, "--", "true"];
    scene.run(&args).expect_status(0);
    // Where there are other stacks, it does not keep these from being shown.
    let plain = scene.place.store().join("plain");
    fs::create_dir(&plain).unwrap();
    let plain = plain.join("plain_20200101_000000.tar");
    succeed(
        "tar",
        ["-cf", plain.to_str().unwrap(), "-C", "/etc", "hostname"],
    );
    let shown = scene.run(&["mount", "--latest", dir, "--", "ls", dir]);
    let shown = shown.expect_status(2);
    assert_eq!(shown.stdout, "plain\n");
    assert!(
        shown.stderr.contains("the stack frozen is left out"),
        "{}",
        shown.stderr
    );
    let all = ["mount", "--pass-over", dir, "--", "ls", dir];
    assert_eq!(scene.run(&all).expect_status(0).stdout, "frozen\nplain\n");
    // Damage within the headers is noticed when somebody looks.
    let mut damaged = bytes;
    let at = damaged
        .windows(10)
        .rposition(|ten| ten == b"frozen/dir")
        .unwrap();
    damaged[at] ^= 1;
    fs::write(&newest, damaged).unwrap();
    let refused = scene.run(&["mount", "frozen", dir]).expect_status(1);
    assert!(refused.stderr.contains("cannot show"), "{}", refused.stderr);
    let mounted = scene.mount(&["--all"]);
    let archives = scene.dir.join("frozen");
    let broken = fs::read_dir(archives.join("frozen_20200102_000000"));
    assert_eq!(broken.unwrap_err().raw_os_error(), Some(5));
    assert_eq!(names(&archives.join("frozen_20200101_000000")).len(), 3);
    drop(mounted);
}
