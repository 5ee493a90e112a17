//! What is not copied while the stack is up.

use std::fs;
use std::path::Path;
use std::thread;

use super::disk::Disk;
use super::{Precopy, Setting, StoredDraft, TICKS, Terms};

/// Makes a draft of a tree in `place` that holds one file.
fn draft_of_one_file(place: &Path, content: &str) -> Option<StoredDraft> {
    let tree = place.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), content).unwrap();
    let setting = Setting::new(&tree, place);
    setting.precopy(TICKS, |precopy| setting.draft(precopy))
}

/// A store to a mapped page of tmpfs moves ctime only the first time.
#[test]
#[ignore = "needs root; run scripts/test"]
fn a_tree_on_tmpfs_is_not_copied_while_up() {
    assert!(draft_of_one_file(&Disk::tmpfs().path, "x").is_none());
    // The control.
    assert!(draft_of_one_file(&Disk::new("ext4", &["-q"]).path, "x").is_some());
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_empty_file_does_not_count_as_untracked() {
    let draft = draft_of_one_file(&Disk::new("ext4", &["-q"]).path, "").unwrap();
    assert_eq!(draft.untracked_bytes, 0);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_pass_leaves_half_of_the_room_and_an_update_some_of_it() {
    let disk = Disk::new("ext4", &["-q"]);
    let tree = disk.path.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("old"), vec![7; 12 << 20]).unwrap();
    let change = || fs::write(tree.join("young"), vec![7; 4 << 20]).unwrap();
    let setting = Setting::new(&tree, &disk.path);
    let terms = Terms {
        pass_from_bytes: 0,
        ..TICKS
    };
    let with_room = |available_bytes: u64| {
        change();
        thread::sleep(terms.settled_after * 2);
        setting.precopy(terms, |precopy| {
            let scan = || {
                change();
                setting.scan()
            };
            let precopy = Precopy {
                scan: &scan,
                available_bytes: &|| Ok(available_bytes),
                ..*precopy
            };
            let mut draft = setting.draft(&precopy).unwrap();
            let update = precopy.update(&mut draft, &scan().unwrap()).unwrap();
            (draft.pass_count > 1, update.is_some())
        })
    };
    assert_eq!(with_room(6 << 20), (false, false));
    assert_eq!(with_room(16 << 20), (true, true));
}
