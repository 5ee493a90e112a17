//! Blocks that an archive and its stack share, as reported by the file system.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::common::disk::Disk;
use crate::common::ledger::{Ledger, Shape};
use crate::common::succeed;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const SHAPE: Shape = Shape {
    old_mib: 17,
    young_mib: 1,
    grows: 0,
};

fn xfs() -> Disk {
    Disk::of("xfs", &["-q", "-m", "reflink=1"], 500)
}

fn btrfs() -> Disk {
    Disk::of("btrfs", &["-q"], 500)
}

/// A stack with files of 2 MiB that were created after the first run.
fn ledger(disk: &Disk, options: Value, names: &[&str]) -> Ledger {
    let ledger = Ledger::new(disk, SHAPE, options);
    for (i, name) in names.iter().enumerate() {
        let path = ledger.stack.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.starts_with("nocow/") {
            succeed("chattr", ["+C", path.parent().unwrap().to_str().unwrap()]);
        }
        fs::write(path, vec![i as u8 + 1; 2 * MIB]).unwrap();
    }
    thread::sleep(Duration::from_millis(2100));
    ledger
}

/// Makes a backup, and returns the capture section of its outcome.
fn run(ledger: &mut Ledger) -> Value {
    let json = ledger.place.run().expect_status(0).json();
    let capture = ledger.stack.outcome(&json)["capture"].clone();
    assert_eq!(capture["method"], "precopy", "{capture}");
    capture
}

/// Returns whether all of a file's blocks are shared (FIEMAP). Fails if only
/// some are.
fn is_shared(path: &Path) -> bool {
    let listing = succeed("filefrag", ["-s", "-v", path.to_str().unwrap()]);
    let extents = listing.lines().filter(|line| line.contains(".."));
    let shared: Vec<bool> = extents.map(|line| line.contains("shared")).collect();
    assert!(!shared.is_empty(), "{listing}");
    assert!(shared.iter().all(|s| *s == shared[0]), "{listing}");
    shared[0]
}

#[track_caller]
fn assert_shared(ledger: &Ledger, expected: &[(&str, bool)]) {
    for (name, is_expected) in expected {
        let path = ledger.stack.dir.join(name);
        assert_eq!(is_shared(&path), *is_expected, "{name}");
    }
}

/// Checks that the newest archive holds these files as they are now.
#[track_caller]
fn assert_archived(ledger: &mut Ledger, names: &[&str]) {
    let archive = ledger.archives().pop().unwrap();
    let target = ledger.place.extract(&archive).join(&ledger.stack.name);
    for name in names {
        let copy = fs::read(target.join(name)).unwrap();
        assert!(
            copy == fs::read(ledger.stack.dir.join(name)).unwrap(),
            "{name}"
        );
    }
    ledger.assert_recovered("after the run");
}

fn assert_shared_but_for_exceptions(disk: &Disk) {
    let names = ["plain", "apart/plain"];
    let mut ledger = ledger(disk, json!({"unshared": ["apart/"]}), &names);
    let capture = run(&mut ledger);
    assert_shared(
        &ledger,
        &[("plain", true), ("bulk", true), ("apart/plain", false)],
    );
    assert_eq!(capture["refusedCount"], 0, "{capture}");
    assert!(
        capture["sharedBytes"].as_u64() >= Some(19 << 20),
        "{capture}"
    );
    assert_archived(&mut ledger, &names);
}

fn assert_nothing_shared_when_unwanted(disk: &Disk) {
    let names = ["plain", "apart/plain"];
    let mut ledger = ledger(disk, json!({"share": false}), &names);
    let capture = run(&mut ledger);
    let expected = [("plain", false), ("bulk", false), ("apart/plain", false)];
    assert_shared(&ledger, &expected);
    assert_eq!(capture["refusedCount"], 0, "{capture}");
    assert_eq!(capture["sharedBytes"], 0, "{capture}");
    assert_archived(&mut ledger, &names);
}

fn assert_nothing_shared_elsewhere(disk: &Disk) {
    let mut ledger = ledger(disk, json!({}), &["plain"]);
    let elsewhere = Disk::of("xfs", &["-q", "-m", "reflink=1"], 500);
    let store = elsewhere.path.join("store");
    let stacks = json!([ledger.stack.name]);
    ledger.place.config(stacks, json!({"backupDir": store}));
    let capture = run(&mut ledger);
    assert_shared(&ledger, &[("plain", false)]);
    assert_eq!(capture["refusedCount"], 0, "{capture}");
    assert_eq!(capture["sharedBytes"], 0, "{capture}");
    let listing = fs::read_dir(store.join(&ledger.stack.name)).unwrap();
    let mut archives = listing.map(|item| item.unwrap().path());
    let archive = archives.find(|path| path.extension().unwrap() == "tar");
    ledger.assert_good(&archive.unwrap(), "elsewhere");
}

mod needs_xfs {
    use super::*;

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn blocks_are_shared_except_for_unshared_paths() {
        assert_shared_but_for_exceptions(&xfs());
    }

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn changing_files_get_their_own_blocks() {
        let disk = xfs();
        let mut ledger = ledger(&disk, json!({}), &["plain"]);
        run(&mut ledger);
        // `young` changes only its mtime, `data/pages` its content.
        let expected = [
            ("plain", true),
            ("bulk", true),
            ("young", false),
            ("data/pages", false),
        ];
        assert_shared(&ledger, &expected);
        assert_archived(&mut ledger, &["plain", "young"]);
    }

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn nothing_is_shared_when_sharing_is_disabled() {
        assert_nothing_shared_when_unwanted(&xfs());
    }

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn a_store_on_another_file_system_shares_nothing() {
        assert_nothing_shared_elsewhere(&xfs());
    }
}

mod needs_btrfs {
    use super::*;

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn blocks_are_shared_except_for_unshared_paths() {
        assert_shared_but_for_exceptions(&btrfs());
    }

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn nothing_is_shared_when_sharing_is_disabled() {
        assert_nothing_shared_when_unwanted(&btrfs());
    }

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn a_file_without_copy_on_write_is_copied_and_counted() {
        let names = ["plain", "nocow/a", "nocow/b"];
        let disk = btrfs();
        let mut ledger = ledger(&disk, json!({}), &names);
        let attributes = succeed("lsattr", [ledger.stack.dir.join("nocow/a")]);
        assert!(
            attributes.split(' ').next().unwrap().contains('C'),
            "{attributes}"
        );
        let capture = run(&mut ledger);
        assert_shared(
            &ledger,
            &[("plain", true), ("nocow/a", false), ("nocow/b", false)],
        );
        assert_eq!(capture["refusedCount"], 2, "{capture}");
        assert_archived(&mut ledger, &names);
    }

    mod needs_xfs {
        use super::*;

        #[test]
        #[ignore = "needs a Docker Engine; run scripts/test"]
        fn a_store_on_another_file_system_shares_nothing() {
            assert_nothing_shared_elsewhere(&btrfs());
        }
    }
}
