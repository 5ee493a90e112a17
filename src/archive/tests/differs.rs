//! Differences that are reported between an archive and a tree.

use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::tree::{Scope, build};
use super::*;
use crate::restore::diff::{Diff, Place, diff};
use crate::restore::pick::Only;
use crate::restore::{Archive, to_directory};

fn compare(archive: &Path, prefix: &str, path: &Path, only: &[&str]) -> anyhow::Result<Diff> {
    let place = Place {
        prefix: prefix.as_bytes().to_vec(),
        path: path.exists().then(|| path.to_owned()),
    };
    let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
    let only = Only::new(&only, None)?;
    diff(&Archive::open(archive)?, &[place], &only, &GO_ON)
}

fn set_mtime(path: &Path, tv_sec: i64, tv_nsec: i64) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_archive_equals_its_source_and_its_restored_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, tar) = (dir.path().join("tree"), dir.path().join("a.tar"));
    build(&tree, Scope::Full);
    let inventory = archive(&tree, &tar);
    let same = compare(&tar, "stack", &tree, &[]).unwrap();
    assert_eq!(same.differences, []);
    assert_eq!(same.same_count, inventory.member_count());
    let out = dir.path().join("out");
    to_directory(
        &Archive::open(&tar).unwrap(),
        &out,
        &Only::default(),
        true,
        &GO_ON,
    )
    .unwrap();
    let restored = compare(&tar, "", &out, &[]).unwrap();
    assert_eq!(restored.differences, []);
    // The manifest is a member as well.
    assert_eq!(restored.same_count, inventory.member_count() + 1);
    // A missing tree differs in every member.
    let gone = compare(&tar, "stack", &dir.path().join("none"), &[]).unwrap();
    assert_eq!(gone.differences.len() as u64, inventory.member_count());
    assert_eq!(gone.same_count, 0);
}

