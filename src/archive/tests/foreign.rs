//! Archives of other programs: what is rare in them, and safe to take.

use super::forge::{Evil, evil, file, link, pax, write};
use super::*;
use crate::archive::verify::{LACKS_END, Verified, verify};
use crate::restore::selection::Selection;
use crate::restore::{Archive, to_directory};

/// Unpacks an archive, and verifies it: both must agree.
fn unpack(bytes: &[u8]) -> (tempfile::TempDir, Verified, anyhow::Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("a.tar"), dir.path().join("out"));
    fs::write(&path, bytes).unwrap();
    let archive = Archive::open(&path).unwrap();
    let restored = to_directory(&archive, &out, &Selection::default(), false, &GO_ON);
    let verified = verify(path.clone(), &File::open(&path).unwrap(), None, &GO_ON).unwrap();
    assert_eq!(
        verified.problems.is_empty(),
        restored.is_ok(),
        "{:?} {:?}",
        verified.problems,
        restored.as_ref().err()
    );
    (dir, verified, restored.map(drop))
}

#[test]
fn rare_members_of_other_programs_are_taken() {
    let with_size = |member: Evil| Evil {
        size: 4096,
        ..member
    };
    let dump = Evil {
        kind: b'D',
        ..file("d/", b"Yfile\0\0")
    };
    let archive = write(&[
        evil("label", b'V'),
        pax(&[("path", "long")], file("short", b"long")),
        with_size(evil("sized/", b'5')),
        with_size(link("hard", b'1', "long")),
        with_size(link("soft", b'2', "long")),
        with_size(evil("fifo", b'6')),
        dump,
        Evil {
            kind: b'Z',
            ..file("unknown", b"unknown")
        },
        file("last", b"last"),
    ]);
    let (dir, _, restored) = unpack(&archive);
    restored.unwrap();
    let out = dir.path().join("out");
    for name in ["long", "unknown", "last"] {
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), name);
    }
    assert!(out.join("d").is_dir() && out.join("sized").is_dir());
    assert_eq!(fs::read_to_string(out.join("hard")).unwrap(), "long");
    assert!(!out.join("label").exists());
}

#[test]
fn the_end_of_an_archive_may_be_short_but_not_that_of_this_program() {
    let whole = write(&[file("a", b"a")]);
    let manifest = write(&[file("x.manifest.json", MANIFEST), file("a", b"a")]);
    for cut in [512, 1024] {
        let (dir, verified, restored) = unpack(&whole[..whole.len() - cut]);
        restored.unwrap();
        assert!(verified.notes.iter().any(|note| note == LACKS_END));
        assert!(dir.path().join("out/a").exists());
        let (_, _, restored) = unpack(&manifest[..manifest.len() - cut]);
        let error = format!("{:#}", restored.unwrap_err());
        assert!(error.contains("ends unexpectedly"), "{error}");
    }
    // The controls.
    let (_, verified, restored) = unpack(&whole);
    restored.unwrap();
    assert!(!verified.notes.iter().any(|note| note == LACKS_END));
    unpack(&manifest).2.unwrap();
}

#[test]
fn what_cannot_be_unpacked_is_said_by_verify_too() {
    for (members, reason) in [
        (vec![file("/a", b"")], "its name is absolute"),
        (vec![file("a/../b", b"")], "its name has .. in it"),
        (
            vec![file("a", b""), file("a", b"")],
            "the archive has it twice",
        ),
        (vec![file("a", b""), evil("a/", b'5')], "twice"),
        (
            vec![link("s", b'2', "."), file("s/x", b"")],
            "leads through a symlink",
        ),
        (
            vec![link("h", b'1', "none")],
            "the target of the hard link is not in the archive",
        ),
        (
            vec![evil("m", b'M')],
            "it continues a file that begins in another volume",
        ),
    ] {
        let (_, verified, restored) = unpack(&write(&members));
        let error = format!("{:#}", restored.unwrap_err());
        assert!(error.contains(reason), "{error}");
        assert!(
            verified.problems[0].contains(reason),
            "{:?}",
            verified.problems
        );
    }
}

#[test]
fn a_first_member_that_is_called_like_a_manifest_may_be_of_another_program() {
    let foreign = write(&[file("x.manifest.json", b"{\"a\": 1}"), file("a", b"a")]);
    unpack(&foreign).2.unwrap();
}

#[test]
fn compressed_archives_are_named_with_what_decompresses_them() {
    for (signature, program) in [
        (&b"\x1f\x8b\x08"[..], "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh91AY", "bzip2"),
    ] {
        let mut compressed = signature.to_vec();
        compressed.resize(2048, 7);
        let (_, _, restored) = unpack(&compressed);
        let error = format!("{:#}", restored.unwrap_err());
        assert!(
            error.contains(&format!("`{program} -dc ARCHIVE |")),
            "{error}"
        );
        // The control: elsewhere, it is damage.
        let after = [&write(&[file("a", b"")])[..512], &compressed].concat();
        let error = format!("{:#}", unpack(&after).2.unwrap_err());
        assert!(error.contains("checksum is wrong"), "{error}");
    }
}
