use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use super::{paths, scan_with, tree};
use crate::scan::queue::BATCH_COUNT;
use crate::scan::{Entry, Extent, Node, Source, sparse};
use crate::sys::format::display_path;

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
