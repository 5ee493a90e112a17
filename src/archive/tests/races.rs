//! Trees that change between the scan and the reading.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

use super::tools::need_root;
use super::*;

const SECRET: &[u8] = b"not to be read: 3b1f6f0c9a";

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    /// Makes `outside/` and `tree/`, in which `b` lies between two other files.
    fn new() -> Case {
        Case::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: tempfile::TempDir) -> Case {
        let case = Case { dir };
        fs::create_dir_all(case.path("outside/sub")).unwrap();
        fs::create_dir_all(case.path("tree/sub")).unwrap();
        fs::write(case.path("outside/b"), SECRET).unwrap();
        fs::write(case.path("outside/sub/c"), SECRET).unwrap();
        fs::write(case.path("tree/a"), [b'a'; 100]).unwrap();
        fs::write(case.path("tree/b"), vec![b'b'; 100_000]).unwrap();
        fs::write(case.path("tree/sub/c"), [b'c'; 1000]).unwrap();
        fs::write(case.path("tree/z"), [b'z'; 100]).unwrap();
        case
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Scans the tree, applies `change`, and writes the archive. Returns summary and
    /// bytes.
    fn archive(&self, change: impl Fn(&Case)) -> (WriteSummary, Vec<u8>) {
        let sources = sources(&self.path("tree"));
        let inventory = scan_all(&sources);
        change(self);
        let path = self.path("a.tar");
        let summary = write_scanned(&sources, &inventory, &path);
        (summary, fs::read(path).unwrap())
    }
}

/// Applies `change` after the scan. The archive must be the same as without the
/// change, except for the data of the member at `path`: its first
/// `unchanged_bytes` stay, and the rest is zeros.
fn check(change: impl Fn(&Case), path: &str, byte: u8, unchanged_bytes: usize) {
    let (summary, unchanged) = Case::new().archive(|_| {});
    assert_eq!(summary, WriteSummary::default());
    let (summary, changed) = Case::new().archive(change);
    assert_eq!(summary.changed, [path]);
    assert_eq!(summary.changed_count, 1);
    // The times of the two trees differ, so only the content is compared.
    let mut expected = contents(&unchanged);
    let content = &mut expected
        .iter_mut()
        .find(|(name, _)| name == path)
        .unwrap()
        .1;
    assert!(content.iter().all(|b| *b == byte));
    content[unchanged_bytes..].fill(0);
    assert!(contents(&changed) == expected);
    assert!(!contains(&changed, SECRET));
}

fn contents(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let members = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (
            String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            content,
        )
    });
    members.collect()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// A tmpfs, which is not trusted either, stands for file systems that assign new
/// inode numbers.
#[test]
fn a_file_with_a_new_inode_number_is_archived_while_the_stack_is_down() {
    let case = Case::at(tempfile::tempdir_in("/dev/shm").unwrap());
    let sources = sources(&case.path("tree"));
    let mut inventory = scan_all(&sources);
    let path = case.path("a.tar");
    write_scanned(&sources, &inventory, &path);
    let expected = fs::read(&path).unwrap();
    for entry in &mut inventory.entries {
        entry.ino += 1 << 40;
    }
    let summary = write_scanned(&sources, &inventory, &path);
    assert_eq!(summary, WriteSummary::default());
    assert!(fs::read(&path).unwrap() == expected);
    // The controls: such a file counts as changed while the sources are live, or
    // if its times differ.
    let archive = |inventory: &Inventory, is_live: bool| {
        let reading = ReadOptions {
            is_live,
            ..reading(&sources, &GO_ON)
        };
        let layout = Layout::new(inventory, &slot());
        let out = File::create(&path).unwrap();
        let (summary, _) = write_members(&layout, inventory, reading, &out).unwrap();
        summary
    };
    assert_eq!(archive(&inventory, true).changed_count, 4);
    let other = fs::read(case.path("tree/a")).unwrap();
    fs::remove_file(case.path("tree/a")).unwrap();
    fs::write(case.path("tree/a"), other).unwrap();
    assert_eq!(archive(&inventory, false).changed, ["stack/a"]);
}

#[test]
fn a_file_cut_after_the_scan_is_padded_and_named() {
    let cut = |case: &Case| {
        let file = File::options()
            .write(true)
            .open(case.path("tree/b"))
            .unwrap();
        file.set_len(70_001).unwrap();
    };
    check(cut, "stack/b", b'b', 70_001);
}

#[test]
fn a_file_grown_after_the_scan_is_cut_and_named() {
    let grow = |case: &Case| {
        let mut file = File::options()
            .append(true)
            .open(case.path("tree/b"))
            .unwrap();
        file.write_all(b"more").unwrap();
    };
    check(grow, "stack/b", b'b', 100_000);
}

#[test]
fn a_file_written_after_the_scan_is_named() {
    let write = |case: &Case| {
        let file = File::options()
            .write(true)
            .open(case.path("tree/sub/c"))
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"c", 10).unwrap();
    };
    check(write, "stack/sub/c", b'c', 1000);
}

#[test]
fn a_file_gone_after_the_scan_is_zeros_and_named() {
    let remove = |case: &Case| fs::remove_file(case.path("tree/b")).unwrap();
    check(remove, "stack/b", b'b', 0);
}

#[test]
fn a_file_replaced_by_another_is_zeros_and_named() {
    let replace = |case: &Case| {
        fs::write(case.path("tree/new"), vec![b'n'; 100_000]).unwrap();
        fs::rename(case.path("tree/new"), case.path("tree/b")).unwrap();
    };
    check(replace, "stack/b", b'b', 0);
}

