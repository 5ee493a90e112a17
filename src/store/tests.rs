use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::civil::{DateTime, date};
use rustix::io::Errno;
use tempfile::TempDir;

use super::{Partial, Store};

const STAMP: &str = "20261123_030000";

fn now() -> DateTime {
    date(2026, 11, 23).at(3, 0, 0, 0)
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("backups")).unwrap();
    (dir, store)
}

/// Puts a file into a stack's directory.
fn put(store: &Store, stack: &str, name: &str, content: &[u8]) -> PathBuf {
    let dir = store.path().join(stack);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), content).unwrap();
    dir.join(name)
}

fn names_in(store: &Store, stack: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(store.path().join(stack))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn list_names(store: &Store, stack: &str) -> Vec<String> {
    let archives = store.list(stack).unwrap();
    archives.iter().map(|a| a.name.to_string()).collect()
}

#[test]
fn only_a_finished_archive_has_an_archive_name() {
    let (_dir, store) = store();
    let partial = store.create_partial("immich", now()).unwrap();
    partial.file().write_all(&[0; 1024]).unwrap();
    assert_eq!(
        names_in(&store, "immich"),
        [format!("immich_{STAMP}.tar.partial")]
    );
    assert_eq!(store.list("immich").unwrap(), []);
    let expected = store.path().join(format!("immich/immich_{STAMP}.tar"));
    assert_eq!(partial.final_path(), expected);

    let path = partial.finish().unwrap();
    assert_eq!(path, expected);
    assert_eq!(names_in(&store, "immich"), [format!("immich_{STAMP}.tar")]);
    let archives = store.list("immich").unwrap();
    assert_eq!(archives[0].path, path);
    assert_eq!(archives[0].archive_bytes, 1024);
    assert!(archives[0].complete);
}

#[test]
fn only_the_owner_can_read_the_store() {
    let (_dir, store) = store();
    let path = store.create_partial("a", now()).unwrap().finish().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(store.path()), 0o700);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_new_archive_replaces_no_other_file() {
    let (_dir, store) = store();
    put(&store, "a", &format!("a_{STAMP}.tar"), b"old");
    put(&store, "a", &format!("a_{STAMP}-2.tar.partial"), b"other");
    let partial = store.create_partial("a", now()).unwrap();
    assert!(partial.path().ends_with(format!("a_{STAMP}-3.tar.partial")));
    // This name is taken only after the partial was created.
    put(&store, "a", &format!("a_{STAMP}-3.tar"), b"meanwhile");
    let path = partial.finish().unwrap();
    assert!(path.ends_with(format!("a_{STAMP}-4.tar")));
    for (suffix, content) in [("", "old"), ("-3", "meanwhile"), ("-4", "")] {
        let path = store.path().join(format!("a/a_{STAMP}{suffix}.tar"));
        assert_eq!(fs::read_to_string(path).unwrap(), content);
    }
}

#[test]
fn nothing_is_replaced_where_the_file_system_cannot_rename_without_replacing() {
    let ways: [fn(&Partial, &str) -> rustix::io::Result<()>; 2] =
        [Partial::link_to, Partial::rename_to_absent];
    for give_name in ways {
        let (_dir, store) = store();
        put(&store, "a", "taken.tar", b"old");
        let partial = store.create_partial("a", now()).unwrap();
        assert_eq!(give_name(&partial, "taken.tar"), Err(Errno::EXIST));
        assert!(partial.path().exists());
        give_name(&partial, "free.tar").unwrap();
        assert_eq!(names_in(&store, "a"), ["free.tar", "taken.tar"]);
        let named = fs::metadata(store.path().join("a/free.tar")).unwrap();
        assert_eq!((named.nlink(), named.len()), (1, 0));
    }
}

#[test]
fn an_unfinished_partial_is_removed_when_dropped() {
    let (_dir, store) = store();
    drop(store.create_partial("a", now()).unwrap());
    assert_eq!(names_in(&store, "a"), [""; 0]);
}

#[test]
fn only_unfinished_archives_are_removed_as_leftovers() {
    let (_dir, store) = store();
    let keep = [
        "a_20261123_030000.tar",
        "a_20261123_030000.tar.part",
        "b_20261123_030000.tar.partial",
        "a_20261123_030000-1.tar.partial",
        "a_20261323_030000.tar.partial",
        "notes.partial",
    ];
    for name in keep {
        put(&store, "a", name, b"");
    }
    fs::create_dir(store.path().join("a/a_20261123_030002.tar.partial")).unwrap();
    let target = put(&store, "a", "target", b"");
    symlink(
        &target,
        store.path().join("a/a_20261123_030003.tar.partial"),
    )
    .unwrap();
    let left_a = put(&store, "a", "a_20261123_030000.tar.partial", b"");
    let left_b = put(&store, "b", "b_20261123_030000-2.tar.partial", b"");

    assert_eq!(store.remove_leftovers(Some("a")).unwrap(), [left_a]);
    assert_eq!(store.remove_leftovers(None).unwrap(), [left_b]);
    assert_eq!(
        store.remove_leftovers(Some("none")).unwrap(),
        [""; 0].map(PathBuf::from)
    );
    for name in keep {
        assert!(store.path().join("a").join(name).exists(), "{name}");
    }
    assert_eq!(names_in(&store, "a").len(), keep.len() + 3);
}

#[test]
fn only_regular_files_with_archive_names_are_listed() {
    let (_dir, store) = store();
    put(&store, "a", "a_20261123_030000-2.tar", b"");
    put(&store, "a", "a_20261123_030000.tar", b"");
    put(&store, "a", "a_20251123_030000.tar", b"");
    put(&store, "a", "b_20251123_030000.tar", b"");
    let target = put(&store, "a", "other.tar", b"");
    symlink(&target, store.path().join("a/a_20240101_000000.tar")).unwrap();
    fs::create_dir(store.path().join("a/a_20240102_000000.tar")).unwrap();
    let fifo = store.path().join("a/a_20240103_000000.tar");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        list_names(&store, "a"),
        [
            "a_20251123_030000.tar",
            "a_20261123_030000.tar",
            "a_20261123_030000-2.tar"
        ]
    );
    assert_eq!(store.list("unknown").unwrap(), []);
}

