//! Archives made to do harm: they are refused with the name of the member, and
//! nothing is written outside of the target.

mod bombs;
mod outside;

use std::os::unix::fs::{MetadataExt, symlink};

use proptest::prelude::*;

use super::facts::facts;
use super::forge::{Evil, REAL, any_edit, any_member, edited, evil, file, link, pax, write};
use super::*;
use crate::archive::tree::{ArchiveTree, SumsUse};
use crate::archive::verify::verify;
use crate::archive::{Input, Reader};
use crate::restore::diff::{HostTree, diff};
use crate::restore::selection::Selection;
use crate::restore::{Archive, Destination, ExtractOptions, extract, to_directory};

/// A directory `outside`, which must not change, beside the one that an archive is
/// unpacked into.
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
        compare(&archive, &out, is_whole, has_acls);
        agrees(&archive, &result);
        result.map(drop)
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").display().to_string()
    }
}

/// What `verify` finds sound can be unpacked, but for what depends on the options
/// and on the host.
fn agrees<T>(archive: &Path, restored: &anyhow::Result<T>) {
    let file = File::open(archive).unwrap();
    let problems = verify(archive.into(), &file, None, &GO_ON)
        .unwrap()
        .problems;
    let mut reader = Reader::new(Input::File(&file)).unwrap();
    let tree = ArchiveTree::read(&mut reader, SumsUse::None, &GO_ON);
    assert!(
        tree.is_ok() || !problems.is_empty(),
        "verify finds nothing; looking into it: {:#}",
        tree.unwrap_err()
    );
    let Err(error) = restored else { return };
    let error = format!("{error:#}");
    let depends_on_host = ["device node", "os error", "cannot set its attribute"];
    assert!(
        !problems.is_empty() || depends_on_host.iter().any(|known| error.contains(known)),
        "verify finds nothing; restore: {error}"
    );
}

/// Compares the archive with the restored tree. A whole one must not differ; after
/// a refusal the comparison must not panic.
fn compare(archive: &Path, out: &Path, is_whole: bool, has_acls: bool) {
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
        // An ACL that contradicts the mode wins, as with tar.
        differences.retain(|found| found.aspects.iter().any(|aspect| aspect.what != "mode"));
    }
    assert_eq!(differences, []);
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
    // The control: a tree may be a directory or a file.
    let (result, made) = restore(&[evil(tree, b'5'), link("web.volumes/data/s", b'2', "/etc")]);
    result.unwrap();
    assert!(made.unwrap().is_dir());
    let (result, made) = restore(&[file(tree, b"x")]);
    result.unwrap();
    assert!(made.unwrap().is_file());
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_last_of_two_members_for_a_directory_counts() {
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
fn a_cut_archive_is_refused_unless_it_is_cut_between_members() {
    let trap = Trap::new();
    let whole = write(&[file("a", &[b'x'; 1000]), evil("d", b'5'), file("d/b", b"y")]);
    trap.restore(&whole).unwrap();
    // Other programs write archives without an end, so a cut between two members is
    // not seen.
    let between = [1536, 2048, 3072, 3584];
    // All cuts near the edges of blocks, where a reader decides, and some of the others.
    let is_tried = |cut: &usize| (cut + 4) % 512 < 9 || cut.is_multiple_of(41);
    for cut in (0..whole.len()).filter(is_tried) {
        let restored = trap.restore(&whole[..cut]);
        assert_eq!(restored.is_ok(), between.contains(&cut), "cut at {cut}");
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_wrong_checksum_is_reported_with_its_place() {
    let trap = Trap::new();
    let mut bytes = write(&[file("before", b"x"), file("bad", b"y"), file("after", b"z")]);
    trap.restore(&bytes).unwrap();
    // This damages the header of the second member.
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
        // The control: without edits the archive is restored.
        prop_assert!(!edits.is_empty() || result.is_ok() || !nix::unistd::geteuid().is_root());
    }
}
