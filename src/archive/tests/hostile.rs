//! Archives made to do harm: refused with the member's name, and nothing is
//! written outside the target.

use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;

use super::facts::facts;
use super::*;
use crate::archive::pax::push_record;
use crate::restore::diff::{Place, diff};
use crate::restore::pick::Only;
use crate::restore::{Archive, to_directory};

/// A member as an attacker writes it.
#[derive(Clone, Debug)]
struct Evil {
    name: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    /// As the header says.
    size: u64,
    data: Vec<u8>,
    /// Before it: type and body of an extended header.
    extended: Vec<(u8, Vec<u8>)>,
}

fn evil(name: impl AsRef<[u8]>, kind: u8) -> Evil {
    Evil {
        name: name.as_ref().to_vec(),
        kind,
        link: Vec::new(),
        size: 0,
        data: Vec::new(),
        extended: Vec::new(),
    }
}

fn file(name: impl AsRef<[u8]>, data: &[u8]) -> Evil {
    Evil {
        size: data.len() as u64,
        data: data.to_vec(),
        ..evil(name, b'0')
    }
}

fn link(name: &str, kind: u8, target: &str) -> Evil {
    Evil {
        link: target.into(),
        ..evil(name, kind)
    }
}

fn pax(records: &[(&str, &str)], member: Evil) -> Evil {
    let mut body = Vec::new();
    for (keyword, value) in records {
        push_record(&mut body, keyword.as_bytes(), value.as_bytes());
    }
    Evil {
        extended: vec![(b'x', body)],
        ..member
    }
}

fn header(name: &[u8], kind: u8, link: &[u8], size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    if size < 1 << 33 {
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..147].copy_from_slice(b"14524770200");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn write(members: &[Evil]) -> Vec<u8> {
    let mut archive = Vec::new();
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(512), 0);
    for member in members {
        for (kind, body) in &member.extended {
            archive.extend(header(b"x", *kind, b"", body.len() as u64));
            archive.extend(body);
            pad(&mut archive);
        }
        archive.extend(header(&member.name, member.kind, &member.link, member.size));
        archive.extend(&member.data);
        pad(&mut archive);
    }
    archive.extend([0; 1024]);
    archive
}

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
            &Only::default(),
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
            .is_ok_and(|summary| summary.lacks.is_empty());
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
    let place = Place {
        prefix: Vec::new(),
        path: Some(out.to_owned()),
    };
    let archive = Archive::open(archive).unwrap();
    let diff = diff(&archive, &[place], &Only::default(), &GO_ON);
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

/// Anything that could be a member, most of it near to valid.
fn any_member() -> impl Strategy<Value = Evil> {
    let part = prop::sample::select(vec![
        "a", "b", "s", "..", ".", "", "outside", "precious", "c\n",
    ]);
    let path = prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(b"00000012222555671xgLKSVM3".to_vec());
    let record = (
        prop::sample::select(vec![
            "path",
            "linkpath",
            "size",
            "GNU.sparse.major",
            "GNU.sparse.minor",
            "GNU.sparse.realsize",
            "GNU.sparse.name",
            "GNU.sparse.size",
            "GNU.sparse.map",
            "mtime",
            "uid",
            "SCHILY.xattr.user.a",
            "comment",
        ]),
        prop::sample::select(vec![
            "",
            "0",
            "1",
            "7",
            "512",
            "../outside/precious",
            "s/precious",
            "a",
            "/tmp",
            "0,1",
            "-1.5",
            "99999999999999999999",
        ]),
    );
    let records = prop::collection::vec(record, 0..4);
    let data = prop::collection::vec(prop::sample::select(b"0125\nx\0".to_vec()), 0..600);
    (path.clone(), kind, path, records, data, 0..4u8).prop_map(
        |(name, kind, target, records, data, lie)| {
            let mut member = Evil {
                link: format!("{}{target}", if lie == 3 { "/" } else { "" }).into(),
                ..evil(name, kind)
            };
            if matches!(kind, b'0' | b'7' | b'x' | b'g' | b'L' | b'K' | b'S') {
                member.size = data.len() as u64 + u64::from(lie == 2) * 700;
                member.data = data;
            }
            if records.is_empty() {
                member
            } else {
                pax(&records, member)
            }
        },
    )
}

