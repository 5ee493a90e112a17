//! The store must be the one that was used before.

use std::fs;

use crate::common::{Ended, Place, output};
use serde_json::{Value, json};

const MARKER: &str = ".docker-stack-backup-store.json";

/// A place with one stack that cannot be backed up, because it has no directory.
/// The store is used all the same.
fn place(more: Value) -> Place {
    let place = Place::new();
    place.config(json!(["web"]), more);
    place
}

fn run(place: &Place, args: &[&str]) -> Ended {
    output(&mut place.program(&[&["run", "--json"], args].concat())).expect_status(2)
}

/// Whether the run was refused because of the store.
fn is_refused(ended: &Ended) -> bool {
    ended.json()["errors"]
        .to_string()
        .contains("is not the store that was used there before")
}

fn is_empty(place: &Place) -> bool {
    fs::read_dir(place.store()).unwrap().next().is_none()
}

#[test]
fn a_store_that_is_not_mounted_is_not_filled() {
    let place = place(json!({}));
    assert!(!is_refused(&run(&place, &[])));
    assert!(!is_refused(&run(&place, &[])), "the same store");
    let (store, away) = (place.store(), place.path("away"));
    fs::rename(&store, &away).unwrap();
    let check = || output(&mut place.program(&["check", "--live"])).expect_status(1);
    for make in [
        |_: &Place| {},
        |place: &Place| fs::create_dir(place.store()).unwrap(),
    ] {
        make(&place);
        assert!(is_refused(&run(&place, &[])));
        assert!(!store.exists() || is_empty(&place));
        let text = check().stdout;
        assert!(
            text.contains("FAILED  backupDir") && text.contains("--adopt-store"),
            "{text}"
        );
        let prune = output(&mut place.program(&["prune"])).expect_status(1);
        assert!(prune.stderr.contains("mount it"), "{}", prune.stderr);
    }
    let list = output(&mut place.program(&["list"])).expect_status(1);
    assert!(list.stderr.contains("mount it"), "{}", list.stderr);
    let restore = output(&mut place.program(&["restore", "web", "--yes"])).expect_status(1);
    assert!(restore.stderr.contains("mount it"), "{}", restore.stderr);
    // It is mounted again.
    fs::remove_dir(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    assert!(!is_refused(&run(&place, &[])));
    assert!(check().stdout.contains("ok      backupDir"));

    // Another disk, which is a store, too.
    let marker = fs::read_to_string(store.join(MARKER)).unwrap();
    fs::rename(&store, &away).unwrap();
    fs::create_dir(&store).unwrap();
    assert!(!is_refused(&run(&place, &["--adopt-store"])));
    let other = fs::read_to_string(store.join(MARKER)).unwrap();
    assert_ne!(marker, other);
    assert!(!is_refused(&run(&place, &[])), "it was adopted");
    fs::write(store.join(MARKER), marker).unwrap();
    assert!(is_refused(&run(&place, &[])));
    // A copy of the store is the store.
    fs::write(store.join(MARKER), other).unwrap();
    assert!(!is_refused(&run(&place, &[])));
}

#[test]
fn a_store_of_an_earlier_version_gets_a_marker() {
    let place = place(json!({}));
    let archive = place.store().join("web/web_20260101_000000.tar");
    fs::create_dir_all(archive.parent().unwrap()).unwrap();
    fs::write(&archive, [0; 1024]).unwrap();
    assert!(!is_refused(&run(&place, &[])));
    assert!(place.store().join(MARKER).exists() && archive.exists());
    // A new state directory knows no store.
    fs::remove_dir_all(place.state()).unwrap();
    assert!(!is_refused(&run(&place, &[])));
    // The control: now it does.
    fs::remove_file(place.store().join(MARKER)).unwrap();
    assert!(is_refused(&run(&place, &[])));
}

#[test]
fn the_first_run_needs_the_mount_that_is_required() {
    let dir = tempfile::tempdir().unwrap();
    let refused = place(json!({"requireMount": dir.path()}));
    let errors = run(&refused, &[]).json()["errors"].to_string();
    assert!(errors.contains("nothing is mounted at"), "{errors}");
    assert!(!refused.store().exists());
    let check = output(&mut refused.program(&["check", "--live"])).expect_status(1);
    assert!(
        check.stdout.contains("nothing is mounted at"),
        "{}",
        check.stdout
    );
    // /proc is mounted, but the store is not on it.
    let elsewhere = place(json!({"requireMount": "/proc"}));
    let errors = run(&elsewhere, &["--adopt-store"]).json()["errors"].to_string();
    assert!(errors.contains("is not on what is mounted"), "{errors}");
    // The control: everything is on the root's file system, or below it.
    let mounted = place(json!({"requireMount": "/"}));
    assert_eq!(run(&mounted, &[]).json()["errors"], json!([]));
    assert!(mounted.store().join(MARKER).exists());
}
