//! Looking into archives: `list --tree`, `diff` and `cat`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Ended, Place, output};
use serde_json::{Value, json};

/// A store with the frozen archive and its sums.
struct Scene {
    place: Place,
    archive: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let place = Place::new();
        place.config(json!([]), json!({}));
        let archive = place.add_frozen_archive("20200101");
        Scene { place, archive }
    }

    fn run(&self, args: &[&str]) -> Ended {
        output(&mut self.place.program(args))
    }

    /// Changes one byte of the last member with this content.
    fn spoil(&self, archive: &Path, content: &[u8]) {
        let mut bytes = fs::read(archive).unwrap();
        let mut windows = bytes.windows(content.len());
        let at = windows.rposition(|window| window == content).unwrap();
        bytes[at] ^= 1;
        fs::write(archive, bytes).unwrap();
    }
}

#[test]
fn an_archive_is_shown_as_a_tree_with_sizes() {
    let scene = Scene::new();
    let whole = scene.run(&["list", "--tree", "frozen"]).expect_status(0);
    insta::assert_snapshot!(whole.stdout, @r"
    228.7 KiB  frozen/
        131 B    compose.yaml
    228.6 KiB    dir/
          6 B      caf�
          0 B      empty/
            -      fifo
          6 B      file
          6 B      hardlink
     68.4 KiB      large
        200 B      nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
    160.0 KiB      sparse
            -      symlink -> ../dir/file
     11.5 KiB  frozen.manifest.json
    ");
    let top = scene.run(&["list", "--tree", "--depth", "1", "frozen@2020"]);
    insta::assert_snapshot!(top.expect_status(0).stdout, @r"
    228.7 KiB  frozen/
     11.5 KiB  frozen.manifest.json
    ");
    // A part, by its path on the host, and of a file outside of the store.
    let path = scene.archive.to_str().unwrap();
    let part = "/srv/example/stacks/frozen/compose.yaml";
    let part = scene.run(&["list", "--tree", path, part]).expect_status(0);
    assert_eq!(part.stdout, "      131 B  frozen/compose.yaml\n");
    let json = scene.run(&["--json", "list", "--tree", "frozen", "dir/large"]);
    let json: Value = json.expect_status(0).json();
    assert_eq!(
        json["members"],
        json!([{
            "path": "frozen/dir/large", "kind": "file", "bytes": 70000, "memberCount": 1,
            "target": null,
        }])
    );
    // The control: without --tree, the archives of the stack are listed.
    let archives = scene.run(&["list", "frozen"]).expect_status(0);
    assert!(
        archives.stdout.contains("2020-01-01"),
        "{}",
        archives.stdout
    );
}

#[test]
fn a_file_is_written_whichever_way_it_is_named() {
    let scene = Scene::new();
    let path = scene.archive.to_str().unwrap();
    for what in [
        "frozen:compose.yaml",
        "frozen@2020-01-01T00:00:compose.yaml",
        "frozen:frozen/compose.yaml",
        "frozen:/srv/example/stacks/frozen/compose.yaml",
        &format!("{path}:frozen/compose.yaml"),
    ] {
        let written = scene.run(&["cat", what]).expect_status(0);
        assert_eq!(written.stdout.len(), 131, "{what}");
        assert!(
            written.stdout.starts_with("services:"),
            "{}",
            written.stdout
        );
    }
    let sizes = [("file", 6), ("hardlink", 6), ("sparse", 163_840)];
    for (name, size) in sizes {
        let written = scene.run(&["cat", &format!("frozen:dir/{name}")]);
        assert_eq!(written.expect_status(0).stdout.len(), size, "{name}");
    }
    for (what, reason) in [
        (
            "frozen:dir/symlink",
            "is a symlink to ../dir/file, which is not followed",
        ),
        (
            "frozen:dir/symlink/x",
            "is a symlink to ../dir/file, which is not followed",
        ),
        ("frozen:dir", "frozen/dir is not a file, but a directory"),
        ("frozen:dir/fifo", "is not a file, but a FIFO"),
        ("frozen:nothing", "there is no nothing in"),
        ("frozen:../x", "has .. in it"),
        (
            "frozen:/etc/passwd",
            "/etc/passwd is in no tree of the archive",
        ),
        ("frozen", "name a file of an archive as STACK:PATH"),
        ("web:x", "there is no archive of a stack web"),
    ] {
        let refused = scene.run(&["cat", what]).expect_status(1);
        assert!(
            refused.stderr.contains(reason),
            "{what}: {}",
            refused.stderr
        );
        assert_eq!(refused.stdout, "");
    }
}

#[test]
fn a_damaged_file_is_written_and_told() {
    let scene = Scene::new();
    scene.spoil(&scene.archive, b"zzzzzz");
    let damaged = scene.run(&["cat", "frozen:dir/large"]).expect_status(2);
    assert_eq!(damaged.stdout.len(), 70_000);
    assert!(
        damaged.stderr.contains("frozen/dir/large is damaged"),
        "{}",
        damaged.stderr
    );
    // The controls: another file, and no sums to compare with.
    scene.run(&["cat", "frozen:dir/file"]).expect_status(0);
    fs::remove_file(scene.archive.with_extension("sums")).unwrap();
    scene.run(&["cat", "frozen:dir/large"]).expect_status(0);
}

#[test]
fn two_archives_are_compared() {
    let scene = Scene::new();
    let other = scene.place.path("other.tar");
    fs::copy(&scene.archive, &other).unwrap();
    let other = other.to_str().unwrap();
    let same = scene.run(&["diff", "frozen", other]).expect_status(0);
    assert!(
        same.stdout
            .ends_with("0 added, 0 removed, 0 changed, 12 the same\n"),
        "{}",
        same.stdout
    );
    scene.spoil(Path::new(other), b"zzzzzz");
    let changed = scene.run(&["diff", "frozen@2020", other]).expect_status(2);
    assert!(
        changed
            .stdout
            .contains("~ frozen/dir/large: content (68.4 KiB)\n"),
        "{}",
        changed.stdout
    );
    let json = scene
        .run(&["--json", "diff", "frozen", other])
        .expect_status(2);
    assert_eq!(json.json()["differences"][0]["change"], "changed");
    scene.run(&["diff", "frozen", "nothing"]).expect_status(1);
}

#[test]
fn an_older_archive_than_the_newest_is_not_looked_into_silently() {
    let scene = Scene::new();
    let newer = scene.archive.with_file_name("frozen_20200102_000000.tar");
    let bytes = fs::read(&scene.archive).unwrap();
    fs::write(&newer, &bytes[..bytes.len() / 2]).unwrap();
    for args in [
        &["cat", "frozen:compose.yaml"][..],
        &["list", "--tree", "frozen"],
        &["diff", "frozen@20200101", "frozen"],
    ] {
        let refused = scene.run(args).expect_status(1);
        assert!(
            refused
                .stderr
                .contains("frozen_20200102_000000.tar is incomplete"),
            "{}",
            refused.stderr
        );
        let allowed = [args, &["--pass-over"]].concat();
        scene.run(&allowed).expect_status(0);
    }
}

#[test]
fn what_commands_a_terminal_is_shown_escaped() {
    let scene = Scene::new();
    let path = scene.place.path("evil.tar");
    let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
    for name in [
        "web/\x1b]0;owned\x07",
        "web/\u{202e}exe.txt",
        "web/line\nbreak",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &b"x"[..]).unwrap();
    }
    tar.finish().unwrap();
    let path = path.to_str().unwrap();
    for args in [
        &["list", "--tree", path][..],
        &["--json", "list", "--tree", path],
    ] {
        let shown = scene.run(args).expect_status(0).stdout;
        assert!(
            shown.contains("owned") && shown.contains("exe.txt"),
            "{shown}"
        );
        for command in ['\x1b', '\x07', '\u{202e}'] {
            assert!(!shown.contains(command), "{shown:?}");
        }
        assert!(shown.contains("break"), "{shown}");
        assert!(!shown.contains("\nbreak"), "{shown}");
    }
}