#[test]
fn an_archive_that_was_cut_short_is_incomplete() {
    let (_dir, store) = store();
    let mut header = tar::Header::new_ustar();
    header.set_path("a/file").unwrap();
    header.set_size(512);
    header.set_cksum();
    let whole = [header.as_bytes().as_slice(), &[7; 512], &[0; 1024]].concat();
    let cases: [(&str, &[u8], bool); 6] = [
        ("a_20260101_000000.tar", &whole, true),
        ("a_20260102_000000.tar", &[], false),
        ("a_20260103_000000.tar", &whole[..1024], false),
        ("a_20260104_000000.tar", &whole[..1535], false),
        ("a_20260105_000000.tar", &[0; 512], false),
        ("a_20260106_000000.tar", &[0; 10240], true),
    ];
    for (name, content, _) in cases {
        put(&store, "a", name, content);
    }
    for (archive, (name, _, complete)) in store.list("a").unwrap().iter().zip(cases) {
        assert_eq!(archive.name.to_string(), name);
        assert_eq!(archive.complete, complete, "{name}");
    }
}

#[test]
fn a_symlink_in_place_of_a_stack_directory_is_refused() {
    let (dir, store) = store();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a_20260101_000000.tar"), "").unwrap();
    fs::write(outside.join("a_20260101_000000.tar.partial"), "").unwrap();
    symlink(&outside, store.path().join("a")).unwrap();
    assert!(store.list("a").is_err());
    assert!(store.remove_leftovers(Some("a")).is_err());
    assert!(store.create_partial("a", now()).is_err());
    assert_eq!(store.stacks().unwrap(), [""; 0]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
}

#[test]
fn a_stack_name_cannot_lead_out_of_the_store() {
    let (_dir, store) = store();
    for stack in ["", ".", "..", "a/b", "../x", "/etc", "a\0"] {
        let error = store.create_partial(stack, now()).unwrap_err();
        assert!(
            error.to_string().contains("cannot name a directory"),
            "{error}"
        );
        assert!(store.list(stack).is_err());
    }
}

#[test]
fn removing_an_archive_leaves_the_others() {
    let (_dir, store) = store();
    put(&store, "a", "a_20260101_000000.tar", &[0; 2048]);
    put(&store, "a", "a_20260101_000000-2.tar", &[0; 1024]);
    let archives = store.list("a").unwrap();
    assert_eq!(store.remove(&archives[0]).unwrap(), 2048);
    assert_eq!(list_names(&store, "a"), ["a_20260101_000000-2.tar"]);
    let error = store.remove(&archives[0]).unwrap_err();
    assert!(
        format!("{error:#}").ends_with("no such archive"),
        "{error:#}"
    );
}

#[test]
fn only_regular_files_with_archive_names_can_be_removed() {
    let (_dir, store) = store();
    put(&store, "a", "a_20260101_000000.tar", &[0; 2048]);
    let good = store.list("a").unwrap().remove(0);

    let mut suffix = good.clone();
    suffix.name.suffix = Some(1);
    put(&store, "a", "a_20260101_000000-1.tar", b"");
    assert!(store.remove(&suffix).is_err());

    let target = put(&store, "a", "target", b"");
    let mut link = good.clone();
    link.name.suffix = Some(2);
    symlink(&target, store.path().join("a").join(link.name.to_string())).unwrap();
    assert!(store.remove(&link).is_err());
    assert_eq!(names_in(&store, "a").len(), 4);
    assert!(store.remove(&good).is_ok());
}

#[test]
fn usage_counts_the_archives_of_all_stacks() {
    let (_dir, store) = store();
    put(&store, "a", "a_20260101_000000.tar", &[0; 1024]);
    put(&store, "a", "a_20260102_000000.tar", &[0; 2048]);
    put(&store, "a", "a_20260102_000000.tar.partial", &[0; 4096]);
    put(&store, "b", "b_20260101_000000.tar", &[0; 512]);
    put(&store, "b", "a_20260101_000000.tar", &[0; 512]);
    fs::write(store.path().join("file"), "").unwrap();
    let usage = store.usage().unwrap();
    assert_eq!(usage.archive_count, 3);
    assert_eq!(usage.archive_bytes, 3584);
    assert!(usage.file_system_total_bytes > 0);
    assert!(usage.file_system_available_bytes <= usage.file_system_total_bytes);
    assert!(store.available_bytes().unwrap() > 0);
    assert_eq!(store.stacks().unwrap(), ["a", "b"]);
}

#[test]
fn a_missing_store_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::open(&dir.path().join("none")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot open the backup directory /")
    );
}
