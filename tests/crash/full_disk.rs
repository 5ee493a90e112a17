//! A full file system: no space for the archive, no space for the journal, and
//! no space together with a start that fails.

use std::fs::{self, File};
use std::io::Write;

use crate::common::disk::Disk;
use crate::common::output;
use crate::common::scene::{Scene, start_times};
use serde_json::{Value, json};

/// Creates a stack with `mib` MiB of data, and a store on a disk of 64 MiB.
fn scene(mib: usize, more: Value) -> (Scene, Disk) {
    let scene = Scene::new("stop", 0);
    let disk = Disk::new(&scene.place, "disk", 64);
    let mut config = json!({"backupDir": disk.path.join("store")});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    scene.place.config(json!([scene.stack.name]), config);
    write(&scene, mib);
    (scene, disk)
}

fn write(scene: &Scene, mib: usize) {
    let mut file = File::create(scene.stack.dir.join("content")).unwrap();
    file.write_all(&vec![7; mib << 20]).unwrap();
}

/// Lists the stack's directory in the store on the disk, without the sidecars of archives.
fn stored(scene: &Scene, disk: &Disk) -> Vec<String> {
    let listing = fs::read_dir(disk.path.join("store").join(&scene.stack.name));
    let mut names: Vec<String> = listing
        .into_iter()
        .flatten()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".sums") && !name.ends_with(".checks.json"))
        .collect();
    names.sort();
    names
}

fn failures<'j>(scene: &Scene, json: &'j Value) -> &'j Vec<Value> {
    scene.stack.outcome(json)["failures"].as_array().unwrap()
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn too_little_room_is_refused_before_anything_is_stopped() {
    let (scene, disk) = scene(60, json!({}));
    let times = start_times(&scene.stack);
    let (ended, spy) = scene.attempt(&["run", "--json"], "");
    let json = ended.unwrap().expect_status(2).json();
    let message = failures(&scene, &json)[0]["message"].as_str().unwrap();
    assert!(message.contains("nothing was stopped"), "{message}");
    // "the archive needs X (N bytes), Y (M bytes) are free"
    let numbers: Vec<u64> = message
        .split(['(', ' '])
        .zip(message.split(['(', ' ']).skip(1))
        .filter(|(_, unit)| unit.starts_with("bytes)"))
        .map(|(number, _)| number.parse().unwrap())
        .collect();
    assert_eq!(numbers.len(), 2, "{message}");
    assert!(numbers[0] > 60 << 20, "{message}");
    assert!(
        numbers[1].abs_diff(disk.available_bytes()) < 1 << 20,
        "{message}"
    );
    assert!(!spy.calls().iter().any(|call| call.starts_with("stop")));
    assert_eq!(start_times(&scene.stack), times);
    assert_eq!(stored(&scene, &disk), [""; 0]);
    // The control: less data fits.
    write(&scene, 8);
    scene.place.run().expect_status(0);
    assert_ne!(start_times(&scene.stack), times);
    assert_eq!(stored(&scene, &disk).len(), 1);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_disk_that_fills_up_while_archiving_leaves_the_stack_up_and_old_archives_in_place() {
    let offline = json!({"capture": "offline"});
    let (scene, disk) = scene(
        16,
        json!({"retention": {"keepDays": 7}, "defaults": offline}),
    );
    let dir = disk.path.join("store").join(&scene.stack.name);
    fs::create_dir_all(&dir).unwrap();
    let old = [1, 2].map(|day| format!("{}_2020010{day}_030000.tar", scene.stack.name));
    for name in &old {
        fs::write(dir.join(name), "an archive, old and good").unwrap();
    }
    let hook = format!("if [ $1 = stop ]; then {}; fi", disk.fill_command());
    let (ended, spy) = scene.attempt(&["run", "--json"], &hook);
    let json = ended.unwrap().expect_status(2).json();
    assert!(spy.calls().iter().any(|call| call.starts_with("stop ")));
    let failures = failures(&scene, &json);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0]["phase"], "archive");
    let message = failures[0]["message"].as_str().unwrap();
    assert!(
        message.contains("No space left on device (os error 28)"),
        "{message}"
    );
    let archive = format!("{}/{}_20", dir.display(), scene.stack.name);
    assert!(message.contains(&archive), "{message}");
    assert_eq!(scene.running(), scene.states);
    scene.assert_migrated_once("full disk");
    assert_eq!(scene.place.journalled(), [""; 0]);
    assert_eq!(
        stored(&scene, &disk),
        old,
        "no partial may be left, and nothing may be pruned"
    );
    // The control: with free space again, the old archives are pruned.
    fs::remove_file(disk.filler()).unwrap();
    scene.place.run().expect_status(0);
    let names = stored(&scene, &disk);
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(!old.contains(&names[0]));
}

