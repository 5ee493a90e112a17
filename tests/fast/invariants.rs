//! Every promise of `docs/invariants.md` names tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the rows of all tables: each promise with the tests that it names.
fn promises(document: &str) -> Vec<(String, Vec<String>)> {
    let rows = document.lines().filter(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').splitn(2, " | ").collect::<Vec<_>>());
    let promises = cells.filter(|cells| {
        let is_rule = cells[0].trim().starts_with("---");
        cells.len() == 2 && !is_rule && cells[0].trim() != "promise"
    });
    promises
        .map(|cells| {
            let names = cells[1].split('`').skip(1).step_by(2);
            (
                cells[0].trim().to_owned(),
                names.map(str::to_owned).collect(),
            )
        })
        .collect()
}

/// Returns the files that may define the test `a::b::name`: `tests/a/b.rs` or
/// `tests/a/b/mod.rs`; below `src/` if the path begins with `src`.
fn files_of(test: &str) -> Vec<PathBuf> {
    let (modules, _) = test.rsplit_once("::").unwrap_or((test, ""));
    let modules = modules.strip_suffix("::tests").unwrap_or(modules);
    let path = modules.replace("::", "/");
    let base = match path.strip_prefix("src/") {
        Some(path) => Path::new(ROOT).join("src").join(path),
        None => Path::new(ROOT).join("tests").join(path),
    };
    let candidates = [
        base.with_extension("rs"),
        base.join("mod.rs"),
        base.join("tests.rs"),
        base.join("tests/mod.rs"),
    ];
    candidates
        .into_iter()
        .filter(|file| file.exists())
        .collect()
}

/// Whether a test of this path exists.
fn exists(test: &str) -> bool {
    let name = test.rsplit("::").next().unwrap();
    files_of(test).iter().any(|file| {
        let text = fs::read_to_string(file).unwrap();
        let Some((before, _)) = text.split_once(&format!("fn {name}(")) else {
            return false;
        };
        // Attributes such as #[ignore] may stand between.
        let last_item = before.rsplit("}\n").next().unwrap_or(before);
        last_item.contains("#[test]") || last_item.contains("proptest!")
    })
}

#[test]
fn every_promise_names_tests_that_exist() {
    let document = fs::read_to_string(Path::new(ROOT).join("docs/invariants.md")).unwrap();
    let promises = promises(&document);
    assert!(promises.len() > 20, "the tables are not read: {promises:?}");
    let mut problems = Vec::new();
    for (promise, tests) in promises {
        if tests.is_empty() {
            problems.push(format!("no test: {promise}"));
        }
        let missing = tests.iter().filter(|test| !exists(test));
        problems.extend(missing.map(|test| format!("no such test: {test}")));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_name_that_is_no_test_is_found() {
    assert!(exists("fast::invariants::a_name_that_is_no_test_is_found"));
    assert!(!exists("fast::invariants::promises"));
    assert!(!exists("fast::invariants::no_such_test"));
    assert!(!exists("fast::nowhere::a_name_that_is_no_test_is_found"));
    let table =
        "| promise | test |\n|---|---|\n| It holds. | `a::b`, `c::d` |\n| Nothing. | none |";
    let expected = [
        (
            "It holds.".to_owned(),
            vec!["a::b".to_owned(), "c::d".to_owned()],
        ),
        ("Nothing.".to_owned(), vec![]),
    ];
    assert_eq!(promises(table), expected);
}