/// Archives that this and other programs wrote.
const REAL: [&[u8]; 4] = [
    include_bytes!("../../../tests/archives/format-1.tar"),
    include_bytes!("../../../tests/archives/gnu-old.tar"),
    include_bytes!("../../../tests/archives/gnu-posix.tar"),
    include_bytes!("../../../tests/archives/python.tar"),
];

fn is_header(block: &[u8]) -> bool {
    &block[257..262] == b"ustar"
}

/// What somebody does to an archive who then puts its check sums right.
#[derive(Clone, Debug)]
enum Edit {
    /// Of the headers, and of all blocks.
    Byte(prop::sample::Index, bool, usize, u8),
    Kind(prop::sample::Index, u8),
    Text(prop::sample::Index, usize, &'static str),
    Copy(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    let texts = vec![
        "../outside/precious\0",
        "/tmp/x\0",
        "kinds\0",
        "77777777777\0",
        "00000000000\0",
        "00000001000\0",
    ];
    let text = prop::sample::select(texts);
    // Name, mode, size, time, target of a link, magic, prefix.
    let field = prop::sample::select(vec![0, 100, 124, 136, 157, 257, 345]);
    prop_oneof![
        4 => (at(), any::<bool>(), 0..512usize, any::<u8>())
            .prop_map(|(at, headers, offset, value)| Edit::Byte(at, headers, offset, value)),
        4 => (at(), prop::sample::select(b"01234567xgLKSVXM".to_vec()))
            .prop_map(|(at, kind)| Edit::Kind(at, kind)),
        4 => (at(), field, text).prop_map(|(at, field, text)| Edit::Text(at, field, text)),
        2 => (at(), at()).prop_map(|(from, to)| Edit::Copy(from, to)),
        2 => (at(), at()).prop_map(|(from, to)| Edit::Insert(from, to)),
        1 => at().prop_map(Edit::Remove),
        1 => at().prop_map(Edit::Cut),
    ]
}

fn edited(archive: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = archive.chunks(512).map(<[u8]>::to_vec).collect();
    let headers = |blocks: &[Vec<u8>]| -> Vec<usize> {
        let all = blocks.iter().enumerate();
        let headers = all.filter(|(_, block)| is_header(block));
        headers.map(|(at, _)| at).collect()
    };
    for edit in edits {
        let headers = headers(&blocks);
        if headers.is_empty() {
            break;
        }
        let header = |at: &prop::sample::Index| headers[at.index(headers.len())];
        let block = |at: &prop::sample::Index| at.index(blocks.len());
        match edit {
            Edit::Byte(at, true, offset, value) => blocks[header(at)][*offset] = *value,
            Edit::Byte(at, false, offset, value) => {
                let at = block(at);
                blocks[at][*offset] = *value;
            }
            Edit::Kind(at, kind) => blocks[header(at)][156] = *kind,
            Edit::Text(at, field, text) => {
                blocks[header(at)][*field..field + text.len()].copy_from_slice(text.as_bytes());
            }
            Edit::Copy(from, to) => {
                let to = block(to);
                blocks[to] = blocks[header(from)].clone();
            }
            Edit::Insert(from, to) => {
                let (from, to) = (blocks[header(from)].clone(), block(to));
                blocks.insert(to, from);
            }
            Edit::Remove(at) => {
                blocks.remove(header(at));
            }
            Edit::Cut(at) => blocks.truncate(block(at).max(1)),
        }
    }
    for block in blocks.iter_mut().filter(|block| is_header(block)) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    blocks.concat()
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
