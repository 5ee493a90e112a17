//! This program restores its own archives and those of GNU tar.

use std::os::unix::fs::MetadataExt as _;

use super::facts::{differences, facts};
use super::tools::run;
use super::tree::{Scope, build};
use super::*;
use crate::restore::selection::Selection;
use crate::restore::{Archive, to_directory};

fn restore(archive: &Path, to: &Path) -> anyhow::Result<crate::restore::ExtractSummary> {
    to_directory(
        &Archive::open(archive)?,
        to,
        &Selection::default(),
        true,
        &GO_ON,
    )
}

/// Restores as from a pipe.
fn restore_stream(archive: &Path, to: &Path) {
    use crate::archive::{Input, Reader};
    use crate::restore::{Destination, ExtractOptions, extract};
    fs::create_dir(to).unwrap();
    let mut reader = Reader::new(Input::Stream(Box::new(File::open(archive).unwrap()))).unwrap();
    let destination = Destination {
        prefix: Vec::new(),
        parent: File::open(to).unwrap().into(),
        name: Vec::new(),
    };
    let options = ExtractOptions {
        is_wanted: &|_| true,
        allow_devices: true,
        tolerates_refusals: false,
        cancel: &GO_ON,
    };
    extract(&mut reader, None, &[destination], &options).unwrap();
    assert!(reader.ends_with_zeros(&GO_ON).unwrap());
}

#[track_caller]
fn assert_same(original: &Path, restored: &Path, ignored: &[&str]) {
    let (original, restored) = (facts(original), facts(restored));
    assert!(original.len() > 20);
    let differences = differences(&original, &restored, ignored);
    assert!(differences.is_empty(), "{differences:#?}");
}

fn round_trip(dir: &Path) {
    let tree = dir.join("tree");
    build(&tree, Scope::Full);
    archive(&tree, &dir.join("a.tar"));
    let summary = restore(&dir.join("a.tar"), &dir.join("out")).unwrap();
    assert_eq!(summary.unrestored, [""; 0]);
    assert_same(&tree, &dir.join("out/stack"), &[]);
    restore_stream(&dir.join("a.tar"), &dir.join("stream"));
    assert_same(&tree, &dir.join("stream/stack"), &[]);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn everything_is_restored_from_a_file_and_from_a_pipe() {
    round_trip(tempfile::tempdir().unwrap().path());
}

fn on_a_loop_device(make: &[&str], check: fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let sh = |script: &str| {
        run(
            Command::new("sh").args(["-ec", script]).current_dir(&dir),
            "util-linux",
        )
    };
    sh("truncate -s 600M image; mkdir fs");
    run(
        Command::new(make[0])
            .args(&make[1..])
            .arg(dir.path().join("image")),
        "xfsprogs btrfs-progs",
    );
    sh("mount -o loop image fs");
    let result = std::panic::catch_unwind(|| check(&dir.path().join("fs")));
    sh("umount fs || umount -l fs");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_archive_of_gnu_tar_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Full);
    // GNU tar archives the two names of a FIFO as two FIFOs.
    fs::remove_file(tree.join("kinds/linked fifo")).unwrap();
    let pax = [
        "--format=posix",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--sparse",
    ];
    let lost = [
        "acl",
        "default acl",
        "capability",
        "attributes",
        "attribute with = or %",
        "trusted attributes",
        "mtime ns",
        "fraction before 1970",
        "symlink fraction before 1970",
        "holes",
        // Times before 1970 are rounded.
        "mtime",
        "directory mtime",
        "symlink mtime",
    ];
    let cases: [(&[&str], &[&str]); 5] = [
        (&[&pax[..], &["--sparse-version=1.0"]].concat(), &["holes"]),
        (&[&pax[..], &["--sparse-version=0.1"]].concat(), &["holes"]),
        (&[&pax[..], &["--sparse-version=0.0"]].concat(), &["holes"]),
        (&["--format=gnu", "--sparse"], &lost),
        (&["--format=oldgnu", "--sparse"], &lost),
    ];
    for (options, ignored) in cases {
        let _ = fs::remove_dir_all(dir.path().join("out"));
        let mut tar = Command::new("tar");
        tar.current_dir(&dir).args(options).args([
            "--warning=no-file-ignored",
            "-cf",
            "a.tar",
            "tree",
        ]);
        run(&mut tar, "tar");
        restore(&dir.path().join("a.tar"), &dir.path().join("out"))
            .unwrap_or_else(|e| panic!("{options:?}: {e:#}"));
        assert_same(&tree, &dir.path().join("out/tree"), ignored);
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_archive_with_its_root_as_a_member_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Plain);
    fs::remove_file(tree.join("kinds/linked fifo")).unwrap();
    run(
        Command::new("tar").current_dir(&tree).args([
            "--warning=no-file-ignored",
            "--format=gnu",
            "-cf",
            "../a.tar",
            ".",
        ]),
        "tar",
    );
    let owner = [
        "owner",
        "symlink owner",
        "mtime ns",
        "acl",
        "default acl",
        "capability",
        "attributes",
        "attribute with = or %",
        "trusted attributes",
        "mtime",
        "symlink mtime",
        "directory mtime",
    ];
    restore(&dir.path().join("a.tar"), &dir.path().join("out")).unwrap();
    assert_same(&tree, &dir.path().join("out"), &owner);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn only_the_picked_paths_are_restored() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Full);
    archive(&tree, &dir.path().join("a.tar"));
    let only = |names: &[&str], to: &str| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let only = Selection::new(&names, None).unwrap();
        let archive = Archive::open(&dir.path().join("a.tar")).unwrap();
        to_directory(&archive, &dir.path().join(to), &only, true, &GO_ON)
    };
    only(&["stack/sizes"], "out").unwrap();
    assert_eq!(
        fs::read_dir(dir.path().join("out/stack")).unwrap().count(),
        1
    );
    let differences = differences(
        &facts(&tree.join("sizes")),
        &facts(&dir.path().join("out/stack/sizes")),
        &[],
    );
    assert!(differences.is_empty(), "{differences:#?}");
    let error = only(&["stack/nothing"], "nothing").unwrap_err();
    assert!(
        error.to_string().contains("is called stack/nothing"),
        "{error}"
    );
    // The archive has the data of this file under another name.
    let error = only(&["stack/link from afar"], "link").unwrap_err();
    assert!(format!("{error:#}").contains("link from afar"), "{error:#}");
    let error = only(&["stack/sizes"], "out").unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
}

