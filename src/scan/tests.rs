use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::attributes::{AttributeReader, AttributeSets};
use super::exclude::CACHEDIR_SIGNATURE;
use super::queue::BATCH_COUNT;
use super::*;
use crate::sys::format::display_path;

fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

fn scan_with(sources: &[Source], patterns: &[&str], exclude_caches: bool) -> Inventory {
    let patterns: Vec<String> = patterns
        .iter()
        .map(|pattern| (*pattern).to_owned())
        .collect();
    let exclude = Exclude::new(&patterns).unwrap();
    scan(sources, &exclude, exclude_caches, &AtomicBool::new(false)).unwrap()
}

fn paths(inventory: &Inventory) -> Vec<String> {
    let mut path = Vec::new();
    (0..inventory.entries.len())
        .map(|index| {
            inventory.member_path(index, &mut path);
            display_path(&path)
        })
        .collect()
}

fn scan_paths(dir: &Path, patterns: &[&str], exclude_caches: bool) -> (Vec<String>, u64) {
    let inventory = scan_with(&[Source::open("s", dir).unwrap()], patterns, exclude_caches);
    (paths(&inventory), inventory.excluded_count())
}

#[test]
fn patterns_work_as_in_gitignore() {
    let dir = tree(&[
        "a.log",
        "keep.log",
        "sub/b.log",
        "sub/c",
        "cache/x/y",
        "sub/cache/z",
        "build",
    ]);
    let paths = |patterns: &[&str]| scan_paths(dir.path(), patterns, false);
    let all = [
        "s/",
        "s/a.log",
        "s/build",
        "s/cache/",
        "s/cache/x/",
        "s/cache/x/y",
        "s/keep.log",
        "s/sub/",
        "s/sub/b.log",
        "s/sub/c",
        "s/sub/cache/",
        "s/sub/cache/z",
    ];
    assert_eq!(paths(&[]), (all.map(str::to_owned).to_vec(), 0));
    let without = |left_out: &[&str]| -> Vec<String> {
        let kept = all
            .iter()
            .filter(|path| !left_out.iter().any(|out| path.starts_with(out)));
        kept.map(|path| (*path).to_owned()).collect()
    };
    assert_eq!(
        paths(&["*.log", "!keep.log"]),
        (without(&["s/a.log", "s/sub/b.log"]), 2)
    );
    assert_eq!(paths(&["/cache"]), (without(&["s/cache/"]), 1));
    assert_eq!(
        paths(&["cache/"]),
        (without(&["s/cache/", "s/sub/cache/"]), 2)
    );
    // A pattern for directories leaves a file of that name alone.
    assert_eq!(paths(&["build/"]), (without(&[]), 0));
    assert_eq!(paths(&["sub/**"]).0, without(&["s/sub/b", "s/sub/c"]));
    assert_eq!(paths(&["# comment", ""]), (without(&[]), 0));
}

#[test]
fn patterns_are_relative_to_the_root_of_each_source() {
    let dir = tree(&["one/data/x", "two/data/y"]);
    let open = |name: &str| Source::open(name, dir.path().join(name)).unwrap();
    let inventory = scan_with(&[open("one"), open("two")], &["/data"], false);
    assert_eq!(paths(&inventory), ["one/", "two/"]);
}

#[test]
fn a_pattern_that_does_not_parse_is_named() {
    let error = Exclude::new(&["ok".to_owned(), "a[".to_owned()]).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("pattern \"a[\": "),
        "{error:#}"
    );
}

#[test]
fn only_the_tag_of_a_tagged_cache_is_archived_if_configured() {
    let dir = tree(&[
        "cache/a",
        "cache/sub/b",
        "other/CACHEDIR.TAG",
        "other/c",
        "fake/CACHEDIR.TAG/d",
    ]);
    let tag = [&CACHEDIR_SIGNATURE[..], b"\n# more"].concat();
    fs::write(dir.path().join("cache/CACHEDIR.TAG"), tag).unwrap();
    let kept = [
        "s/",
        "s/cache/",
        "s/cache/CACHEDIR.TAG",
        "s/fake/",
        "s/fake/CACHEDIR.TAG/",
        "s/fake/CACHEDIR.TAG/d",
        "s/other/",
        "s/other/CACHEDIR.TAG",
        "s/other/c",
    ];
    let (paths, excluded_count) = scan_paths(dir.path(), &[], true);
    assert_eq!(
        (&paths[..], excluded_count),
        (&kept.map(str::to_owned)[..], 2)
    );
    let (paths, excluded_count) = scan_paths(dir.path(), &[], false);
    assert_eq!((paths.len(), excluded_count), (kept.len() + 3, 0));
}

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
fn hard_links_are_found_within_a_source_only() {
    let dir = tree(&["one/a", "one/sub/x", "two/a"]);
    fs::hard_link(dir.path().join("one/a"), dir.path().join("one/sub/b")).unwrap();
    fs::hard_link(dir.path().join("one/a"), dir.path().join("two/b")).unwrap();
    fs::hard_link(dir.path().join("one/a"), dir.path().join("two/c")).unwrap();
    let open = |name: &str| Source::open(name, dir.path().join(name)).unwrap();
    let inventory = scan_with(&[open("one"), open("two")], &[], false);
    let links: Vec<_> = (0..inventory.entries.len())
        .filter_map(|index| match inventory.entries[index].node {
            Node::HardLink { first } => Some((index, first)),
            _ => None,
        })
        .collect();
    assert_eq!(
        paths(&inventory),
        [
            "one/",
            "one/a",
            "one/sub/",
            "one/sub/b",
            "one/sub/x",
            "two/",
            "two/a",
            "two/b",
            "two/c"
        ]
    );
    assert_eq!(links, [(3, 1), (8, 7)]);
    let bytes = ["one/a", "one/sub/x", "two/a", "one/a"].map(str::len);
    assert_eq!(
        inventory.content_bytes(),
        bytes.iter().sum::<usize>() as u64
    );
}

