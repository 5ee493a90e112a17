//! Archives made to do harm: refused with the member's name, and nothing is
//! written outside the target.

use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;

use super::facts::facts;
use super::forge::{
    Evil, REAL, any_edit, any_member, edited, evil, file, header, link, pax, write,
};
use super::*;
use crate::restore::diff::{HostTree, diff};
use crate::restore::selection::Selection;
use crate::restore::{Archive, Destination, ExtractOptions, extract, to_directory};

/// A directory that must stay as it is, beside the one that is unpacked into.
struct Trap {
    dir: tempfile::TempDir,
}

impl Trap {
    fn new() -> Trap {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/precious"), "precious").unwrap();
        symlink("precious", dir.path().join("outside/link")).unwrap();
        Trap { dir }
    }

    fn restore(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let archive = self.dir.path().join("a.tar");
        fs::write(&archive, bytes).unwrap();
        let out = self.dir.path().join("out");
        let _ = fs::remove_dir_all(&out);
        let before = facts(&self.dir.path().join("outside"));
        let result = to_directory(
            &Archive::open(&archive)?,
            &out,
            &Selection::default(),
            false,
            &GO_ON,
        );
        assert_eq!(facts(&self.dir.path().join("outside")), before);
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["a.tar", "out", "outside"]);
        let is_whole = result
            .as_ref()
            .is_ok_and(|summary| summary.unrestored.is_empty());
        let acls = b"SCHILY.acl.";
        let has_acls = bytes.windows(acls.len()).any(|window| window == acls);
        assert_is_told_apart(&archive, &out, is_whole, has_acls);
        result.map(drop)
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").display().to_string()
    }
}

