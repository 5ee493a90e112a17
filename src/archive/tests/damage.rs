//! Every kind of damage at every kind of place is found, and named by the file.

use super::*;
use crate::archive::{Input, Member, Reader, Sums};
use crate::verify::{Verified, verify};

struct Archive {
    dir: tempfile::TempDir,
    good: Vec<u8>,
    sums: String,
    members: Vec<Member>,
}

impl Archive {
    fn new() -> Archive {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), vec![b'a'; 5000]).unwrap();
        fs::write(tree.join("large"), vec![b'l'; 200_000]).unwrap();
        // Only a pax record can say its name.
        fs::write(tree.join("n".repeat(200)), "long").unwrap();
        fs::write(tree.join("z"), "last").unwrap();
        let path = dir.path().join("a.tar");
        let sources = sources(&tree);
        let inventory = scan_all(&sources);
        write_scanned(&sources, &inventory, &path);
        let good = fs::read(&path).unwrap();
        // As the program does, with the length in it.
        let layout = Layout::new(&inventory, &slot());
        let out = File::options().write(true).open(&path).unwrap();
        let manifest = format!(r#"{{"archiveBytes":{},"memberCount":5}}"#, good.len());
        write_manifest(&layout, &out, manifest.as_bytes()).unwrap();
        let file = File::open(&path).unwrap();
        let sums = Sums::of(&file, &GO_ON).unwrap().to_text();
        let mut reader = Reader::new(Input::File(&file)).unwrap();
        let mut members = Vec::new();
        while let Some(member) = reader.next_member().unwrap() {
            members.push(member);
        }
        let good = fs::read(&path).unwrap();
        Archive {
            dir,
            good,
            sums,
            members,
        }
    }

    fn member(&self, name: &str) -> &Member {
        let ends = |member: &&Member| member.path.ends_with(name.as_bytes());
        self.members.iter().find(ends).unwrap()
    }

    fn verify(&self, bytes: &[u8], sums: Option<&str>) -> Verified {
        let path = self.dir.path().join("damaged.tar");
        fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        verify(path, &file, sums.map(str::as_bytes), &GO_ON).unwrap()
    }
}

/// Names what is damaged there, or the archive as a whole.
#[track_caller]
fn assert_found(verified: &Verified, names: &str, what: &str) {
    let problems = verified.problems.join("\n");
    assert!(
        !problems.is_empty() && problems.contains(names),
        "{what}: {verified:?}"
    );
}

#[test]
fn damage_is_found_wherever_it_is() {
    let archive = Archive::new();
    let good = archive.verify(&archive.good, Some(&archive.sums));
    assert!(good.problems.is_empty() && good.compared, "{good:?}");
    assert_eq!(good.member_count, 6);
    let long = "n".repeat(200);
    let long = long.as_str();
    let places = [
        (
            "header",
            archive.member("/a").start as usize + 10,
            "stack/a",
        ),
        ("data", archive.member("/a").data as usize + 10, "stack/a"),
        (
            "large data",
            archive.member("large").data as usize + 100_000,
            "stack/large",
        ),
        (
            "pax header",
            archive.member(long).start as usize + 150,
            long,
        ),
        (
            "pax record",
            archive.member(long).start as usize + 512 + 100,
            long,
        ),
        (
            "manifest",
            archive.members[0].data as usize + 5,
            "manifest.json",
        ),
        (
            "padding",
            archive.member("/a").data as usize + 5001,
            "stack/a",
        ),
    ];
    for (what, at, names) in places {
        for bit in [0x01, 0x80] {
            let mut flipped = archive.good.clone();
            flipped[at] ^= bit;
            let verified = archive.verify(&flipped, Some(&archive.sums));
            assert_found(&verified, names, &format!("flip in {what}"));
            // What lies elsewhere can be had.
            assert!(
                verified
                    .notes
                    .iter()
                    .any(|note| note.starts_with("5 of 6 members")),
                "{what}: {verified:?}"
            );
        }
        let mut deleted = archive.good.clone();
        deleted.drain(at..at + 1);
        assert_found(
            &archive.verify(&deleted, Some(&archive.sums)),
            names,
            &format!("delete in {what}"),
        );
        let mut block_deleted = archive.good.clone();
        block_deleted.drain(at / 512 * 512..at / 512 * 512 + 512);
        assert_found(
            &archive.verify(&block_deleted, Some(&archive.sums)),
            "bytes, and had",
            &format!("block of {what}"),
        );
        assert_found(
            &archive.verify(&archive.good[..at], Some(&archive.sums)),
            names,
            &format!("cut in {what}"),
        );
    }
    let appended = [&archive.good[..], &[0; 512]].concat();
    assert_found(
        &archive.verify(&appended, Some(&archive.sums)),
        "bytes",
        "append",
    );
    let appended = [&archive.good[..], b"more"].concat();
    assert_found(
        &archive.verify(&appended, Some(&archive.sums)),
        "follows its end",
        "append more",
    );
}

#[test]
fn without_sums_the_structure_is_checked() {
    let archive = Archive::new();
    let good = archive.verify(&archive.good, None);
    assert!(good.problems.is_empty() && !good.compared, "{good:?}");
    let at = archive.member("large");
    for (what, bytes) in [
        ("cut", archive.good[..at.data as usize + 10].to_vec()),
        ("appended", [&archive.good[..], b"more"].concat()),
        ("a member less", {
            let mut bytes = archive.good.clone();
            bytes.drain(at.start as usize..at.end() as usize);
            bytes
        }),
        ("header", {
            let mut bytes = archive.good.clone();
            bytes[at.data as usize - 500] ^= 1;
            bytes
        }),
    ] {
        assert!(!archive.verify(&bytes, None).problems.is_empty(), "{what}");
    }
    // The control: data alone is nothing that can be told without sums.
    let mut flipped = archive.good.clone();
    flipped[at.data as usize + 10] ^= 1;
    assert!(archive.verify(&flipped, None).problems.is_empty());
}

#[test]
fn damaged_sums_are_no_damage_of_the_archive() {
    let archive = Archive::new();
    for sums in [
        "".to_owned(),
        "garbage".to_owned(),
        archive.sums[..archive.sums.len() / 2].to_owned(),
        archive.sums.replace("large", "small"),
        archive.sums.clone() + "more",
    ] {
        let verified = archive.verify(&archive.good, Some(&sums));
        assert!(
            verified.problems.is_empty() && !verified.compared,
            "{verified:?}"
        );
        assert!(verified.notes[0].contains("cannot be used"), "{verified:?}");
    }
}
