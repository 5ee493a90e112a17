//! Looking into archives without unpacking them.

use std::os::unix::fs::symlink;

use super::forge::{Evil, evil, file, link, pax, write};
use super::tools::run;
use super::*;
use crate::archive::tree::{ArchiveDiff, ArchiveTree, MemberChange, NodeKind, OpenTree, SumsUse};
use crate::archive::{Input, Reader, Sums};

fn read_tree(archive: &File, sums: SumsUse<'_>) -> anyhow::Result<ArchiveTree> {
    let mut reader = Reader::new(Input::File(archive))?;
    ArchiveTree::read(&mut reader, sums, &GO_ON)
}

fn opened(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
    file
}

fn tree_of(members: &[Evil]) -> anyhow::Result<ArchiveTree> {
    read_tree(&opened(&write(members)), SumsUse::None)
}

fn lines(tree: &ArchiveTree, depth: usize) -> String {
    let mut text = String::new();
    let show = |member: &crate::archive::tree::ListedMember<'_>| {
        text.push_str(&member.line());
        Ok(())
    };
    tree.list(ArchiveTree::ROOT, b"", depth, show).unwrap();
    text
}

#[test]
fn what_a_restore_refuses_is_no_tree_either() {
    for (members, reason) in [
        (vec![file("../a", b"x")], "its name has .. in it"),
        (vec![file("/a", b"x")], "its name is absolute"),
        (vec![file("a", b"x"), file("a", b"y")], "has it twice"),
        (vec![evil("a/", b'5'), file("a", b"y")], "has it twice"),
        (
            vec![link("s", b'2', "/etc"), file("s/passwd", b"x")],
            "leads through a symlink or a file",
        ),
        (vec![file("f", b"x"), file("f/a", b"x")], "leads through"),
        (vec![link("a", b'1', "b")], "is not in the archive"),
        (vec![link("a", b'1', "../b")], "target of the hard link"),
        (
            vec![evil("d/", b'5'), link("a", b'1', "d")],
            "is not in the archive",
        ),
        (vec![link(".", b'2', "x")], "takes the place of the root"),
    ] {
        let error = format!("{:#}", tree_of(&members).unwrap_err());
        assert!(error.contains(reason), "{reason} is not in: {error}");
    }
    // The control: the same members, but for what is wrong.
    let sound = [
        evil("a/", b'5'),
        file("a/f", b"data"),
        evil("a/", b'5'),
        link("a/s", b'2', "/etc"),
        link("l", b'1', "a/f"),
        file("implied/g", b"12"),
    ];
    insta::assert_snapshot!(lines(&tree_of(&sound).unwrap(), usize::MAX), @r"
            4 B  a/
            4 B    f
              -    s -> /etc
            2 B  implied/
            2 B    g
            4 B  l
    ");
}

#[test]
fn headers_that_need_far_more_memory_than_room_are_refused() {
    // A few directories without members are taken, and can be listed.
    let path = format!("{}f", "a/".repeat(4000));
    let tree = tree_of(&[pax(&[("path", &path)], file("f", b""))]).unwrap();
    assert_eq!(lines(&tree, 3).lines().count(), 3);
    assert_eq!(lines(&tree, usize::MAX).lines().count(), 4001);
    let members = |own: &dyn Fn(u32) -> Evil| -> Vec<Evil> {
        let mut members: Vec<Evil> = (0..200).map(own).collect();
        let value = "v".repeat(1 << 20);
        let mut body = Vec::new();
        crate::archive::tar::pax::push_record(&mut body, b"SCHILY.xattr.user.a", value.as_bytes());
        members[0].extended.insert(0, (b'g', body));
        members
    };
    // Attributes that all members have in common count once.
    let tree = tree_of(&members(&|n| file(format!("{n}"), b""))).unwrap();
    assert_eq!(tree.node(200).attributes[0].1.len(), 1 << 20);
    // Those that each member has with others of its own do not.
    let own = |n: u32| {
        let own = n.to_string();
        pax(&[("SCHILY.xattr.user.b", &own)], file(&own, b""))
    };
    let error = format!("{:#}", tree_of(&members(&own)).unwrap_err());
    assert!(error.contains("take more memory"), "{error}");
}

#[test]
fn extents_of_a_sparse_file_are_found_soon_however_many_there_are() {
    let mut map = String::from("400000\n");
    (0..400_000).for_each(|number| map += &format!("{}\n1\n", 2 * number));
    let mut data = map.into_bytes();
    data.resize(data.len().next_multiple_of(512), 0);
    data.resize(data.len() + 400_000, b'x');
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.realsize", "1000000"),
    ];
    let tree = tree_of(&[pax(&records, file("s", &data))]).unwrap();
    let NodeKind::File(data) = &tree.node(1).kind else {
        panic!("it is a file");
    };
    let began = std::time::Instant::now();
    for number in 0..400_000 {
        assert_eq!(data.next_hole(2 * number), 2 * number + 1);
        let next = Some(2 * number + 2).filter(|next| *next < 800_000);
        assert_eq!(data.next_data(2 * number + 1), next);
    }
    // It would take an hour if each were searched from the first one on.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn very_many_members_are_a_tree_at_once() {
    let members: Vec<Evil> = (0..20_000)
        .map(|number| file(format!("d/{:03}/{number}", number % 500), b""))
        .collect();
    let archive = opened(&write(&members));
    let began = std::time::Instant::now();
    let tree = read_tree(&archive, SumsUse::None).unwrap();
    assert_eq!(tree.node_count(), 1 + 1 + 500 + 20_000);
    assert_eq!(lines(&tree, 2).lines().count(), 501);
    // It would take hours if each member were compared with all others.
    assert!(began.elapsed().as_secs() < 120, "{:?}", began.elapsed());
}

