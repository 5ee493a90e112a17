//! Order, offsets and bytes: the same tree gives the same archive.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

use proptest::prelude::*;

use super::tools::run;
use super::tree::{Scope, build};
use super::*;
use crate::archive::write::render::Renderer;

/// The members of an archive: path, offset of the data, and its length.
fn members(path: &Path) -> Vec<(Vec<u8>, u64, u64)> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let members = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        (
            entry.path_bytes().into_owned(),
            entry.raw_file_position(),
            entry.size(),
        )
    });
    members.collect()
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_same_tree_gives_the_same_bytes_in_whatever_order_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Full);
    // A copy in reverse order has other inodes, and another order in the
    // directories.
    let script = "mkdir copy
        cd tree && find . -mindepth 1 ! -type s -print0 | sort -rz > ../list
        tar --null --no-recursion --xattrs --xattrs-include='*' --acls --sparse \
            --format=posix -cf - -T ../list | tar -C ../copy --xattrs --xattrs-include='*' \
            --acls -p --warning=no-timestamp -xf -
        # GNU tar makes two FIFOs of one with two names.
        cd ../copy/kinds; ln -f fifo 'linked fifo'; touch -r ../../tree/kinds .
        touch -r ../../tree ../../copy; chmod --reference=../../tree ../../copy";
    run(
        Command::new("sh")
            .args(["-ec", script])
            .current_dir(dir.path()),
        "tar",
    );
    let order = |tree: &str| {
        let listing = fs::read_dir(dir.path().join(tree).join("kinds")).unwrap();
        let mut found: Vec<_> = listing.map(|found| found.unwrap()).collect();
        found.retain(|found| found.file_name() != "socket");
        found.sort_by_key(|found| found.ino());
        let names = found.iter().map(|found| found.file_name());
        names.collect::<Vec<_>>()
    };
    assert_ne!(
        order("tree"),
        order("copy"),
        "the copy has the same order as the tree"
    );
    archive(&tree, &dir.path().join("a.tar"));
    archive(&dir.path().join("copy"), &dir.path().join("b.tar"));
    let (a, b) = (
        fs::read(dir.path().join("a.tar")).unwrap(),
        fs::read(dir.path().join("b.tar")).unwrap(),
    );
    assert_eq!(a.len(), b.len());
    let differs = a.iter().zip(&b).position(|(a, b)| a != b);
    assert_eq!(
        differs,
        None,
        "{:?}",
        differs.map(|at| String::from_utf8_lossy(&a[at / 512 * 512..][..1024]).into_owned())
    );
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn members_are_sorted_and_a_directory_comes_before_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Full);
    archive(&tree, &dir.path().join("a.tar"));
    // GNU tar lists them, because the `tar` crate does not know sparse names.
    let arguments = [
        "--quoting-style=escape",
        "--warning=no-unknown-keyword",
        "-tf",
    ];
    let listing = run(
        Command::new("tar")
            .args(arguments)
            .arg(dir.path().join("a.tar")),
        "tar",
    );
    let paths: Vec<&str> = listing.lines().collect();
    assert_eq!(paths[..2], ["stack.manifest.json", "stack/"]);
    // GNU tar escapes names that are not printable.
    let of_root = paths
        .iter()
        .filter(|path| path.trim_end_matches('/').matches('/').count() == 1);
    let of_root: Vec<_> = of_root
        .map(|path| path.strip_prefix("stack/").unwrap())
        .collect();
    assert_eq!(
        of_root,
        [
            " leading space",
            "*?[]'\"",
            "-dash",
            "attributes/",
            "back\\\\slash\\\\n",
            "caf\u{e9} utf-8 \u{1F980}",
            "caf\\351 latin",
            "kinds/",
            "link from afar",
            "names/",
            "new\\nline",
            "sizes/",
            "sparse/",
            "strange target",
            "tab\\tand\\001control\\177",
            "trailing space ",
        ][..]
    );
    for (index, path) in paths.iter().enumerate().skip(2) {
        let parent = path.trim_end_matches('/').rsplit_once('/').unwrap().0;
        let parent = format!("{parent}/");
        assert!(paths[..index].contains(&parent.as_str()), "{path}");
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn data_of_64_kib_and_more_begins_on_a_4096_byte_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Full);
    let path = dir.path().join("a.tar");
    archive(&tree, &path);
    let (mut aligned_count, mut small_count) = (0, 0);
    for (name, data, size) in members(&path) {
        if size >= 65_536 && !name.starts_with(b"GNUSparseFile.0/") {
            assert_eq!(data % 4096, 0, "{}", String::from_utf8_lossy(&name));
            aligned_count += 1;
        } else if data % 4096 != 0 {
            small_count += 1;
        }
    }
    assert_eq!(aligned_count, 4);
    assert!(small_count > 100);
    // The data of sparse files comes after their maps; it is found by its first
    // bytes.
    let bytes = fs::read(&path).unwrap();
    let data: Vec<u8> = (0..100_u8).map(|i| i + 1).collect();
    let blocks = bytes
        .chunks(512)
        .enumerate()
        .filter(|(_, block)| block.starts_with(&data));
    let at: Vec<usize> = blocks.map(|(index, _)| index * 512).collect();
    let aligned = at.iter().filter(|at| *at % 4096 == 0).count();
    assert!(aligned >= 4, "{at:?}");
    assert_eq!(bytes.len() % 4096, 0);
    assert!(bytes.ends_with(&[0; 1024]));
}