#[test]
fn files_are_found_by_device_and_inode() {
    let dir = tree(&["a", "sub/b", "c"]);
    fs::hard_link(dir.path().join("sub/b"), dir.path().join("sub/link")).unwrap();
    let inventory = scan_with(&[Source::open("s", dir.path()).unwrap()], &[], false);
    let key = |path: &str| {
        let meta = fs::metadata(dir.path().join(path)).unwrap();
        (meta.dev(), meta.ino())
    };
    let (b, directory) = (key("sub/b"), key("sub"));
    let wanted = HashSet::from([b, directory, (b.0 + 1, key("a").1)]);
    assert_eq!(
        inventory.find_files(&wanted),
        [(b.0, b.1, "s/sub/b".to_owned())]
    );
    assert!(inventory.find_files(&HashSet::new()).is_empty());
}

#[test]
fn an_inventory_stays_small() {
    assert!(size_of::<Entry>() <= 80, "{}", size_of::<Entry>());
}

#[test]
fn entries_are_in_the_order_of_the_archive_with_their_own_attributes() {
    let dir = tempfile::tempdir().unwrap();
    for outer in 0..40 {
        for inner in ["a", "b/deep/deeper", "c"] {
            let path = dir.path().join(format!("{outer}/{inner}"));
            fs::create_dir_all(&path).unwrap();
            for file in 0..100 {
                fs::write(path.join(format!("{file}")), b"").unwrap();
            }
            // The symlinks of all directories have the same name.
            symlink(format!("{outer}/{inner}"), path.join("link")).unwrap();
            xattr::set(path.join("7"), "user.of", inner.as_bytes()).unwrap();
        }
    }
    let walk = walkdir::WalkDir::new(dir.path()).sort_by_file_name();
    let expected: Vec<String> = walk
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let slash = if entry.file_type().is_dir() { "/" } else { "" };
            let path = entry.path().strip_prefix(dir.path()).unwrap();
            let path = Path::new("s").join(path);
            format!("{}{slash}", path.to_str().unwrap().trim_end_matches('/'))
        })
        .collect();
    assert!(expected.len() > BATCH_COUNT);
    let inventory = scan_with(&[Source::open("s", dir.path()).unwrap()], &[], false);
    assert_eq!(paths(&inventory), expected);
    for (entry, path) in inventory.entries.iter().zip(&expected) {
        let directory = path.rsplit_once('/').unwrap().0;
        let inner = directory.splitn(3, '/').nth(2).unwrap_or_default();
        let found: Vec<_> = inventory.attributes(entry).collect();
        match path.ends_with("/7") && !inner.is_empty() {
            true => assert_eq!(found, [(&b"user.of"[..], inner.as_bytes())], "{path}"),
            false => assert_eq!(found, [], "{path}"),
        }
        if path.ends_with("/link") {
            let target = inventory.symlink_target(entry.node);
            assert_eq!(format!("s/{}", String::from_utf8_lossy(target)), directory);
        }
    }
}

/// A container's seccomp filter may forbid a working directory of the thread's
/// own. Then the working directory of all other threads must not change.
#[test]
fn attributes_are_read_with_and_without_a_working_directory_of_the_thread() {
    let dir = tree(&["a"]);
    xattr::set(dir.path().join("a"), "user.of", b"a").unwrap();
    symlink("a", dir.path().join("link")).unwrap();
    let here = std::env::current_dir().unwrap();
    let directory = File::open(dir.path()).unwrap();
    for is_apart in [false, true] {
        let sets = AttributeSets::default();
        std::thread::scope(|scope| {
            let read = || {
                let mut reader = AttributeReader::new(&sets);
                if is_apart {
                    reader.set_apart();
                }
                reader.enter(directory.as_fd());
                let is_there = std::env::current_dir().unwrap() == dir.path();
                assert_eq!(is_there, is_apart);
                ["a", "link"].map(|name| reader.read(name.as_bytes()).unwrap())
            };
            assert_eq!(scope.spawn(read).join().unwrap(), [Some(0), None]);
        });
        assert_eq!(std::env::current_dir().unwrap(), here);
    }
}