#[test]
fn symlinks_are_not_followed() {
    let tree = tree_of(&[link("s", b'2', "a"), file("a/f", b"x")]).unwrap();
    assert!(tree.find(b"a/f").unwrap().is_some());
    assert!(tree.find(b"a/g").unwrap().is_none());
    assert!(tree.find(b"s").unwrap().is_some());
    let error = tree.find(b"s/f").unwrap_err().to_string();
    assert!(
        error.contains("s is a symlink to a, which is not followed"),
        "{error}"
    );
}

/// Two archives of a tree that changed in between.
struct Nights {
    dir: tempfile::TempDir,
}

impl Nights {
    fn new() -> Nights {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let write = |name: &str, content: &str| fs::write(tree.join(name), content).unwrap();
        fs::create_dir_all(tree.join("gone")).unwrap();
        write("same", "same");
        write("content", "before");
        write("size", "short");
        write("gone/a", "12345");
        write("gone/b", "1");
        write("mode", "x");
        symlink("one", tree.join("link")).unwrap();
        sparse(&tree.join("sparse"), 200_000);
        let touch = |when: &str| {
            let script = format!("find tree -exec touch -h -d @{when} {{}} +");
            run(
                Command::new("sh").args(["-ec", &script]).current_dir(&dir),
                "coreutils",
            );
        };
        touch("1000");
        archive(&tree, &dir.path().join("1.tar"));
        write("content", "after.");
        write("size", "longer than that");
        fs::remove_dir_all(tree.join("gone")).unwrap();
        fs::create_dir(tree.join("new")).unwrap();
        write("new/c", "123");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(tree.join("mode"), mode).unwrap();
        fs::remove_file(tree.join("link")).unwrap();
        symlink("two", tree.join("link")).unwrap();
        // The same data elsewhere in the file.
        fs::remove_file(tree.join("sparse")).unwrap();
        sparse(&tree.join("sparse"), 400_000);
        touch("1000");
        archive(&tree, &dir.path().join("2.tar"));
        Nights { dir }
    }

    fn open(&self, number: u8) -> File {
        File::open(self.dir.path().join(format!("{number}.tar"))).unwrap()
    }
}

/// A file of a million bytes with some data at `offset`.
fn sparse(path: &Path, offset: u64) {
    let file = File::create(path).unwrap();
    file.set_len(1_000_000).unwrap();
    let at = offset / 4096 * 4096;
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], at).unwrap();
}

