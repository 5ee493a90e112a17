//! Archives that others wrote, and archives that were damaged.

use super::tools::run;
use super::*;

fn small_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("stack")).unwrap();
    fs::write(dir.path().join("stack/a"), vec![b'a'; 70_000]).unwrap();
    fs::write(dir.path().join("stack/x.manifest.json"), "{}").unwrap();
    dir
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
        assert!(is_complete(&file).unwrap());
    }
    // A manifest in a directory is none of an archive.
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
    assert!(is_complete(&file).unwrap());
    assert_eq!(read_manifest(&file).unwrap().as_deref(), Some(MANIFEST));
    // Into the padding after the end: still all there.
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
        assert!(!is_complete(&file).unwrap(), "{cut}");
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
    // The control: without the length it cannot be seen.
    out.set_len(cut).unwrap();
    assert!(is_complete(&out).unwrap());
    out.set_len(bytes).unwrap();
    let layout = Layout::new(&scan_all(&sources(&dir.path().join("stack"))), &slot());
    let manifest = format!(r#"{{"archiveBytes":{bytes}}}"#);
    write_manifest(&layout, &out, manifest.as_bytes()).unwrap();
    assert!(is_complete(&out).unwrap());
    out.set_len(cut).unwrap();
    assert!(!is_complete(&out).unwrap());
}

#[test]
fn a_manifest_that_is_cut_or_damaged_is_an_error() {
    let dir = small_tree();
    let path = dir.path().join("a.tar");
    archive(&dir.path().join("stack"), &path);
    let bytes = fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read_manifest(&File::open(&path).unwrap())
    };
    assert!(read(&bytes).unwrap().is_some());
    assert!(read(&bytes[..4096]).is_err());
    assert!(read(&bytes[..100]).is_err());
    let mut damaged = bytes.clone();
    damaged[5] ^= 1;
    assert!(read(&damaged).is_err());
    assert!(read(&[b'x'; 2048]).is_err());
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
