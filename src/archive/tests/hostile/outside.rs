//! Members that lead outside of the directory that is unpacked into.

use std::os::unix::fs::MetadataExt;

use super::super::forge::{Evil, evil, file, link, pax, write};
use super::*;

#[test]
#[ignore = "needs root; run scripts/test"]
fn members_that_lead_outside_are_refused_by_name() {
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
    // The control: harmless members of the same kinds.
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
