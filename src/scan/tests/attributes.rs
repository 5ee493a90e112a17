use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use super::{paths, scan_with, tree};
use crate::scan::Source;
use crate::scan::attributes::{AttributeReader, AttributeSets};

/// A container's seccomp filter may forbid a working directory of the thread's
/// own. Then the working directory of all other threads must not change.
#[test]
fn attributes_are_read_with_and_without_a_working_directory_of_the_thread() {
    let dir = tree(&["a"]);
    xattr::set(dir.path().join("a"), "user.of", b"a").unwrap();
    symlink("a", dir.path().join("link")).unwrap();
    let here = std::env::current_dir().unwrap();
    let directory = File::open(dir.path()).unwrap();
    for has_own_directory in [false, true] {
        let sets = AttributeSets::default();
        std::thread::scope(|scope| {
            let read = || {
                let mut reader = AttributeReader::new(&sets);
                if has_own_directory {
                    reader.unshare_working_directory();
                }
                reader.enter(directory.as_fd());
                let is_there = std::env::current_dir().unwrap() == dir.path();
                assert_eq!(is_there, has_own_directory);
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
