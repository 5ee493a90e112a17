use std::fs;
use std::path::Path;

use super::{paths, scan_paths, scan_with, tree};
use crate::scan::exclude::CACHEDIR_SIGNATURE;
use crate::scan::{Exclude, Source};

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
fn a_directory_of_which_nothing_is_archived_is_left_out() {
    let dir = tree(&["data/one/x", "cache/y", "cache/CACHEDIR.TAG"]);
    fs::write(dir.path().join("cache/CACHEDIR.TAG"), CACHEDIR_SIGNATURE).unwrap();
    let leaves_out = |pattern: &str, inside: &str, with_caches: bool| {
        let lines: Vec<String> = pattern.split(' ').map(str::to_owned).collect();
        let exclude = Exclude::new(&lines).unwrap();
        exclude.leaves_out(dir.path(), Path::new(inside), with_caches)
    };
    for (pattern, inside) in [
        ("/data", "data"),
        ("data/", "data/one"),
        ("one", "data/one"),
        ("/data/*", "data"),
        ("/data/**", "data"),
        ("data/one/*", "data/one"),
        ("**/one/*", "data/one"),
        ("x", "data/one/x"),
    ] {
        assert!(leaves_out(pattern, inside, false), "{pattern} {inside}");
    }
    for (pattern, inside) in [
        ("/one", "data/one"),
        ("*", ""),
        ("/data/one/*", "data"),
        ("one/*", "data/one"),
        ("/data/*.log", "data"),
        ("/data/* !/data/keep", "data"),
        ("x/", "data/one/x"),
    ] {
        assert!(!leaves_out(pattern, inside, false), "{pattern} {inside}");
    }
    assert!(leaves_out("none", "cache", true));
    assert!(!leaves_out("none", "cache", false));
    assert!(!leaves_out("none", "data", true));
}
