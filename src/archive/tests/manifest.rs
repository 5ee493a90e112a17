//! The manifest is read back, and nothing else is.

use std::io::{Seek, SeekFrom};

use super::forge::{Evil, evil, file, header, pax, write};
use super::tools::run;
use super::*;
use crate::archive::read_manifest_of_stream;

fn small_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("stack")).unwrap();
    fs::write(dir.path().join("stack/a"), vec![b'a'; 70_000]).unwrap();
    fs::write(dir.path().join("stack/x.manifest.json"), "{}").unwrap();
    dir
}

/// Reads the manifest of an archive that consists of `bytes`.
fn manifest_in(bytes: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let archive = tempfile::NamedTempFile::new().unwrap();
    fs::write(archive.path(), bytes).unwrap();
    let from_file = read_manifest(archive.as_file());
    match (&from_file, read_manifest_of_stream(bytes)) {
        (Ok(manifest), Ok((streamed, _))) => assert_eq!(*manifest, streamed),
        (Err(_), Err(_)) => {}
        (from_file, streamed) => panic!("{from_file:?}, {streamed:?}"),
    }
    from_file
}

#[test]
fn archives_of_gnu_tar_are_complete_and_have_no_manifest() {
    let dir = small_tree();
    for arguments in [&["-cf"][..], &["--format=posix", "-cf"], &["-b1", "-cf"]] {
        let mut command = Command::new("tar");
        run(
            command
                .current_dir(&dir)
                .args(arguments)
                .args(["f.tar", "stack"]),
            "tar",
        );
        let file = File::open(dir.path().join("f.tar")).unwrap();
        assert_eq!(read_manifest(&file).unwrap(), None);
        assert!(identify(&file).unwrap().complete);
    }
    // A manifest in a directory is not the archive's.
    run(
        Command::new("tar")
            .current_dir(&dir)
            .args(["-cf", "f.tar", "stack/x.manifest.json"]),
        "tar",
    );
    assert_eq!(
        read_manifest(&File::open(dir.path().join("f.tar")).unwrap()).unwrap(),
        None
    );
}

#[test]
fn a_cut_archive_is_not_complete() {
    let dir = small_tree();
    let path = dir.path().join("a.tar");
    archive(&dir.path().join("stack"), &path);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let bytes = file.metadata().unwrap().len();
    assert!(identify(&file).unwrap().complete);
    assert_eq!(read_manifest(&file).unwrap().as_deref(), Some(MANIFEST));
    // Cuts within the padding at the end, and then within members.
    for cut in [
        bytes - 1,
        bytes - 511,
        bytes - 8192,
        70_000 / 512 * 512,
        4096,
        1024,
        512,
        1,
        0,
    ] {
        file.set_len(cut).unwrap();
        assert!(!identify(&file).unwrap().complete, "{cut}");
    }
    assert_eq!(read_manifest(&file).unwrap(), None);
}

#[test]
fn a_cut_within_a_members_zeros_is_seen_by_the_recorded_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    fs::create_dir(dir.path().join("stack")).unwrap();
    fs::write(dir.path().join("stack/zeros"), vec![0; 100_000]).unwrap();
    archive(&dir.path().join("stack"), &path);
    let out = File::options().read(true).write(true).open(&path).unwrap();
    let bytes = out.metadata().unwrap().len();
    let cut = bytes - 20_480;
    // The control: without a recorded length the cut is not seen.
    out.set_len(cut).unwrap();
    assert!(identify(&out).unwrap().complete);
    out.set_len(bytes).unwrap();
    let layout = Layout::new(&scan_all(&sources(&dir.path().join("stack"))), &slot());
    let manifest = format!(r#"{{"archiveBytes":{bytes}}}"#);
    write_manifest(&layout, &out, manifest.as_bytes()).unwrap();
    assert!(identify(&out).unwrap().complete);
    out.set_len(cut).unwrap();
    assert!(!identify(&out).unwrap().complete);
}

