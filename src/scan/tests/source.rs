use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Mode, OFlags};

use super::{paths, scan_paths, scan_with, tree};
use crate::scan::{Exclude, Source, scan};

#[test]
fn a_source_may_be_a_symlink_a_single_file_or_a_socket() {
    let dir = tree(&["real/file", "single"]);
    symlink("real", dir.path().join("link")).unwrap();
    symlink("single", dir.path().join("link to single")).unwrap();
    let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    let open = |prefix: &str, path: &str| Source::open(prefix, dir.path().join(path)).unwrap();
    let sources = [
        open("s", "link"),
        open("s.binds/socket", "socket"),
        open("s.binds/etc/single", "link to single"),
    ];
    let inventory = scan_with(&sources, &[], false);
    assert_eq!(paths(&inventory), ["s/", "s/file", "s.binds/etc/single"]);
    assert_eq!(inventory.socket_count(), 1);
    let in_sources: Vec<_> = (0..3).map(|index| inventory.source_of(index)).collect();
    assert_eq!(in_sources, [0, 0, 2]);
    // The handle leads to the same file after a rename.
    fs::rename(dir.path().join("single"), dir.path().join("moved")).unwrap();
    let mut start = [0; 6];
    sources[2]
        .open_file(b"")
        .unwrap()
        .read_exact_at(&mut start, 0)
        .unwrap();
    assert_eq!(&start, b"single");
}

#[test]
fn a_source_needs_a_plain_member_path_and_an_existing_tree() {
    for prefix in ["", "/a", "a/", "a//b", "../a", "a/.", "a\0b"] {
        assert!(Source::open(prefix, "/").is_err(), "{prefix:?}");
    }
    assert!(Source::open("a.volumes/b-c_d", "/").is_ok());
    let error = Source::open("a", "/nowhere/at/all").unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "cannot open /nowhere/at/all: No such file or directory (os error 2)"
    );
}

#[test]
fn nothing_outside_a_source_can_be_opened() {
    use rustix::fs::OFlags;
    use rustix::io::Errno;
    let dir = tree(&["tree/sub/file", "outside"]);
    symlink("sub", dir.path().join("tree/link")).unwrap();
    symlink("/", dir.path().join("tree/root")).unwrap();
    let source = Source::open("s", dir.path().join("tree")).unwrap();
    let open = |rel: &str| source.open_beneath(rel.as_bytes(), OFlags::RDONLY).err();
    assert_eq!(open("sub/file"), None);
    assert_eq!(open(""), None);
    assert_eq!(open("sub/../sub"), None);
    assert_eq!(open("../outside"), Some(Errno::XDEV));
    assert_eq!(open("sub/../../outside"), Some(Errno::XDEV));
    assert_eq!(open("/etc/passwd"), Some(Errno::XDEV));
    assert_eq!(open("link/file"), Some(Errno::LOOP));
    assert_eq!(open("link"), Some(Errno::LOOP));
    assert_eq!(open("root/etc/passwd"), Some(Errno::LOOP));
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn mount_points_are_crossed() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts: run it as root"
    );
    let dir = tree(&["tree/a", "tree/mounted/hidden", "other/inside"]);
    let (from, at) = (dir.path().join("other"), dir.path().join("tree/mounted"));
    let run = |program: &str, paths: &[&Path]| {
        let status = Command::new(program).args(paths).status();
        assert!(status.unwrap().success(), "{program}");
    };
    run("mount", &[Path::new("--bind"), &from, &at]);
    let scanned = scan_paths(&dir.path().join("tree"), &[], false);
    run("umount", &[&at]);
    assert_eq!(scanned.0, ["s/", "s/a", "s/mounted/", "s/mounted/inside"]);
}

/// Makes directories, each within the one before.
fn nest(dir: &Path, depth: usize, name: &str) {
    let mut at = std::os::fd::OwnedFd::from(fs::File::open(dir).unwrap());
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name, OFlags::PATH, Mode::empty()).unwrap();
    }
}

#[test]
fn deep_trees_are_scanned_and_a_path_that_no_archive_can_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    nest(dir.path(), 3000, "d");
    let scanned = || {
        let source = Source::open("s", dir.path()).unwrap();
        let go_on = AtomicBool::new(false);
        scan(&[source], &Exclude::new(&[]).unwrap(), false, &go_on)
    };
    assert_eq!(scanned().unwrap().member_count(), 3001);
    nest(dir.path(), 300, &"n".repeat(250));
    let error = format!("{:#}", scanned().unwrap_err());
    assert!(error.contains("longer than the 65536 bytes"), "{error}");
    assert!(error.len() < 1000, "{error}");
    crate::sys::remove_tree::remove_tree(dir.path()).unwrap();
}
