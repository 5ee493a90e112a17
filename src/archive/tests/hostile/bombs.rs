//! Headers and sparse maps that claim too much.

use super::super::forge::{Evil, file, header, pax, write};
use super::*;

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
fn many_directories_and_attributes_of_few_bytes_are_refused() {
    let trap = Trap::new();
    let deep = |number: u32, name: &str, depth: usize| {
        let path = format!("{number}/{}f", format!("{name}/").repeat(depth));
        pax(&[("path", &path)], file("f", b""))
    };
    // The paths of the directories of each member have 1.25 MB together.
    let long = "n".repeat(249);
    let many: Vec<Evil> = (0..30).map(|number| deep(number, &long, 100)).collect();
    let error = format!("{:#}", trap.restore(&write(&many)).unwrap_err());
    assert!(error.contains("far more directories"), "{error}");
    let error = format!(
        "{:#}",
        trap.restore(&write(&[deep(0, "a", 5000)])).unwrap_err()
    );
    assert!(error.contains("it is in 5001 directories"), "{error}");
    // The control.
    trap.restore(&write(&many[..2])).unwrap();

    let body = |bytes: usize| {
        let mut body = Vec::new();
        let value = "v".repeat(bytes);
        crate::archive::tar::pax::push_record(&mut body, b"comment", value.as_bytes());
        body
    };
    let global = |bytes: usize| {
        let mut members: Vec<Evil> = (0..40).map(|n| file(n.to_string(), b"")).collect();
        members[0].extended = vec![(b'g', body(bytes))];
        write(&members)
    };
    let error = format!("{:#}", trap.restore(&global(8 << 20)).unwrap_err());
    assert!(error.contains("the global headers"), "{error}");
    // The controls: a smaller one, and many of the same kind.
    trap.restore(&global(1 << 20)).unwrap();
    let again = |n: u32| Evil {
        extended: vec![(b'g', body(1 << 20))],
        ..file(n.to_string(), b"")
    };
    trap.restore(&write(&(0..5).map(again).collect::<Vec<_>>()))
        .unwrap();
}
