use std::process::Command;

use super::*;

#[test]
fn gnu_tar_extracts_an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    fs::write(tree.join("small"), "hello").unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    fs::write(tree.join("sub/large"), &large).unwrap();
    fs::hard_link(tree.join("small"), tree.join("sub/linked")).unwrap();
    std::os::unix::fs::symlink("../small", tree.join("sub/symlink")).unwrap();
    let path = dir.path().join("a.tar");
    let inventory = archive(&tree, &path);
    assert_eq!(inventory.member_count(), 7);
    assert_eq!(inventory.content_bytes(), 3_000_005);
    let status = Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .arg("-xpf")
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
    let extracted = dir.path().join("stack");
    let diff = Command::new("diff")
        .arg("-r")
        .arg("--no-dereference")
        .arg(&tree)
        .arg(&extracted)
        .status();
    assert!(diff.unwrap().success());
    assert_eq!(fs::read(dir.path().join("stack/sub/large")).unwrap(), large);
    let file = File::open(&path).unwrap();
    assert_eq!(read_manifest(&file).unwrap().as_deref(), Some(MANIFEST));
    assert!(is_complete(&file).unwrap());
}