#[test]
fn two_archives_are_compared_with_and_without_their_sums() {
    let nights = Nights::new();
    let files = [nights.open(1), nights.open(2)];
    let sums = [0, 1].map(|at: usize| Sums::compute(&files[at], &GO_ON).unwrap());
    let diff = |with_sums: bool| {
        let trees = [0, 1].map(|at: usize| {
            let sums = match with_sums {
                true => SumsUse::Beside(&sums[at]),
                false => SumsUse::None,
            };
            read_tree(&files[at], sums).unwrap()
        });
        let [before, after] = [0, 1].map(|at: usize| OpenTree {
            tree: &trees[at],
            file: &files[at],
        });
        ArchiveDiff::of(before, after, ["1", "2"].map(str::to_owned), &GO_ON).unwrap()
    };
    let found = diff(true);
    insta::assert_snapshot!(found.text(), @r"
      stack: 976.6 KiB -> 976.6 KiB (+8 B)
    ~ stack/content: content (6 B)
    - stack/gone/: 6 B in 3 members
    ~ stack/link: target one -> two
    ~ stack/mode: mode 0644 -> 0600
    + stack/new/: 3 B in 2 members
    ~ stack/size: size 5 B -> 16 B (+11 B)
    ~ stack/sparse: content (976.6 KiB)
    2 added, 3 removed, 5 changed, 2 the same
    ");
    assert_eq!(diff(false).differences, found.differences);
    let changed = |found: &ArchiveDiff, path: &str| {
        let difference = found.differences.iter().find(|d| d.path == path);
        difference.map(|difference| difference.change)
    };
    assert_eq!(
        changed(&found, "stack/content"),
        Some(MemberChange::Changed)
    );
    // With sums, no data is read: it may even be gone.
    let at = {
        let tree = read_tree(&files[1], SumsUse::None).unwrap();
        let id = tree.find(b"stack/same").unwrap().unwrap();
        let NodeKind::File(data) = &tree.node(id).kind else {
            panic!("it is a file");
        };
        data.offset
    };
    let after = File::options()
        .write(true)
        .open(nights.dir.path().join("2.tar"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&after, b"s", at).unwrap();
    assert_eq!(changed(&diff(false), "stack/same"), None);
    std::os::unix::fs::FileExt::write_all_at(&after, b"X", at).unwrap();
    assert_eq!(changed(&diff(true), "stack/same"), None);
    assert_eq!(
        changed(&diff(false), "stack/same"),
        Some(MemberChange::Changed)
    );
}

#[test]
fn any_part_of_a_file_is_read_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let plain: Vec<u8> = (0..150_000_u32).map(|at| (at % 253) as u8).collect();
    fs::write(tree.join("plain"), &plain).unwrap();
    sparse(&tree.join("sparse"), 300_000);
    let path = dir.path().join("a.tar");
    archive(&tree, &path);
    let file = File::open(&path).unwrap();
    let looked = read_tree(&file, SumsUse::None).unwrap();
    for name in ["plain", "sparse"] {
        let content = fs::read(tree.join(name)).unwrap();
        let id = looked.find(format!("stack/{name}").as_bytes()).unwrap();
        let NodeKind::File(data) = &looked.node(id.unwrap()).kind else {
            panic!("{name} is a file");
        };
        assert_eq!(data.extents.is_some(), name == "sparse");
        let size = content.len() as u64;
        for offset in [
            0,
            1,
            4095,
            299_007,
            299_008,
            303_103,
            303_104,
            size - 1,
            size,
            size + 9,
        ] {
            for length in [0, 1, 5000, 2_000_000] {
                let mut buffer = vec![1; length];
                let got = data.read_at(&file, &mut buffer, offset).unwrap();
                let from = content.len().min(offset as usize);
                let to = content.len().min(from + length);
                assert_eq!(
                    &buffer[..got],
                    &content[from..to],
                    "{name} {offset} {length}"
                );
            }
        }
        let real = File::open(tree.join(name)).unwrap();
        let offsets = [0, 299_008, 300_000, 303_104, size - 1];
        for offset in offsets.into_iter().filter(|offset| *offset < size) {
            let seek = |from| rustix::fs::seek(&real, from).ok();
            assert_eq!(
                data.next_data(offset),
                seek(rustix::fs::SeekFrom::Data(offset)),
                "{name} {offset}"
            );
            let hole = seek(rustix::fs::SeekFrom::Hole(offset));
            assert_eq!(Some(data.next_hole(offset)), hole, "{name} {offset}");
        }
    }
}