const LARGE_BYTES: u64 = 100_000_001;

/// Restores a large file, and a sparse file with as large a hole, from an archive
/// in `store`. Returns how much room that takes.
fn bytes_taken(file_system: &Path, store: &Path) -> u64 {
    let sh = |script: &str| {
        let mut sh = Command::new("sh");
        sh.args(["-ec", script]).current_dir(file_system);
        run(sh.env("BYTES", LARGE_BYTES.to_string()), "coreutils")
    };
    sh("mkdir tree; head -c $BYTES /dev/urandom >tree/large; \
        head -c 1048577 /dev/urandom >tree/sparse; truncate -s $BYTES tree/sparse");
    let path = store.join("a.tar");
    archive(&file_system.join("tree"), &path);
    let free = || sh("sync -f .; stat -f -c '%f * %S' .");
    let bytes = |free: String| {
        let (blocks, size) = free.trim().split_once(" * ").unwrap();
        blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap()
    };
    let before = bytes(free());
    restore(&path, &file_system.join("out")).unwrap();
    let taken = before - bytes(free());
    sh("cmp tree/large out/stack/large; cmp tree/sparse out/stack/sparse");
    taken
}

/// Data takes no room if it can be shared with the archive. From another file
/// system it is copied.
fn data_is_shared(file_system: &Path) {
    let taken = bytes_taken(file_system, file_system);
    assert!(taken < LARGE_BYTES / 20, "{taken}");
    fs::remove_dir_all(file_system.join("out")).unwrap();
    fs::remove_dir_all(file_system.join("tree")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    data_is_copied(file_system, elsewhere.path());
}

#[track_caller]
fn data_is_copied(file_system: &Path, store: &Path) {
    let taken = bytes_taken(file_system, store);
    assert!(taken >= LARGE_BYTES, "{taken}");
    assert!(taken < LARGE_BYTES * 11 / 10, "holes are kept: {taken}");
}

mod on_xfs {
    use super::*;

    const MKFS: &[&str] = &["mkfs.xfs", "-q", "-m", "reflink=1"];

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn everything_is_restored() {
        on_a_loop_device(MKFS, round_trip);
    }

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn large_data_is_shared_with_the_archive() {
        on_a_loop_device(MKFS, data_is_shared);
    }
}

mod on_btrfs {
    use super::*;

    const MKFS: &[&str] = &["mkfs.btrfs", "-q"];

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn everything_is_restored() {
        on_a_loop_device(MKFS, round_trip);
    }

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn large_data_is_shared_with_the_archive() {
        on_a_loop_device(MKFS, data_is_shared);
    }
}

/// ext4 cannot share blocks between files.
mod on_ext4 {
    use super::*;

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn large_data_is_copied() {
        on_a_loop_device(&["mkfs.ext4", "-q"], |file_system| {
            data_is_copied(file_system, file_system)
        });
    }
}

#[test]
fn what_comes_before_damage_is_restored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir -p web/a; echo data >web/a/one; ln web/a/one web/a/two; chmod 750 web/a; \
                  touch -d @1000 web/a web; echo z >z; tar --format=posix -cf a.tar web z";
    let mut shell = Command::new("sh");
    run(shell.args(["-ec", script]).current_dir(&dir), "tar");
    let path = dir.path().join("a.tar");
    let mut bytes = fs::read(&path).unwrap();
    // The name in the last header.
    let z = bytes.windows(2).rposition(|pair| pair == b"z\0").unwrap();
    bytes[z] = b'y';
    fs::write(&path, bytes).unwrap();
    let to = dir.path().join("out");
    let error = format!("{:#}", restore(&path, &to).map(drop).unwrap_err());
    assert!(
        error.contains("what comes before the error is unpacked"),
        "{error}"
    );
    let attributes = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.mode(), metadata.mtime(), metadata.ino())
    };
    let (mode, mtime, _) = attributes(&to.join("web/a"));
    assert_eq!((mode & 0o7777, mtime), (0o750, 1000));
    assert_eq!(
        attributes(&to.join("web/a/one")).2,
        attributes(&to.join("web/a/two")).2
    );
}

#[test]
fn a_name_with_endless_directories_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let restored = |depth: usize, to: &str| {
        let path = dir.path().join("deep.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        let name = "a/".repeat(depth) + "f";
        builder
            .append_data(&mut header, name, std::io::empty())
            .unwrap();
        builder.finish().unwrap();
        restore(&path, &dir.path().join(to)).map(drop)
    };
    for (depth, reason) in [
        (100_000, "longer than 65536 bytes"),
        (20_000, "20000 directories"),
    ] {
        let error = format!("{:#}", restored(depth, &depth.to_string()).unwrap_err());
        assert!(error.contains(reason), "{error}");
    }
    restored(1000, "deep").unwrap();
}