#[test]
fn the_manifest_moves_nothing_that_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "content").unwrap();
    let sources = sources(dir.path());
    let inventory = scan_all(&sources);
    let write = |json: &[u8], mtime_s| {
        let layout = Layout::new(&inventory, &ManifestSlot { mtime_s, ..slot() });
        let out = tempfile::tempfile().unwrap();
        write_members(&layout, &inventory, reading(&sources, &GO_ON), &out).unwrap();
        write_manifest(&layout, &out, json).unwrap();
        assert_eq!(read_manifest(&out).unwrap().as_deref(), Some(json));
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut &out).unwrap();
        (&out).read_to_end(&mut bytes).unwrap();
        (layout, bytes)
    };
    let (layout, short) = write(b"{}", 1);
    let longest = vec![b'7'; layout.manifest_bytes_max() as usize];
    assert!(longest.len() >= 6000);
    let (_, long) = write(&longest, 1_700_000_000);
    assert_eq!(layout.start() % 4096, 0);
    assert_ne!(short, long);
    assert_eq!(short[8192..], long[8192..]);
    let out = tempfile::tempfile().unwrap();
    let error = write_manifest(&layout, &out, &[&longest[..], b"7"].concat()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the manifest has 7680 bytes; only 7679 are reserved for it"
    );
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn windows_of_any_size_make_up_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    build(&tree, Scope::Full);
    let sources = sources(&tree);
    let inventory = scan_all(&sources);
    write_scanned(&sources, &inventory, &dir.path().join("a.tar"));
    let bytes = fs::read(dir.path().join("a.tar")).unwrap();
    let layout = Layout::new(&inventory, &slot());
    let changed = Default::default();
    let mut renderer = Renderer::new(&layout, &inventory, reading(&sources, &GO_ON), &changed);
    for size in [4096, 1000, 512, 77_777, 1 << 20] {
        let mut window = vec![0xAA; size];
        let mut start = layout.start() as usize;
        while start < bytes.len() {
            let end = (start + size).min(bytes.len());
            let window = &mut window[..end - start];
            renderer.render(start as u64, window).unwrap();
            assert!(window == &bytes[start..end], "{start}..{end}");
            start = end;
        }
    }
    let windows = (layout.start() as usize..bytes.len(), 1..3_000_000_usize);
    proptest!(ProptestConfig::with_cases(100), |((start, len) in windows)| {
        let end = (start + len).min(bytes.len());
        let mut window = vec![0xAA; end - start];
        let mut renderer = Renderer::new(&layout, &inventory, reading(&sources, &GO_ON), &changed);
        renderer.render(start as u64, &mut window).unwrap();
        prop_assert!(window == bytes[start..end]);
    });
    assert!(changed.into_inner().unwrap().is_empty());
}

#[test]
fn paths_longer_than_path_max_are_archived() {
    use rustix::fs::{Mode, OFlags};
    let dir = tempfile::tempdir().unwrap();
    let mut at = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..45 {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, OFlags::PATH, Mode::empty()).unwrap();
    }
    let file = rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    rustix::io::write(file.unwrap(), b"deep").unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    archive(dir.path(), out.path());
    let mut archive = tar::Archive::new(File::open(out.path()).unwrap());
    let mut members = archive.entries().unwrap().map(|entry| entry.unwrap());
    let mut last = members.find(|entry| entry.size() == 4).unwrap();
    let len = "stack".len() + 45 * 201 + "/file".len();
    assert_eq!(last.path_bytes().len(), len);
    let mut content = String::new();
    last.read_to_string(&mut content).unwrap();
    assert_eq!(content, "deep");
}

#[test]
fn reading_leaves_access_times_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree/file");
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(&path, "content").unwrap();
    run(
        Command::new("touch")
            .args(["-a", "-d", "2001-02-03"])
            .arg(&path),
        "coreutils",
    );
    let before = path.metadata().unwrap().atime();
    archive(&dir.path().join("tree"), &dir.path().join("a.tar"));
    assert_eq!(path.metadata().unwrap().atime(), before);
    assert!(path.as_os_str().as_bytes().ends_with(b"file"));
}
