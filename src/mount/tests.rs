//! What is mounted is what a restore makes; and it is the same from night to night.

use std::fs::{self, File};
use std::path::Path;

use fuser::{FileAttr, INodeNo};

use super::file_system::ArchiveFileSystem;
use super::inodes::ROOT;
use super::*;
use crate::archive::Sums;
use crate::archive::tests::facts::{differences, facts};
use crate::archive::tests::forge::{Evil, file, write};
use crate::archive::tests::tree::{Scope, build};
use crate::archive::tests::{GO_ON, archive};
use crate::restore::selection::Selection;
use crate::restore::{Archive, to_directory};

fn write_sums(archive: &Path) {
    let sums = Sums::compute(&File::open(archive).unwrap(), &GO_ON).unwrap();
    let mut out = File::create(archive.with_extension("sums")).unwrap();
    sums.write(&mut out).unwrap();
}

fn latest(stack: &str, archive: &Path) -> View {
    let mut view = View::of_stacks();
    view.add_latest(stack, ViewedArchive::open(archive).unwrap());
    view
}

/// What stat(2) says of a path in a view.
fn stat(system: &ArchiveFileSystem, path: &str) -> FileAttr {
    let mut inode = INodeNo(ROOT);
    let mut found = None;
    for name in path.split('/') {
        let attributes = system.look_up(inode, name.as_ref());
        let attributes = attributes.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        inode = attributes.ino;
        found = Some(attributes);
    }
    found.unwrap()
}

#[test]
fn what_did_not_change_looks_the_same_the_next_night() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let put = |name: &str, content: &str| {
        fs::write(tree.join(name), content).unwrap();
        let file = File::options().append(true).open(tree.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    };
    put("same", "same");
    put("other", "before");
    put("size", "1");
    put("empty", "");
    let night = |number: u8, has_sums: bool| {
        let path = dir.path().join(format!("{number}.tar"));
        archive(&tree, &path);
        if has_sums {
            write_sums(&path);
        }
        ArchiveFileSystem(latest("web", &path))
    };
    let first = night(1, true);
    // The same size and the same time; a name before the others moves all of them.
    put("other", "after.");
    put("size", "1234");
    put("a new file", "new");
    let second = night(2, true);
    let both = |path: &str| (stat(&first, path), stat(&second, path));
    for name in ["same", "empty", ""] {
        let path = format!("web/stack/{name}");
        let (before, after) = both(path.trim_end_matches('/'));
        assert_eq!((before.ino, before.size), (after.ino, after.size), "{name}");
        if !name.is_empty() {
            assert_eq!(
                (before.mtime, before.ctime),
                (after.mtime, after.ctime),
                "{name}"
            );
        }
    }
    let (before, after) = both("web/stack/other");
    assert_eq!((before.ino, before.size), (after.ino, after.size));
    assert_eq!(before.mtime, after.mtime);
    assert_ne!(before.ctime, after.ctime);
    let (before, after) = both("web/stack/size");
    assert_eq!(before.ino, after.ino);
    assert_ne!((before.size, before.ctime), (after.size, after.ctime));
    // Without sums nothing is known of the content, so all files count as changed.
    let third = night(3, false);
    assert_eq!(
        stat(&third, "web/stack/same").ino,
        stat(&first, "web/stack/same").ino
    );
    assert_ne!(
        stat(&third, "web/stack/same").ctime,
        stat(&first, "web/stack/same").ctime
    );
    // No two files have the same number.
    let names = ["same", "other", "size", "empty", "a new file"];
    let mut numbers: Vec<u64> = names
        .iter()
        .map(|name| stat(&second, &format!("web/stack/{name}")).ino.0)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), names.len());
}

/// Mounts a view while `look` looks at it.
fn mounted_with_dev_fuse(view: View, look: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    check_mount_point(dir.path()).unwrap();
    let mounted = Mounted::new(view, dir.path()).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(dir.path())));
    mounted.unmount().unwrap();
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_mounted_tree_is_the_restored_tree_by_dev_fuse() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Full);
    let path = dir.path().join("a.tar");
    archive(&tree, &path);
    write_sums(&path);
    let out = dir.path().join("out");
    let opened = Archive::open(&path).unwrap();
    to_directory(&opened, &out, &Selection::default(), true, &GO_ON).unwrap();
    let restored = facts(&out.join("stack"));
    assert!(restored.len() > 100);
    mounted_with_dev_fuse(latest("web", &path), |mounted| {
        let shown = facts(&mounted.join("web/stack"));
        let found = differences(&restored, &shown, &[]);
        assert!(found.is_empty(), "{found:#?}");
        // The control: a comparison with another directory finds differences.
        assert!(!differences(&restored, &facts(&mounted.join("web/stack/kinds")), &[]).is_empty());
    });
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn hostile_names_and_a_hundred_thousand_members_are_shown_by_dev_fuse() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let mut members: Vec<Evil> = (0..100_000)
        .map(|number| file(format!("d/{number}"), b""))
        .collect();
    members.push(file("odd/new\nline\x1b", b"1"));
    let deep = "deep/".repeat(1000);
    members.push(crate::archive::tests::forge::pax(
        &[("path", &format!("{deep}f"))],
        file("f", b"bottom"),
    ));
    let long = format!("long/{}", "n".repeat(5000));
    members.push(crate::archive::tests::forge::pax(
        &[("path", &long)],
        file("n", b""),
    ));
    fs::write(&path, write(&members)).unwrap();
    let view = View::of_archive(ViewedArchive::open(&path).unwrap(), "web");
    mounted_with_dev_fuse(view, |mounted| {
        assert_eq!(fs::read_dir(mounted.join("d")).unwrap().count(), 100_000);
        let odd = fs::read(mounted.join("odd/new\nline\x1b")).unwrap();
        assert_eq!(odd, b"1");
        // A name that no file system takes is not left out silently.
        let mut long = fs::read_dir(mounted.join("long")).unwrap();
        assert_eq!(long.next().unwrap().unwrap_err().raw_os_error(), Some(5));
        // Longer than a path that the kernel takes.
        let mut at = File::open(mounted).unwrap();
        for _ in 0..1000 {
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
            let next = rustix::fs::openat(&at, "deep", flags, rustix::fs::Mode::empty());
            at = next.unwrap().into();
        }
        let flags = rustix::fs::OFlags::RDONLY;
        let bottom = rustix::fs::openat(&at, "f", flags, rustix::fs::Mode::empty());
        let content = std::io::read_to_string(File::from(bottom.unwrap())).unwrap();
        assert_eq!(content, "bottom");
    });
}
