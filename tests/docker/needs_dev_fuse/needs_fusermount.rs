//! Mounts of users other than root, who need the helper of FUSE.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::common::{Background, PROGRAM, wait_until};

const NOBODY: u32 = 65534;

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_user_mounts_an_archive_and_nobody_else_can_look_at_it() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(place.path(), 0o755);
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives/format-1.tar");
    fs::copy(frozen, path("a.tar")).unwrap();
    open(&path("a.tar"), 0o644);
    fs::copy(PROGRAM, path("program")).unwrap();
    for dir in ["mnt", "home"] {
        fs::create_dir(path(dir)).unwrap();
        chown(path(dir), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mount = |command: &str| {
        let mut mount = Command::new(path("program"));
        mount.uid(NOBODY).gid(NOBODY).env("HOME", path("home"));
        mount.current_dir(place.path());
        mount.args(["mount", "./a.tar", "mnt", "--", "sh", "-c", command]);
        mount
    };
    let command = "cat mnt/frozen/compose.yaml; touch home/ready; \
                   while [ -e home/ready ]; do sleep 0.05; done";
    let mounted = Background::spawn(&mut mount(command));
    wait_until("it is mounted, or has ended", || {
        path("home/ready").exists() || mounted.has_ended()
    });
    let looked = fs::read_dir(path("mnt"));
    let _ = fs::remove_file(path("home/ready"));
    let ended = mounted.end().expect_status(0);
    assert!(ended.stdout.starts_with("services:"), "{}", ended.stdout);
    assert_eq!(looked.unwrap_err().raw_os_error(), Some(13));
    // It is unmounted.
    assert_eq!(fs::read_dir(path("mnt")).unwrap().count(), 0);
}
