//! Looking into archives: `list --tree`, `diff` and `cat`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Ended, Place, output};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
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
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
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

/// An archive whose only file is a hole of 8 EiB, with another hole behind its end.
fn endless(path: &Path) {
    let mut builder = tar::Builder::new(File::create(path).unwrap());
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"hole"),
        ("GNU.sparse.realsize", b"9000000000000000000"),
    ];
    builder.append_pax_extensions(records).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(512);
    header.set_mode(0o600);
    let map = [&b"1\n9000000000000000000\n0\n"[..], &[0; 488]].concat();
    builder.append_data(&mut header, "hole", &map[..]).unwrap();
    builder.into_inner().unwrap().flush().unwrap();
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let scene = Scene::new();
    let path = |name: &str| scene.place.path(name).display().to_string();
    let (fifo, endless) = (path("fifo.tar"), path("endless.tar"));
    mkfifo(Path::new(&fifo), Mode::S_IRWXU).unwrap();
    symlink("/dev/zero", &endless).unwrap();
    let (out, view) = (path("out"), path("view"));
    fs::create_dir(&view).unwrap();
    for other in [&fifo, &endless] {
        let member = format!("{other}:x");
        for args in [
            &["cat", &member][..],
            &["list", other],
            &["list", "--tree", other],
            &["diff", "frozen", other],
            &["verify", other],
            &["mount", other, &view],
            &["restore", other, "--to", &out],
            &["restore", "frozen", "--from", other, "--dry-run"],
        ] {
            let refused = scene.run(args).expect_status(1);
            let error = &refused.stderr;
            assert!(error.contains("not a regular file"), "{args:?}: {error}");
        }
    }
    // A pipe from a program that has failed.
    for args in [
        &["restore", "-", "--to", &out][..],
        &["restore", "frozen", "--from", "-", "--yes"],
    ] {
        let refused = scene.run(args).expect_status(1);
        let error = &refused.stderr;
        assert!(
            error.contains("standard input is empty"),
            "{args:?}: {error}"
        );
    }
    // What lies beside an archive is not waited for either.
    let archive = scene.archive.to_str().unwrap();
    let copy = path("copy.tar");
    for beside in [&fifo, &endless] {
        fs::copy(archive, &copy).unwrap();
        let sums = path("copy.sums");
        let _ = fs::remove_file(&sums);
        symlink(beside, &sums).unwrap();
        let member = format!("{copy}:frozen/compose.yaml");
        for args in [&["cat", &member][..], &["verify", &copy]] {
            let ended = scene.run(args).expect_status(0);
            assert!(ended.stderr.contains("sums"), "{args:?}: {}", ended.stderr);
        }
    }
    // The control: a symlink to an archive is one.
    let link = path("link.tar");
    symlink(archive, &link).unwrap();
    scene.run(&["verify", &link]).expect_status(0);
}

/// Starts a command that would not end soon, and checks that SIGTERM ends it.
#[track_caller]
fn ends_at_sigterm(mut command: Command) {
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    // The control: it has something to do.
    assert!(child.try_wait().unwrap().is_none(), "{command:?}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("SIGTERM does not end {command:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_what_an_archive_makes_endless() {
    let scene = Scene::new();
    let path = |name: &str| scene.place.path(name).display().to_string();
    let hole = path("hole.tar");
    endless(Path::new(&hole));
    let quiet = |args: &[&str]| {
        let mut command = scene.place.program(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    ends_at_sigterm(quiet(&["cat", &format!("{hole}:hole")]));
    // A hole behind the end of the archive.
    let file = File::options().write(true).open(&hole).unwrap();
    file.set_len(8 << 40).unwrap();
    ends_at_sigterm(quiet(&["verify", &hole]));
    let tail = path("tail.tar");
    fs::copy(&scene.archive, &tail).unwrap();
    let file = File::options().write(true).open(&tail).unwrap();
    file.set_len(8 << 40).unwrap();
    ends_at_sigterm(quiet(&["restore", &tail, "--to", &path("out")]));
}

#[test]
fn a_signal_ends_what_nobody_reads() {
    let scene = Scene::new();
    let unread = |args: &[&str]| {
        let mut command = scene.place.program(args);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let hole = scene.place.path("hole.tar");
    endless(&hole);
    ends_at_sigterm(unread(&["cat", &format!("{}:hole", hole.display())]));
    // More than a pipe holds, at once.
    ends_at_sigterm(unread(&["cat", "frozen:dir/sparse"]));
}

#[test]
fn nobody_who_reads_the_log_is_waited_for() {
    let scene = Scene::new();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    // It holds 64 KiB, and takes no more.
    writer.write_all(&[b'x'; 64 << 10]).unwrap();
    let mut command = scene.place.program(&["cat", "frozen:nothing"]);
    let mut child = command.stderr(writer).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("it waits for a log that nobody reads");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
