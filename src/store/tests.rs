use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use jiff::civil::{DateTime, date};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

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

fn parse(stack: &str, name: &str) -> Option<ArchiveName> {
    ArchiveName::parse(stack, OsStr::new(name))
}

#[test]
fn archive_names_round_trip() {
    let name = parse("immich", "immich_20261123_030405.tar").unwrap();
    assert_eq!(name.time, date(2026, 11, 23).at(3, 4, 5, 0));
    assert_eq!(name.suffix, None);
    for (stack, text) in [
        ("immich", "immich_20261123_030405-2.tar"),
        ("immich", "immich_20261123_030405-17.tar"),
        ("my_stack-1.x", "my_stack-1.x_20240229_235959.tar"),
        ("größe", "größe_20261123_000000.tar"),
        // An hour that does not exist, or exists twice, in some time zone.
        ("a", "a_20260329_023000.tar"),
    ] {
        assert_eq!(parse(stack, text).unwrap().to_string(), text);
    }
}

#[test]
fn other_names_are_not_archive_names() {
    for text in [
        "a_20261123_030405.tar.partial",
        "a_20261123_030405.tar.gz",
        "a_20261123_030405",
        "a_20261123_030405-1.tar",
        "a_20261123_030405-0.tar",
        "a_20261123_030405-02.tar",
        "a_20261123_030405-+2.tar",
        "a_20261123_030405-.tar",
        "a_20261123_030405-2-3.tar",
        "a_20261123_030405-4294967296.tar",
        "a_20261123_030405 .tar",
        "a_20261123-030405.tar",
        "a_20261123_0304.tar",
        "a_2026112_0304050.tar",
        "a_20260230_030405.tar",
        "a_20261323_030405.tar",
        "a_20261123_240000.tar",
        "a_20261123_030460.tar",
        "a_+0261123_030405.tar",
        "a_2026112\u{661}_03040.tar",
        "A_20261123_030405.tar",
        "b_20261123_030405.tar",
        "a_b_20261123_030405.tar",
        "a20261123_030405.tar",
        "_20261123_030405.tar",
        "",
    ] {
        assert_eq!(parse("a", text), None, "{text}");
    }
    assert!(parse("a", "a_20261123_030405.tar").is_some());
    let bytes = OsStr::from_bytes(b"a_20261123_030405\xff.tar");
    assert_eq!(ArchiveName::parse("a", bytes), None);
}

#[test]
fn archive_names_are_ordered_by_time_then_suffix() {
    let sorted = [
        "a_20251231_235959.tar",
        "a_20260101_000000.tar",
        "a_20260101_000000-2.tar",
        "a_20260101_000000-10.tar",
        "a_20260101_000001.tar",
    ];
    let mut names: Vec<ArchiveName> = sorted.iter().map(|n| parse("a", n).unwrap()).collect();
    names.reverse();
    names.sort();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, sorted);
}

proptest! {
    #[test]
    fn what_parses_round_trips(text in "a_[0-9]{8}_[0-9]{6}(-[0-9]{1,3})?\\.tar") {
        if let Some(name) = parse("a", &text) {
            prop_assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn every_time_has_a_name_that_parses(
        seconds in 0..4_000_000_000_i64,
        nanosecond in 0..1_000_000_000_i64,
        suffix in prop::option::of(2..5000_u32),
    ) {
        let time = DateTime::constant(1970, 1, 1, 0, 0, 0, 0)
            + jiff::SignedDuration::new(seconds, nanosecond as i32);
        let mut name = ArchiveName::new("a", time);
        name.suffix = suffix;
        prop_assert_eq!(parse("a", &name.to_string()), Some(name));
    }
}

#[test]
fn a_finished_archive_has_its_name_and_a_partial_has_not() {
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
fn nothing_is_overwritten() {
    let (_dir, store) = store();
    put(&store, "a", &format!("a_{STAMP}.tar"), b"old");
    put(&store, "a", &format!("a_{STAMP}-2.tar.partial"), b"other");
    let partial = store.create_partial("a", now()).unwrap();
    assert!(partial.path().ends_with(format!("a_{STAMP}-3.tar.partial")));
    // Taken only after the partial was begun.
    put(&store, "a", &format!("a_{STAMP}-3.tar"), b"meanwhile");
    let path = partial.finish().unwrap();
    assert!(path.ends_with(format!("a_{STAMP}-4.tar")));
    for (suffix, content) in [("", "old"), ("-3", "meanwhile"), ("-4", "")] {
        let path = store.path().join(format!("a/a_{STAMP}{suffix}.tar"));
        assert_eq!(fs::read_to_string(path).unwrap(), content);
    }
}

#[test]
fn a_file_system_without_that_rename_replaces_nothing_either() {
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
fn only_leftover_partials_are_removed() {
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

    assert_eq!(store.remove_partials(Some("a")).unwrap(), [left_a]);
    assert_eq!(store.remove_partials(None).unwrap(), [left_b]);
    assert_eq!(
        store.remove_partials(Some("none")).unwrap(),
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
fn a_directory_of_a_stack_that_is_a_symlink_is_refused() {
    let (dir, store) = store();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a_20260101_000000.tar"), "").unwrap();
    fs::write(outside.join("a_20260101_000000.tar.partial"), "").unwrap();
    symlink(&outside, store.path().join("a")).unwrap();
    assert!(store.list("a").is_err());
    assert!(store.remove_partials(Some("a")).is_err());
    assert!(store.create_partial("a", now()).is_err());
    assert_eq!(store.stacks().unwrap(), [""; 0]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
}

#[test]
fn a_stack_cannot_name_a_directory_elsewhere() {
    let (_dir, store) = store();
    for stack in ["", ".", "..", "a/b", "../x", "/etc", "a\0"] {
        let error = store.create_partial(stack, now()).unwrap_err();
        assert!(error.to_string().contains("not usable"), "{error}");
        assert!(store.list(stack).is_err());
    }
}

#[test]
fn one_archive_is_removed_and_no_other() {
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
fn what_is_no_archive_cannot_be_removed() {
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
fn a_store_that_does_not_exist_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::open(&dir.path().join("none")).unwrap_err();
    assert!(error.to_string().starts_with("open backup directory /"));
}