#[test]
fn attributes_of_any_length_are_read() {
    let dir = tree(&["short", "values", "names"]);
    let set = |file: &str, name: &str, value: &[u8]| {
        xattr::set(dir.path().join(file), name, value).unwrap();
    };
    set("short", "user.a", b"b");
    set("values", "user.long", &[7; 2000]);
    set("values", "user.none", b"");
    let names: Vec<String> = (100..120).map(|n| format!("user.long-name-{n}")).collect();
    for name in &names {
        set("names", name, name.as_bytes());
    }
    let inventory = scan_with(&[Source::open("s", dir.path()).unwrap()], &[], false);
    let of = |path: &str| -> Vec<(String, Vec<u8>)> {
        let index = paths(&inventory).iter().position(|found| found == path);
        inventory
            .attributes(&inventory.entries[index.unwrap()])
            .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec()))
            .collect()
    };
    assert_eq!(of("s/short"), [("user.a".to_owned(), b"b".to_vec())]);
    let long = ("user.long".to_owned(), vec![7; 2000]);
    assert_eq!(of("s/values"), [long, ("user.none".to_owned(), Vec::new())]);
    let expected = names.iter().map(|n| (n.clone(), n.clone().into_bytes()));
    assert_eq!(of("s/names"), expected.collect::<Vec<_>>());
}

#[test]
fn equal_sets_of_attributes_are_stored_once() {
    let dir = tree(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        xattr::set(dir.path().join(name), "user.same", b"value").unwrap();
    }
    xattr::set(dir.path().join("c"), "user.other", b"").unwrap();
    let inventory = scan_with(&[Source::open("s", dir.path()).unwrap()], &[], false);
    assert_eq!(inventory.attributes.len(), 2);
    let of_c: Vec<_> = inventory.attributes(&inventory.entries[3]).collect();
    assert_eq!(
        of_c,
        [(&b"user.other"[..], &b""[..]), (b"user.same", b"value")]
    );
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

#[test]
fn small_holes_become_data_in_a_file_with_very_many_extents() {
    let extents: Vec<_> = (0..10)
        .map(|i| Extent {
            offset: i * 8192,
            bytes: 4096,
            stored: 0,
        })
        .chain([Extent {
            offset: 1 << 20,
            bytes: 1,
            stored: 0,
        }])
        .collect();
    let merged = sparse::merged(&extents, 8192);
    assert_eq!(
        merged,
        [
            Extent {
                offset: 0,
                bytes: 9 * 8192 + 4096,
                stored: 0
            },
            Extent {
                offset: 1 << 20,
                bytes: 1,
                stored: 0
            }
        ]
    );
}

#[test]
fn holes_of_less_than_64_kib_are_stored_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create_new(dir.path().join("file")).unwrap();
    let extents = |size| {
        file.set_len(0).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        sparse::extents(&file, size).unwrap()
    };
    assert_eq!(extents(4096 + 65_535), None);
    let one = Extent {
        offset: 0,
        bytes: 4096,
        stored: 0,
    };
    assert_eq!(extents(4096 + 65_536).as_deref(), Some(&[one][..]));
}

#[test]
fn paths_are_shown_on_one_line() {
    assert_eq!(display_path(b"a/b c"), "a/b c");
    assert_eq!(display_path("caf\u{e9}".as_bytes()), "caf\u{e9}");
    assert_eq!(display_path(b"a\nb\x1b[31m\\"), "a\\nb\\u{1b}[31m\\\\");
    assert_eq!(display_path(b"caf\xe9"), "caf\u{fffd}");
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_names_that_xfs_gives_to_acls_are_left_out() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test sets trusted attributes: run it as root"
    );
    let dir = tree(&["a"]);
    for name in ["trusted.SGI_ACL_FILE", "trusted.SGI_OTHER"] {
        // XFS accepts only real ACLs under its own name.
        let set = xattr::set(dir.path().join("a"), name, b"value");
        assert!(set.is_ok() || name == "trusted.SGI_ACL_FILE");
    }
    let inventory = scan_with(&[Source::open("s", dir.path()).unwrap()], &[], false);
    let kept: Vec<_> = inventory.attributes(&inventory.entries[1]).collect();
    assert_eq!(kept, [(&b"trusted.SGI_OTHER"[..], &b"value"[..])]);
}