#[test]
fn a_file_replaced_by_a_fifo_does_not_block() {
    let replace = |case: &Case| {
        fs::remove_file(case.path("tree/b")).unwrap();
        nix::unistd::mkfifo(&case.path("tree/b"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    };
    check(replace, "stack/b", b'b', 0);
}

#[test]
fn a_file_replaced_by_a_symlink_is_not_followed() {
    let replace = |case: &Case| {
        fs::remove_file(case.path("tree/b")).unwrap();
        symlink("../outside/b", case.path("tree/b")).unwrap();
        assert_eq!(fs::read(case.path("tree/b")).unwrap(), SECRET);
    };
    check(replace, "stack/b", b'b', 0);
}

#[test]
fn a_directory_replaced_by_a_symlink_is_not_followed() {
    let replace = |case: &Case| {
        fs::rename(case.path("tree/sub"), case.path("tree/old")).unwrap();
        symlink("../outside/sub", case.path("tree/sub")).unwrap();
        assert_eq!(fs::read(case.path("tree/sub/c")).unwrap(), SECRET);
    };
    check(replace, "stack/sub/c", b'c', 0);
}

#[test]
fn the_root_stays_the_same_when_the_symlink_to_it_changes() {
    let case = Case::new();
    symlink("tree", case.path("link")).unwrap();
    let sources = sources(&case.path("link"));
    fs::remove_file(case.path("link")).unwrap();
    symlink("outside", case.path("link")).unwrap();
    let inventory = scan_all(&sources);
    let summary = write_scanned(&sources, &inventory, &case.path("a.tar"));
    assert_eq!(summary, WriteSummary::default());
    let bytes = fs::read(case.path("a.tar")).unwrap();
    assert!(contains(&bytes, &[b'c'; 1000]) && !contains(&bytes, SECRET));
    // The control: opened after the change, the path leads to the other tree.
    let (_, bytes) = (Case { dir: case.dir }).archive(|case| {
        fs::remove_dir_all(case.path("tree")).unwrap();
        fs::rename(case.path("outside"), case.path("tree")).unwrap();
    });
    assert!(!contains(&bytes, SECRET));
}

#[test]
fn the_secret_would_be_found_if_it_were_archived() {
    let case = Case::new();
    fs::rename(case.path("outside"), case.path("tree/inside")).unwrap();
    let (summary, bytes) = case.archive(|_| {});
    assert_eq!(summary, WriteSummary::default());
    assert!(contains(&bytes, SECRET));
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_directory_swapped_with_a_symlink_all_the_time_never_leads_outside() {
    let case = Case::new();
    symlink("../outside/sub", case.path("tree/zz")).unwrap();
    fs::write(case.path("outside/sub/outside name"), SECRET).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            let (a, b) = (case.path("tree/sub"), case.path("tree/zz"));
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let _stop = StopOnDrop(&stop);
        let (mut changed_count, mut followed_count) = (0, 0);
        for _ in 0..300 {
            let sources = sources(&case.path("tree"));
            let inventory = scan_all(&sources);
            let summary = write_scanned(&sources, &inventory, &case.path("a.tar"));
            changed_count += summary.changed_count;
            let bytes = fs::read(case.path("a.tar")).unwrap();
            assert!(!contains(&bytes, SECRET) && !contains(&bytes, b"outside name"));
            // The control: a reader that follows symlinks gets there.
            let follows = fs::read(case.path("tree/sub/c")).is_ok_and(|read| read == SECRET);
            followed_count += u32::from(follows);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(
            changed_count > 0,
            "no swap happened between scan and reading"
        );
        assert!(followed_count > 0);
    });
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_unreadable_file_is_an_error_that_names_it() {
    need_root();
    let case = Case::new();
    let sources = sources(&case.path("tree"));
    let inventory = scan_all(&sources);
    let layout = Layout::new(&inventory, &slot());
    let out = tempfile::tempfile().unwrap();
    // Another user may read `tree/a`, but not `tree/b`. Threads inherit the user.
    let set = |path: &str, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(case.path(path), mode).unwrap();
    };
    set("", 0o755);
    set("tree/b", 0o600);
    set("tree/sub", 0o700);
    let (scanned, written) = std::thread::scope(|scope| {
        let restricted = scope.spawn(|| {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(12_345));
            let exclude = Exclude::new(&[]).unwrap();
            (
                scan(&sources, &exclude, false, &GO_ON),
                write_members(&layout, &inventory, reading(&sources, &GO_ON), &out),
            )
        });
        restricted.join().unwrap()
    });
    let shown = |name: &str| {
        format!(
            "cannot read {}/tree/{name}: Permission denied (os error 13)",
            case.dir.path().display()
        )
    };
    assert_eq!(format!("{:#}", scanned.unwrap_err()), shown("sub"));
    assert_eq!(format!("{:#}", written.unwrap_err()), shown("b"));
}

#[test]
fn a_full_file_system_is_an_error() {
    let case = Case::new();
    let sources = sources(&case.path("tree"));
    let inventory = scan_all(&sources);
    let layout = Layout::new(&inventory, &slot());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = write_members(&layout, &inventory, reading(&sources, &GO_ON), &full).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "No space left on device (os error 28)"
    );
}

#[test]
fn a_set_cancel_flag_interrupts() {
    let case = Case::new();
    let sources = sources(&case.path("tree"));
    let inventory = scan_all(&sources);
    let layout = Layout::new(&inventory, &slot());
    let (exclude, cancel) = (Exclude::new(&[]).unwrap(), AtomicBool::new(true));
    let error = scan(&sources, &exclude, false, &cancel).unwrap_err();
    assert!(format!("{error:#}").contains("interrupted"));
    let out = tempfile::tempfile().unwrap();
    let error = write_members(&layout, &inventory, reading(&sources, &cancel), &out).unwrap_err();
    assert_eq!(error.to_string(), "interrupted");
}