#[test]
fn a_manifest_that_is_cut_or_damaged_is_an_error() {
    let dir = small_tree();
    let path = dir.path().join("a.tar");
    archive(&dir.path().join("stack"), &path);
    let bytes = fs::read(&path).unwrap();
    assert!(manifest_in(&bytes).unwrap().is_some());
    assert!(manifest_in(&bytes[..4096]).is_err());
    assert!(manifest_in(&bytes[..100]).is_err());
    let mut damaged = bytes.clone();
    damaged[5] ^= 1;
    assert!(manifest_in(&damaged).is_err());
    assert!(manifest_in(&[b'x'; 2048]).is_err());
}

#[test]
fn a_long_manifest_name_is_read_back() {
    let dir = small_tree();
    let sources = sources(dir.path());
    let inventory = scan_all(&sources);
    let name = format!("{}.manifest.json", "n".repeat(200));
    let layout = Layout::new(
        &inventory,
        &ManifestSlot {
            name,
            reserved_bytes: 100_000,
            mtime_s: 0,
        },
    );
    assert_eq!(layout.start() % 4096, 0);
    let out = tempfile::tempfile().unwrap();
    write_manifest(&layout, &out, MANIFEST).unwrap();
    assert_eq!(read_manifest(&out).unwrap().as_deref(), Some(MANIFEST));
}

#[test]
fn nothing_beyond_the_manifest_is_read_and_the_position_stays() {
    let dir = small_tree();
    let path = dir.path().join("a.tar");
    let inventory = archive(&dir.path().join("stack"), &path);
    let start = Layout::new(&inventory, &slot()).start() as usize;
    let bytes = fs::read(&path).unwrap();
    let (manifest, read) = read_manifest_of_stream(&bytes[..]).unwrap();
    assert_eq!(manifest.as_deref(), Some(MANIFEST));
    assert!(read == bytes[..start], "{} bytes were read", read.len());
    // Of an archive without a manifest, one header is read.
    let foreign = write(&[file("stack/a", b"x")]);
    let (manifest, read) = read_manifest_of_stream(&foreign[..]).unwrap();
    assert_eq!((manifest, read.len()), (None, 512));
    let mut file = File::open(&path).unwrap();
    file.seek(SeekFrom::Start(7)).unwrap();
    read_manifest(&file).unwrap();
    assert_eq!(file.stream_position().unwrap(), 7);
}

#[test]
fn a_manifest_of_more_than_64_mib_is_refused() {
    const LIMIT: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let of_size = |bytes: u64| {
        let path = dir.path().join("a.tar");
        fs::write(&path, header(b"x.manifest.json", b'0', b"", bytes)).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(512 + bytes.next_multiple_of(512)).unwrap();
        read_manifest(&File::open(&path).unwrap())
    };
    let error = of_size(LIMIT + 1).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "the manifest has 67108865 bytes; at most 67108864 are read"
    );
    assert_eq!(of_size(LIMIT).unwrap().unwrap().len() as u64, LIMIT);
    // A size that only the header claims.
    let claimed = header(b"x.manifest.json", b'0', b"", 1 << 40);
    assert!(manifest_in(&claimed).is_err());
}

#[test]
fn a_first_member_that_cannot_be_restored_means_no_manifest() {
    let acl = [("SCHILY.acl.access", "user:nobody knows:rwx")];
    let owner = [("uid", "4294967295")];
    for member in [
        pax(&acl, evil("stack", b'5')),
        pax(&owner, evil("stack", b'2')),
        evil("stack", b'M'),
    ] {
        assert_eq!(manifest_in(&write(&[member])).unwrap(), None);
    }
    // The control: the headers themselves must not be damaged.
    let damaged = Evil {
        extended: vec![(b'x', b"garbage".to_vec())],
        ..evil("stack", b'5')
    };
    assert!(manifest_in(&write(&[damaged])).is_err());
}
