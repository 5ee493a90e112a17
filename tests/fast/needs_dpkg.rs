//! The Debian package, made of the program that the tests run, and the checks of a release.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Ended, PROGRAM, output, succeed};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn make_package(out: &Path) -> PathBuf {
    let mut deb = Command::new(Path::new(ROOT).join("scripts/deb"));
    deb.args(["--fast", PROGRAM]).arg(out);
    deb.env("SOURCE_DATE_EPOCH", "1795000000");
    let ended = output(&mut deb).expect_status(0);
    PathBuf::from(ended.stdout.trim())
}

fn field(package: &Path, name: &str) -> String {
    succeed("dpkg-deb", ["--field", package.to_str().unwrap(), name])
}

#[test]
fn the_package_has_all_that_a_machine_needs_and_is_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let package = make_package(dir.path());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(field(&package, "Version").trim(), version);
    let depends = field(&package, "Depends");
    assert!(depends.starts_with("libc6 (>= 2."), "{depends}");

    let root = dir.path().join("root");
    let paths = [package.to_str().unwrap(), root.to_str().unwrap()];
    succeed("dpkg-deb", ["--raw-extract"].iter().chain(&paths));
    let conffiles = fs::read_to_string(root.join("DEBIAN/conffiles")).unwrap();
    for conffile in conffiles.lines() {
        let text = fs::read_to_string(root.join(&conffile[1..])).unwrap();
        let mut check = Command::new(PROGRAM);
        let file = dir.path().join("config.json");
        fs::write(&file, text).unwrap();
        check.arg("check").arg("--config").arg(&file);
        output(&mut check).expect_status(0);
    }
    assert_eq!(conffiles.lines().count(), 1);
    for path in [
        "usr/bin/docker-stack-backup",
        "usr/lib/systemd/system/docker-stack-backup-recover.service",
        "usr/share/bash-completion/completions/docker-stack-backup",
        "usr/share/zsh/vendor-completions/_docker-stack-backup",
        "usr/share/fish/vendor_completions.d/docker-stack-backup.fish",
        "usr/share/man/man1/docker-stack-backup.1.gz",
        "usr/share/man/man5/docker-stack-backup-config.5.gz",
        "usr/share/doc/docker-stack-backup/copyright",
        "usr/share/doc/docker-stack-backup/docs/restore.md",
    ] {
        let metadata = fs::metadata(root.join(path)).expect(path);
        assert!(metadata.len() > 0, "{path}");
        // Everybody may read it, whatever umask it was made with.
        assert_eq!(metadata.permissions().mode() & 0o044, 0o044, "{path}");
    }
    let mut md5sum = Command::new("md5sum");
    md5sum.args(["--check", "--quiet", "DEBIAN/md5sums"]);
    output(md5sum.current_dir(&root)).expect_status(0);

    let again = make_package(&dir.path().join("root"));
    assert_eq!(fs::read(&package).unwrap(), fs::read(again).unwrap());
}

/// Runs the checks of a release in a copy of the repository, in which `spoil` has changed
/// something.
fn check_release(spoil: impl Fn(&Path)) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path();
    let mut copy = Command::new("cp");
    copy.arg("-r").args([
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "contrib",
        "docs",
        "examples",
        "scripts",
        "src",
    ]);
    output(copy.arg(tree).current_dir(ROOT)).expect_status(0);
    fs::create_dir(tree.join("tests")).unwrap();
    fs::write(tree.join("tests/main.rs"), "").unwrap();
    spoil(tree);
    output(Command::new(tree.join("scripts/release")).arg("--check"))
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_would_spoil_a_release_is_found() {
    check_release(|_| ()).expect_status(0);
    let ended = check_release(|tree| {
        let version = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
        replace(
            &tree.join("contrib/nixpkgs/package.nix"),
            &version,
            "version = \"9.9.9\"",
        );
        replace(&tree.join("CHANGELOG.md"), "## [Unreleased]", "## [9.9.8]");
        replace(&tree.join("Cargo.toml"), "  \"/examples\",\n", "");
    });
    let ended = ended.expect_status(1);
    for fault in [
        "package.nix has version 9.9.9",
        "CHANGELOG.md has no section",
        "examples/minimal.json is not in the crate",
    ] {
        assert!(ended.stderr.contains(fault), "{}", ended.stderr);
    }
}