/// What was restored differs in nothing; what was refused may be compared.
fn assert_is_told_apart(archive: &Path, out: &Path, is_whole: bool, has_acls: bool) {
    let place = HostTree {
        prefix: Vec::new(),
        path: Some(out.to_owned()),
    };
    let archive = Archive::open(archive).unwrap();
    let diff = diff(&archive, &[place], &Selection::default(), &GO_ON);
    if !is_whole {
        return;
    }
    let mut differences = diff.unwrap().differences;
    if has_acls {
        // Where one contradicts the mode, it wins, as with tar.
        differences.retain(|found| found.aspects.iter().any(|aspect| aspect.what != "mode"));
    }
    assert_eq!(differences, []);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn what_leads_outside_is_refused_by_name() {
    let trap = Trap::new();
    let outside = trap.outside();
    let absolute = format!("{outside}/new");
    let precious = format!("{outside}/precious");
    let long = "n".repeat(150);
    let cases: Vec<(&str, Vec<Evil>, &str)> = vec![
        ("..", vec![file("../outside/new", b"x")], "../outside/new"),
        (
            ".. within",
            vec![file("a/../../outside/new", b"x")],
            "a/../../outside/new",
        ),
        (".. at the end", vec![evil("a/..", b'5')], "a/.."),
        ("absolute", vec![file(&absolute, b"x")], "absolute"),
        ("absolute directory", vec![evil("/tmp/x", b'5')], "/tmp/x"),
        (
            "pax path",
            vec![pax(&[("path", "../outside/new")], file("good", b"x"))],
            "../outside/new",
        ),
        (
            "GNU long name",
            vec![Evil {
                extended: vec![(b'L', b"../outside/new\0".to_vec())],
                ..file("good", b"x")
            }],
            "../outside/new",
        ),
        (
            "sparse name",
            vec![pax(
                &[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.name", "../outside/new"),
                    ("GNU.sparse.realsize", "0"),
                ],
                file("good", b"0\n"),
            )],
            "../outside/new",
        ),
        (
            "global path",
            vec![Evil {
                extended: vec![(b'g', b"23 path=../outside/new\n".to_vec())],
                ..file("good", b"x")
            }],
            "../outside/new",
        ),
        (
            "through a symlink",
            vec![link("s", b'2', &outside), file("s/new", b"x")],
            "s/new",
        ),
        (
            "through a relative symlink",
            vec![link("s", b'2', "../outside"), file("s/new", b"x")],
            "s/new",
        ),
        (
            "through two",
            vec![
                link("a", b'2', ".."),
                link("b", b'2', "a/outside"),
                file("b/new", b"x"),
            ],
            "b/new",
        ),
        (
            "onto a symlink",
            vec![link("s", b'2', &precious), file("s", b"x")],
            "restore s",
        ),
        (
            "directory onto a symlink",
            vec![
                link("s", b'2', &outside),
                evil("s", b'5'),
                file("s/new", b"x"),
            ],
            "restore s",
        ),
        (
            "hard link to the outside",
            vec![link("h", b'1', "../outside/precious"), file("h2", b"x")],
            "restore h",
        ),
        (
            "absolute hard link",
            vec![link("h", b'1', &precious)],
            "restore h",
        ),
        (
            "hard link through a symlink",
            vec![link("s", b'2', &outside), link("h", b'1', "s/precious")],
            "restore h",
        ),
        (
            "hard link under a symlink",
            vec![
                file("f", b"x"),
                link("s", b'2', &outside),
                link("s/new", b'1', "f"),
            ],
            "restore s/new",
        ),
        (
            "hard link to nothing",
            vec![link("h", b'1', "nothing")],
            "restore h",
        ),
        (
            "device",
            vec![Evil {
                ..evil("dev", b'4')
            }],
            "dev",
        ),
        ("character device", vec![evil("dev", b'3')], "dev"),
        ("twice", vec![file("f", b"x"), file("f", b"y")], "restore f"),
        (
            "file, then directory",
            vec![file("f", b"x"), evil("f", b'5')],
            "restore f",
        ),
        (
            "file as a directory",
            vec![file("f", b"x"), file("f/g", b"y")],
            "restore f",
        ),
        (
            "the root as a file",
            vec![file(".", b"x")],
            "target directory",
        ),
        ("no name", vec![file("", b"x")], "target directory"),
        (
            "directory with data",
            vec![Evil {
                size: 512,
                data: vec![b'x'; 512],
                ..evil("d", b'5')
            }],
            "d",
        ),
        (
            "link with data",
            vec![Evil {
                size: 5,
                data: b"hello".to_vec(),
                ..link("h", b'1', "x")
            }],
            "h",
        ),
        ("unknown kind", vec![evil("u", b'M')], "u"),
        (
            "too long a component",
            vec![pax(&[("path", &"x".repeat(300))], file("good", b"x"))],
            "xxx",
        ),
        (
            "NUL in the name",
            vec![pax(&[("path", "a\0b")], file("good", b"x"))],
            "a\\u{0}b",
        ),
        (
            "owner",
            vec![pax(&[("uid", "4294967295")], file("f", b"x"))],
            "f",
        ),
        (
            "time",
            vec![pax(&[("mtime", "yesterday")], file("f", b"x"))],
            "f",
        ),
        (
            "acl",
            vec![pax(
                &[("SCHILY.acl.access", "emperor::rwx")],
                file("f", b"x"),
            )],
            "f",
        ),
        (
            "attribute",
            vec![pax(&[("SCHILY.xattr.", "x")], file("f", b"x"))],
            "f",
        ),
        (
            "huge size",
            vec![Evil {
                size: 1 << 62,
                ..file("f", b"x")
            }],
            "f",
        ),
        (
            "size beyond the end",
            vec![Evil {
                size: 100_000,
                ..file("f", b"x")
            }],
            "f",
        ),
        (
            "negative size by pax",
            vec![pax(&[("size", "-5")], file("f", b"x"))],
            "f",
        ),
        (
            "long",
            vec![
                file("a", b""),
                pax(&[("path", &format!("../{long}"))], file("good", b"x")),
            ],
            &long,
        ),
    ];
    for (what, members, named) in cases {
        let error = trap.restore(&write(&members)).expect_err(what);
        let error = format!("{error:#}");
        assert!(
            error.contains(named) || named == "absolute" && error.contains("absolute"),
            "{what}: {error}"
        );
    }
    // The controls: the same kinds, harmless.
    let harmless = [
        evil("d", b'5'),
        file("d/f", b"x"),
        link("d/s", b'2', &outside),
        link("d/h", b'1', "d/f"),
        pax(&[("path", "d/pax")], file("good", b"y")),
        evil("d/fifo", b'6'),
        Evil {
            extended: vec![(b'L', b"d/long\0".to_vec())],
            ..file("good", b"z")
        },
    ];
    trap.restore(&write(&harmless)).unwrap();
    let out = trap.dir.path().join("out/d");
    assert_eq!(fs::read(out.join("pax")).unwrap(), b"y");
    assert_eq!(fs::read(out.join("long")).unwrap(), b"z");
    assert_eq!(fs::metadata(out.join("h")).unwrap().nlink(), 2);
}

#[test]
fn no_link_takes_the_place_of_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let options = ExtractOptions {
        is_wanted: &|_| true,
        allow_devices: true,
        tolerates_refusals: true,
        cancel: &GO_ON,
    };
    let restore = |members: &[Evil]| {
        let dir = tempfile::tempdir_in(&dir).unwrap();
        fs::write(dir.path().join("a.tar"), write(members)).unwrap();
        let archive = Archive::open(&dir.path().join("a.tar")).unwrap();
        let destination = |prefix: &str, parent: &str, name: &str| {
            let parent = dir.path().join(parent);
            fs::create_dir(&parent).unwrap();
            Destination {
                prefix: prefix.into(),
                parent: File::open(parent).unwrap().into(),
                name: name.into(),
            }
        };
        let destinations = [
            destination("web.volumes/data", "volume", "_data"),
            destination("", "rest", ""),
        ];
        let mut reader = archive.reader().unwrap();
        let result = extract(&mut reader, archive.file(), &destinations, &options);
        let made = fs::symlink_metadata(dir.path().join("volume/_data"));
        (result.map(drop), made.ok())
    };
    let tree = "web.volumes/data";
    let symlinked = vec![link(tree, b'2', "/etc")];
    let linked = vec![link("s", b'2', "/etc"), link(tree, b'1', "s")];
    for members in [symlinked, linked] {
        let (result, made) = restore(&members);
        let error = format!("{:#}", result.unwrap_err());
        assert!(
            error.contains("web.volumes/data: the tree's root is a symlink"),
            "{error}"
        );
        assert!(made.is_none());
    }
    // The control: what a tree may be.
    let (result, made) = restore(&[evil(tree, b'5'), link("web.volumes/data/s", b'2', "/etc")]);
    result.unwrap();
    assert!(made.unwrap().is_dir());
    let (result, made) = restore(&[file(tree, b"x")]);
    result.unwrap();
    assert!(made.unwrap().is_file());
}