/// Archives a tree, changes it and resets all times. Returns the lines that report
/// the change.
fn report_of(change: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (tree, tar) = (dir.path().join("tree"), dir.path().join("a.tar"));
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    for name in ["data", "linked", "alone", "sub/deep"] {
        fs::write(tree.join(name), "0123456789").unwrap();
    }
    fs::hard_link(tree.join("linked"), tree.join("other")).unwrap();
    symlink("data", tree.join("symlink")).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    sparse.write_all_at(b"middle", 2 << 20).unwrap();
    xattr::set(tree.join("data"), "user.kept", b"1").unwrap();
    let reset_times = || {
        for item in walkdir::WalkDir::new(&tree).contents_first(true) {
            let path = item.unwrap().into_path();
            let keeps_time = path.ends_with("touched");
            if !keeps_time {
                set_mtime(&path, 1_700_000_000, 123_456_789);
            }
        }
    };
    reset_times();
    archive(&tree, &tar);
    change(&tree);
    reset_times();
    let text = compare(&tar, "stack", &tree, &[]).unwrap().text();
    let (lines, _) = text.trim_end().rsplit_once('\n').unwrap_or(("", ""));
    lines.to_owned()
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn every_kind_of_difference_is_reported() {
    let write =
        |tree: &Path, name: &str, content: &str| fs::write(tree.join(name), content).unwrap();
    assert_eq!(report_of(|_| {}), "");
    assert_eq!(
        report_of(|t| write(t, "new\nline", "")),
        "+ stack/new\\nline"
    );
    assert_eq!(
        report_of(|t| {
            fs::create_dir(t.join("sub/dir")).unwrap();
            write(t, "sub/dir/file", "");
        }),
        "+ stack/sub/dir/\n+ stack/sub/dir/file"
    );
    assert_eq!(
        report_of(|t| fs::remove_file(t.join("alone")).unwrap()),
        "- stack/alone"
    );
    assert_eq!(
        report_of(|t| fs::remove_dir_all(t.join("sub")).unwrap()),
        "- stack/sub/\n- stack/sub/deep\n- stack/sub/empty/"
    );
    assert_eq!(
        report_of(|t| write(t, "alone", "01234")),
        "~ stack/alone: size 10 -> 5"
    );
    assert_eq!(
        report_of(|t| write(t, "alone", "012345678X")),
        "~ stack/alone: content"
    );
    assert_eq!(
        report_of(
            |t| fs::set_permissions(t.join("sub"), fs::Permissions::from_mode(0o2750)).unwrap()
        ),
        "~ stack/sub/: mode 0755 -> 2750"
    );
    assert_eq!(
        report_of(|t| chown(t.join("alone"), Some(7), Some(8)).unwrap()),
        "~ stack/alone: owner 0:0 -> 7:8"
    );
    assert_eq!(
        report_of(|t| {
            fs::remove_file(t.join("alone")).unwrap();
            symlink("data", t.join("alone")).unwrap();
        }),
        "~ stack/alone: type file -> symlink"
    );
    assert_eq!(
        report_of(|t| {
            fs::remove_dir(t.join("sub/empty")).unwrap();
            write(t, "sub/empty", "");
        }),
        "~ stack/sub/empty: type directory -> file"
    );
    assert_eq!(
        report_of(|t| {
            fs::remove_file(t.join("symlink")).unwrap();
            symlink("elsewhere", t.join("symlink")).unwrap();
        }),
        "~ stack/symlink: target data -> elsewhere"
    );
    assert_eq!(
        report_of(|t| {
            xattr::set(t.join("data"), "user.kept", b"2").unwrap();
            xattr::set(t.join("data"), "user.new", b"").unwrap();
        }),
        "~ stack/data: attribute user.kept, attribute user.new none -> set"
    );
    assert_eq!(
        report_of(|t| {
            fs::remove_file(t.join("other")).unwrap();
            write(t, "other", "0123456789");
        }),
        "~ stack/other: hard link stack/linked -> none"
    );
    assert_eq!(
        report_of(|t| {
            fs::remove_file(t.join("linked")).unwrap();
        }),
        "- stack/linked\n~ stack/other: hard link stack/linked -> none"
    );
    assert_eq!(
        report_of(|t| {
            fs::remove_file(t.join("alone")).unwrap();
            fs::hard_link(t.join("data"), t.join("alone")).unwrap();
        }),
        "~ stack/alone: attribute user.kept none -> set\n\
         ~ stack/data: hard link none -> stack/alone"
    );
    // Changes in a hole and in the data of a sparse file. A hole that is filled
    // with zeros is not a difference.
    let fill = |at: u64, bytes: &'static [u8]| {
        move |tree: &Path| {
            let file = File::options().write(true).open(tree.join("sparse"));
            file.unwrap().write_all_at(bytes, at).unwrap();
        }
    };
    for at in [100, 2 << 20, (4 << 20) - 1] {
        assert_eq!(report_of(fill(at, b"x")), "~ stack/sparse: content", "{at}");
    }
    assert_eq!(report_of(fill(1 << 20, &[0; 100_000])), "");
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn times_are_compared_to_the_nanosecond_and_only_in_picked_paths() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, tar) = (dir.path().join("tree"), dir.path().join("a.tar"));
    fs::create_dir_all(tree.join("a")).unwrap();
    for name in ["a/1", "b"] {
        fs::write(tree.join(name), name).unwrap();
        set_mtime(&tree.join(name), 1_700_000_000, 500_000_001);
    }
    archive(&tree, &tar);
    set_mtime(&tree.join("b"), 1_700_000_000, 500_000_002);
    fs::write(tree.join("a/new"), "").unwrap();
    fs::remove_file(tree.join("a/1")).unwrap();
    let lines = |only: &[&str]| {
        let text = compare(&tar, "stack", &tree, only).unwrap().text();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = lines(&[]);
    assert!(all[0].starts_with("~ stack/a/: mtime "), "{all:?}");
    assert_eq!(
        all[1..],
        [
            "- stack/a/1",
            "+ stack/a/new",
            "~ stack/b: mtime 2023-11-14T22:13:20.500000001Z -> 2023-11-14T22:13:20.500000002Z",
            "1 added, 1 removed, 2 changed, 1 the same",
        ]
    );
    assert_eq!(
        lines(&["stack/a/new", "stack/a/1"]),
        [
            "- stack/a/1",
            "+ stack/a/new",
            "1 added, 1 removed, 0 changed, 0 the same",
        ]
    );
    let error = compare(&tar, "stack", &tree, &["stack/none"]).unwrap_err();
    assert!(format!("{error:#}").contains("stack/none"), "{error:#}");
}
