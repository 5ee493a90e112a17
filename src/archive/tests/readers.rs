//! The readers in `docs/archive-format.md`. Each restores what the table there
//! says.

use super::facts::{differences, facts};
use super::tools::run;
use super::tree::{Scope, build};
use super::*;

/// Silences the warning that GNU tar does not know `hdrcharset`.
const WARNINGS: &str = "--warning=no-unknown-keyword";

struct Case {
    dir: tempfile::TempDir,
    member_count: usize,
}

impl Case {
    fn new(scope: Scope) -> Case {
        let dir = tempfile::tempdir().unwrap();
        build(&dir.path().join("tree"), scope);
        let inventory = archive(&dir.path().join("tree"), &dir.path().join("a.tar"));
        assert_eq!(inventory.socket_count(), 1);
        fs::create_dir(dir.path().join("out")).unwrap();
        Case {
            dir,
            member_count: inventory.member_count() as usize + 1,
        }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path().join("out"))
            .args(arguments);
        command
    }

    /// Fails if the extracted tree differs from the original in other aspects than
    /// the `ignored` ones.
    fn compare(&self, ignored: &[&str]) {
        assert_eq!(
            fs::read(self.dir.path().join("out/stack.manifest.json"))
                .unwrap()
                .trim_ascii_end(),
            MANIFEST
        );
        let original = facts(&self.dir.path().join("tree"));
        let extracted = facts(&self.dir.path().join("out/stack"));
        assert_eq!(original.len(), self.member_count - 1);
        let differences = differences(&original, &extracted, ignored);
        assert!(differences.is_empty(), "{differences:#?}");
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn gnu_tar_restores_everything() {
    let case = Case::new(Scope::Full);
    let listing = run(
        &mut case.command("tar", &[WARNINGS, "-tf", "../a.tar"]),
        "tar",
    );
    assert_eq!(listing.lines().count(), case.member_count);
    let arguments = [
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "-p",
        "--same-owner",
        WARNINGS,
        "--warning=no-timestamp",
        "--numeric-owner",
        "-xf",
        "../a.tar",
    ];
    run(&mut case.command("tar", &arguments), "tar");
    case.compare(&[]);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn bsdtar_restores_all_but_odd_attribute_names_and_old_fractions() {
    let case = Case::new(Scope::Full);
    let listing = run(
        &mut case.command("bsdtar", &["-tf", "../a.tar"]),
        "libarchive-tools",
    );
    assert_eq!(listing.lines().count(), case.member_count);
    let arguments = [
        "--acls",
        "--xattrs",
        "--same-owner",
        "--numeric-owner",
        "-xpf",
        "../a.tar",
    ];
    run(&mut case.command("bsdtar", &arguments), "libarchive-tools");
    case.compare(&[
        "attribute with = or %",
        "fraction before 1970",
        "symlink fraction before 1970",
    ]);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn python_restores_all_but_attributes_and_fractions_of_a_second() {
    let case = Case::new(Scope::Full);
    let script = r#"
import sys, tarfile
archive = tarfile.open("../a.tar", errorlevel=2)
archive.extraction_filter = lambda member, path: member
print(len(archive.getmembers()))
archive.extractall(numeric_owner=True)
"#;
    let count = run(&mut case.command("python3", &["-c", script]), "python3");
    assert_eq!(count.trim(), case.member_count.to_string());
    case.compare(&[
        "mtime ns",
        "symlink mtime",
        "symlink fraction before 1970",
        "acl",
        "default acl",
        "capability",
        "attributes",
        "attribute with = or %",
        "trusted attributes",
    ]);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn busybox_restores_everything_that_ustar_supports() {
    let case = Case::new(Scope::Plain);
    let listing = run(
        &mut case.command("busybox", &["tar", "-tf", "../a.tar"]),
        "busybox",
    );
    assert!(listing.lines().count() >= case.member_count);
    run(
        &mut case.command("busybox", &["tar", "-xpf", "../a.tar"]),
        "busybox",
    );
    case.compare(&[
        "mtime ns",
        "symlink mtime",
        "symlink owner",
        "directory mtime",
        "acl",
        "default acl",
        "capability",
        "attributes",
        "attribute with = or %",
        "trusted attributes",
    ]);
}