#[test]
fn bombs_are_refused() {
    let trap = Trap::new();
    let sparse = |records: &[(&str, &str)], data: &[u8]| {
        let mut all = vec![
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "bomb"),
        ];
        all.extend(records);
        pax(&all, file("good", data))
    };
    let endless = (0..100)
        .map(|_| (b'x', b"12 comment=\n".to_vec()))
        .collect();
    let pairs: String = (0..200).map(|at| format!("{},1,", at)).collect();
    let cases: Vec<(&str, Evil)> = vec![
        (
            "endless extended headers",
            Evil {
                extended: endless,
                ..file("bomb", b"")
            },
        ),
        (
            "sparse of 8 EiB",
            sparse(&[("GNU.sparse.realsize", "9223372036854775807")], b"0\n"),
        ),
        (
            "map without end",
            sparse(&[("GNU.sparse.realsize", "10")], &[b'1'; 2000]),
        ),
        (
            "map of a billion",
            sparse(&[("GNU.sparse.realsize", "10")], b"1000000000\n0\n1\n"),
        ),
        (
            "map that overlaps",
            sparse(&[("GNU.sparse.realsize", "10")], b"2\n0\n5\n4\n5\n"),
        ),
        (
            "map beyond its size",
            sparse(&[("GNU.sparse.realsize", "10")], b"1\n8\n5\n"),
        ),
        (
            "map without data",
            sparse(&[("GNU.sparse.realsize", "10")], b"1\n0\n5\n"),
        ),
        (
            "map that wraps",
            sparse(
                &[("GNU.sparse.realsize", "10")],
                b"1\n18446744073709551615\n5\n",
            ),
        ),
        (
            "map that is no number",
            sparse(&[("GNU.sparse.realsize", "10")], b"one\n"),
        ),
        (
            "map of an odd number",
            pax(
                &[("GNU.sparse.size", "10"), ("GNU.sparse.map", "0,1,5")],
                file("bomb", b"x"),
            ),
        ),
        (
            "map of 0.1 without data",
            pax(
                &[
                    ("GNU.sparse.size", "1000"),
                    ("GNU.sparse.map", pairs.trim_end_matches(',')),
                ],
                file("bomb", b"x"),
            ),
        ),
        (
            "unknown sparse version",
            pax(
                &[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")],
                file("bomb", b"x"),
            ),
        ),
        (
            "record longer than its header",
            Evil {
                extended: vec![(b'x', b"999 path=x\n".to_vec())],
                ..file("bomb", b"")
            },
        ),
        (
            "record of length 0",
            Evil {
                extended: vec![(b'x', b"0 path=x\n".to_vec())],
                ..file("bomb", b"")
            },
        ),
        (
            "record that is none",
            Evil {
                extended: vec![(b'x', b"garbage".to_vec())],
                ..file("bomb", b"")
            },
        ),
    ];
    for (what, member) in cases {
        let error = trap
            .restore(&write(&[file("before", b"x"), member]))
            .expect_err(what);
        let error = format!("{error:#}");
        assert!(
            error.contains("bomb") || error.contains("before"),
            "{what}: {error}"
        );
    }
    let mut huge = header(b"x", b'x', b"", 1 << 40);
    huge.extend([0; 4096]);
    let error = format!("{:#}", trap.restore(&huge).unwrap_err());
    assert!(
        error.contains("an extended header of 1099511627776 bytes"),
        "{error}"
    );
    let good = sparse(&[("GNU.sparse.realsize", "1000000")], b"1\n999990\n5\n");
    let mut good = good;
    good.data.resize(512, 0);
    good.data.extend(b"hello");
    good.size = 517;
    trap.restore(&write(&[good])).unwrap();
    assert_eq!(
        fs::metadata(trap.dir.path().join("out/bomb"))
            .unwrap()
            .len(),
        1_000_000
    );
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn of_directories_that_come_twice_the_last_one_counts() {
    let trap = Trap::new();
    let at = |mtime, name| pax(&[("mtime", mtime)], evil(name, b'5'));
    let members = [at("1", "."), at("1", "d"), at("2", "d"), at("2", ".")];
    trap.restore(&write(&members)).unwrap();
    let out = trap.dir.path().join("out");
    for dir in [out.join("d"), out] {
        assert_eq!(fs::metadata(&dir).unwrap().mtime(), 2, "{}", dir.display());
    }
}

#[test]
fn a_cut_archive_is_refused_wherever_it_is_cut() {
    let trap = Trap::new();
    let whole = write(&[file("a", &[b'x'; 1000]), evil("d", b'5'), file("d/b", b"y")]);
    trap.restore(&whole).unwrap();
    for cut in 0..whole.len() {
        trap.restore(&whole[..cut])
            .expect_err(&format!("cut at {cut}"));
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_wrong_check_sum_is_refused_where_it_is() {
    let trap = Trap::new();
    let mut bytes = write(&[file("before", b"x"), file("bad", b"y"), file("after", b"z")]);
    trap.restore(&bytes).unwrap();
    // The header of the second.
    bytes[1024 + 2] ^= 1;
    let error = format!("{:#}", trap.restore(&bytes).unwrap_err());
    assert!(error.contains("after before (at byte 1024)"), "{error}");
}

// For a long run: PROPTEST_CASES=100000 cargo test hostile -- --include-ignored
proptest! {
    #[test]
    fn no_archive_writes_outside_or_panics(members in prop::collection::vec(any_member(), 1..8)) {
        let trap = Trap::new();
        let _ = trap.restore(&write(&members));
    }

    #[test]
    fn no_damage_writes_outside_or_panics(
        members in prop::collection::vec(any_member(), 1..5),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let trap = Trap::new();
        let mut bytes = write(&members);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = trap.restore(&bytes);
    }

    #[test]
    fn no_forged_archive_writes_outside_or_panics(
        real in 0..REAL.len(),
        edits in prop::collection::vec(any_edit(), 0..6),
    ) {
        let trap = Trap::new();
        let result = trap.restore(&edited(REAL[real], &edits));
        // The control: check sums were put right.
        prop_assert!(!edits.is_empty() || result.is_ok() || !nix::unistd::geteuid().is_root());
    }
}