/// The run may still succeed: it gives up the draft, and the space of the draft
/// may be enough for a whole new archive.
#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_disk_that_fills_up_after_the_draft_leaves_the_stack_up() {
    let (scene, disk) = scene(16, json!({}));
    let hook = format!("if [ $1 = stop ]; then {}; fi", disk.fill_command());
    let (ended, spy) = scene.attempt(&["run", "--json"], &hook);
    let ended = ended.unwrap();
    assert!(spy.calls().iter().any(|call| call.starts_with("stop ")));
    assert_eq!(scene.running(), scene.states);
    assert_eq!(scene.place.journalled(), [""; 0]);
    let names = stored(&scene, &disk);
    assert!(names.iter().all(|name| name.ends_with(".tar")), "{names:?}");
    // Either there is an archive or the run failed; the status says which.
    assert_eq!(names.len(), usize::from(ended.status == 0), "{ended:?}");
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    let warnings = scene.stack.outcome(&json)["warnings"].to_string();
    let gives_up = "there is no room for the changed data beside the draft";
    assert!(warnings.contains(gives_up), "{json}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn i4_an_archive_error_and_a_start_error_are_both_reported() {
    let (scene, disk) = scene(16, json!({"defaults": {"capture": "offline"}}));
    let hook = format!(
        "if [ $1 = stop ]; then {fill}; fi
         if [ $1 = start ] && [ -e '{compose}' ]; then
           mv '{compose}' '{compose}.gone'; docker rm -f {project}-app-1 {project}-db-1 >/dev/null
         fi",
        fill = disk.fill_command(),
        compose = scene.stack.dir.join("compose.yaml").display(),
        project = scene.stack.project,
    );
    let (ended, _) = scene.attempt(&["run", "--json"], &hook);
    let json = ended.unwrap().expect_status(3).json();
    let failures = failures(&scene, &json);
    let of = |phase: &str| {
        let failure = failures.iter().find(|failure| failure["phase"] == phase);
        failure.unwrap_or_else(|| panic!("no failure of {phase}: {failures:?}"))["message"]
            .as_str()
            .unwrap()
    };
    assert!(of("archive").contains("No space left on device"));
    assert!(of("start").contains("has no container"), "{}", of("start"));
    assert!(
        of("start").contains("no configuration file"),
        "{}",
        of("start")
    );
    assert_eq!(scene.stack.outcome(&json)["status"], "down");
    let report = output(&mut scene.place.program(&["report"]));
    let report = report.expect_status(0).stdout;
    // Undoes the wrapping of the report's lines.
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    for error in ["No space left on device", "has no container"] {
        assert!(report.contains(error), "{report}");
    }
    assert!(
        scene
            .place
            .journalled()
            .contains(&format!("{}.json", scene.stack.name))
    );
    // The control: without the two faults, the next run recovers the stack.
    fs::remove_file(disk.filler()).unwrap();
    let compose = scene.stack.dir.join("compose.yaml");
    fs::rename(compose.with_extension("yaml.gone"), compose).unwrap();
    let json = scene.place.run().expect_status(0).json();
    assert_eq!(json["recovered"][0]["error"], Value::Null);
    assert_eq!(scene.running(), scene.states);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_state_directory_that_fills_up_does_not_keep_the_stack_down() {
    let scene = Scene::new("stop", 0);
    let disk = Disk::new(&scene.place, "disk", 16);
    let state = disk.path.join("state");
    let stacks = json!([scene.stack.name]);
    scene.place.config(stacks, json!({"stateDir": state}));
    let hook = format!("if [ $1 = stop ]; then {}; fi", disk.fill_command());
    let (ended, _) = scene.attempt(&["run", "--json"], &hook);
    let json = ended.unwrap().expect_status(2).json();
    let failure = &failures(&scene, &json)[0];
    assert_eq!(failure["phase"], "stop");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("write the journal"), "{message}");
    assert!(message.contains("No space left on device"), "{message}");
    assert_eq!(scene.running(), scene.states);
    let journalled = || {
        let names = fs::read_dir(state.join("journal")).unwrap();
        let names = names.map(|item| item.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".json")).count()
    };
    assert_eq!(
        journalled(),
        0,
        "the stack is up, so its entry must be removed"
    );
    // The control: with free space, the run succeeds.
    fs::remove_file(disk.filler()).unwrap();
    scene.place.run().expect_status(0);
}
