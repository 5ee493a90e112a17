//! A tree is written to in every way there is while it is copied; the archive
//! must be the tree as it stood when that had ended.
//!
//! `PRECOPY_ROUNDS` sets the number of rounds, `PRECOPY_SEED` the first seed,
//! `PRECOPY_MUTATION` leaves out a step (`sync`, `scan`, `settle`, `wait`, `blocks`), with
//! which these tests must fail; see `docs/design.md`.

mod disk;
mod slow;
mod writers;

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::civil::datetime;

use self::disk::Disk;
use self::writers::{Rng, build, hold, store_until, write_until};
use super::{Drafted, Finished, Precopy};
use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::archive::{Layout, ManifestSlot, ReadOptions, ShareOptions, write_members};
use crate::scan::mutation::mutated;
use crate::scan::{self, Exclude, Inventory, Source};
use crate::store::Store;

static GO_ON: AtomicBool = AtomicBool::new(false);

/// How one round is run.
#[derive(Clone, Copy)]
struct Terms {
    /// Blocks are shared; see [`ShareOptions::deferred_from_bytes`].
    deferred_from_bytes: Option<u64>,
    settled_after: Duration,
    pass_from_bytes: u64,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

/// How many bytes of drafts stood, and how many were copied in the end.
#[derive(Default)]
struct Tally {
    kept_bytes: u64,
    delta_bytes: u64,
    shared_bytes: u64,
}

fn layout(inventory: &Inventory) -> anyhow::Result<Layout> {
    let slot = ManifestSlot {
        name: "stack.manifest.json".to_owned(),
        reserved_bytes: 6000,
        mtime_s: 0,
    };
    Ok(Layout::new(inventory, &slot))
}

/// A tree, and a store for its archive.
struct Setting {
    sources: [Source; 1],
    exclude: Exclude,
    store: Store,
}

impl Setting {
    /// The store is made in `place`.
    fn new(tree: &Path, place: &Path) -> Setting {
        let store = place.join("store");
        fs::create_dir(&store).unwrap();
        Setting {
            sources: [Source::open("stack", tree).unwrap()],
            exclude: Exclude::new(&[]).unwrap(),
            store: Store::open(&store).unwrap(),
        }
    }

    fn scan(&self) -> anyhow::Result<Inventory> {
        scan::scan(&self.sources, &self.exclude, false, &GO_ON)
    }

    fn precopy<T>(&self, terms: Terms, act: impl FnOnce(&Precopy<'_>) -> T) -> T {
        act(&Precopy {
            sources: &self.sources,
            scan: &|| self.scan(),
            layout: &layout,
            share: terms
                .deferred_from_bytes
                .map(|deferred_from_bytes| ShareOptions {
                    unshared: &self.exclude,
                    deferred_from_bytes,
                }),
            cancel: &GO_ON,
            pass_from_bytes: terms.pass_from_bytes,
            settled_after: terms.settled_after,
            available_bytes: &|| self.store.available_bytes(),
        })
    }

    fn draft(&self, precopy: &Precopy<'_>) -> Option<Drafted> {
        let partial = self
            .store
            .create_partial("stack", datetime(2026, 1, 2, 3, 4, 5, 0));
        precopy
            .draft(self.scan().unwrap(), partial.unwrap())
            .unwrap()
    }
}

/// Runs rounds in `place`, a directory on the file system under test.
fn rounds(place: &Path, count: u64, terms: Terms) -> Tally {
    let first = number("PRECOPY_SEED", 0);
    let mut tally = Tally::default();
    for seed in first..first + number("PRECOPY_ROUNDS", count) {
        round(place, seed, terms, &mut tally);
    }
    println!(
        "kept {} bytes, copied {} while down, shared {}",
        tally.kept_bytes, tally.delta_bytes, tally.shared_bytes
    );
    tally
}

fn round(place: &Path, seed: u64, terms: Terms, tally: &mut Tally) {
    let case = tempfile::tempdir_in(place).unwrap();
    let tree = case.path().join("tree");
    let outside = case.path().join("outside");
    build(&tree, &outside, seed);
    let mut held = hold(&tree);
    let setting = Setting::new(&tree, case.path());
    let mut rng = Rng(seed ^ 0x5eed);
    let settled_after = terms.settled_after;
    let terms = Terms {
        pass_from_bytes: rng.below(3) * 1_000_000,
        settled_after: match mutated("settle") {
            true => Duration::ZERO,
            false => settled_after,
        },
        ..terms
    };
    setting.precopy(terms, |precopy| {
        // Part of the tree becomes old enough to be relied on.
        thread::sleep(settled_after + Duration::from_millis(10));
        let ended = AtomicBool::new(false);
        let (mut drafted, early) = thread::scope(|scope| {
            for writer in 0..2 {
                let (tree, outside, ended) = (&tree, &outside, &ended);
                scope.spawn(move || write_until(tree, outside, seed * 7 + writer, ended));
            }
            let (held, ended) = (&mut held, &ended);
            scope.spawn(move || store_until(held, seed, ended));
            thread::sleep(Duration::from_millis(rng.below(15)));
            let early = mutated("scan").then(|| setting.scan().unwrap());
            let drafted = setting.draft(precopy);
            thread::sleep(Duration::from_millis(rng.below(10)));
            ended.store(true, Ordering::Relaxed);
            (drafted.unwrap(), early)
        });
        if terms.deferred_from_bytes == Some(ALIGNED_FROM_BYTES) {
            assert_eq!(drafted.summary.shared_bytes, 0, "all of it is young");
        }
        // The stack is down.
        let now = setting.scan().unwrap();
        let inventory = early.as_ref().unwrap_or(&now);
        let update = precopy.update(&mut drafted, inventory).unwrap().unwrap();
        let is_mutated = early.is_some();
        assert!(
            is_mutated || update.summary().changed_count == 0,
            "seed {seed}"
        );
        // Not by another scan: XFS tells of other holes when it has written back.
        let expected = case.path().join("expected.tar");
        archive_offline(&setting.sources, &now, &expected);
        // It is up again: nothing more may be read from it.
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let (tree, outside, ended) = (&tree, &outside, &ended);
            scope.spawn(move || write_until(tree, outside, seed, ended));
            let delta_bytes = update.delta_bytes();
            let shared_bytes = drafted.summary.shared_bytes + update.summary().shared_bytes;
            let Finished {
                partial, layout, ..
            } = precopy.finish(drafted, update).unwrap();
            ended.store(true, Ordering::Relaxed);
            tally.kept_bytes += layout.archive_bytes() - delta_bytes;
            tally.delta_bytes += delta_bytes;
            tally.shared_bytes += shared_bytes;
            compare(
                &fs::read(partial.path()).unwrap(),
                &fs::read(&expected).unwrap(),
                seed,
            );
        });
    });
}

fn archive_offline(sources: &[Source], inventory: &Inventory, path: &Path) {
    let reading = ReadOptions {
        sources,
        cancel: &GO_ON,
        is_live: false,
        share: None,
    };
    let layout = layout(inventory).unwrap();
    let out = File::create(path).unwrap();
    let summary = write_members(&layout, inventory, reading, &out).unwrap();
    assert_eq!(summary.changed_count, 0);
}

/// All but the manifest, which neither has yet.
fn compare(archive: &[u8], expected: &[u8], seed: u64) {
    let start = 8192;
    let differs = |(a, b): &(&u8, &u8)| a != b;
    let mut both = archive[start..].iter().zip(&expected[start..]);
    if let Some(at) = both.position(|pair| differs(&pair)) {
        let at = start + at;
        let member = member_at(expected, at as u64);
        let count = archive.iter().zip(expected).filter(differs).count();
        panic!("seed {seed}: byte {at} and {count} in all are wrong, first in {member}");
    }
    assert_eq!(archive.len(), expected.len(), "seed {seed}");
}

/// Which member holds a byte, and where in its data it is.
fn member_at(archive: &[u8], at: u64) -> String {
    let mut members = tar::Archive::new(&archive[8192..]);
    let mut found = "the end".to_owned();
    for member in members.entries().unwrap() {
        let member = member.unwrap();
        let start = 8192 + member.raw_file_position();
        if start + member.size() > at {
            let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            found = format!(
                "{path} of {} bytes at {}",
                member.size(),
                at as i64 - start as i64
            );
            break;
        }
    }
    found
}

/// What every round but those of a mutation must show: the tests reach both
/// what is kept and what is copied.
fn assert_worked(tally: &Tally) {
    assert!(tally.kept_bytes > 0, "nothing was kept");
    assert!(tally.delta_bytes > 0, "nothing was copied while down");
}

const TICKS: Terms = Terms {
    deferred_from_bytes: None,
    settled_after: Duration::from_millis(25),
    pass_from_bytes: super::PASS_FROM_BYTES,
};

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_on_ext4() {
    let disk = Disk::new("ext4", &["-q", "-m", "0"]);
    assert_worked(&rounds(&disk.path, 20, TICKS));
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_where_times_are_whole_seconds() {
    let disk = Disk::new("ext4", &["-q", "-m", "0", "-I", "128"]);
    let terms = Terms {
        settled_after: Duration::from_millis(1100),
        ..TICKS
    };
    assert_worked(&rounds(&disk.path, 6, terms));
}

fn assert_works_with_and_without_sharing(disk: &Disk) {
    assert_worked(&rounds(&disk.path, 20, TICKS));
    for deferred_from_bytes in [ALIGNED_FROM_BYTES, u64::MAX] {
        let terms = Terms {
            deferred_from_bytes: Some(deferred_from_bytes),
            ..TICKS
        };
        let tally = rounds(&disk.path, 20, terms);
        assert_worked(&tally);
        assert!(tally.shared_bytes > 0, "{deferred_from_bytes}");
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_on_xfs() {
    let disk = Disk::new("xfs", &["-q", "-m", "reflink=1"]);
    assert_works_with_and_without_sharing(&disk);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_on_btrfs() {
    let disk = Disk::new("btrfs", &["-q"]);
    assert_works_with_and_without_sharing(&disk);
}

/// A store to a mapped page of tmpfs moves ctime only the first time.
#[test]
#[ignore = "needs root; run scripts/test"]
fn tmpfs_is_not_copied_from_while_up() {
    let disk = Disk::tmpfs();
    let tree = disk.path.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    assert!(draft_of(&tree, &disk.path).is_none());
    // The same elsewhere.
    let disk = Disk::new("ext4", &["-q"]);
    let tree = disk.path.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    assert!(draft_of(&tree, &disk.path).is_some());
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn files_without_content_are_on_a_file_system_that_tells_of_every_change() {
    let disk = Disk::new("ext4", &["-q"]);
    let tree = disk.path.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    let drafted = draft_of(&tree, &disk.path).unwrap();
    assert_eq!(drafted.untrusted_bytes, 0);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_pass_leaves_half_of_the_room_and_an_update_some_of_it() {
    let disk = Disk::new("ext4", &["-q"]);
    let tree = disk.path.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("old"), vec![7; 12 << 20]).unwrap();
    let change = || fs::write(tree.join("young"), vec![7; 4 << 20]).unwrap();
    let setting = Setting::new(&tree, &disk.path);
    let terms = Terms {
        pass_from_bytes: 0,
        ..TICKS
    };
    let with_room = |available_bytes: u64| {
        change();
        thread::sleep(terms.settled_after * 2);
        setting.precopy(terms, |precopy| {
            let scan = || {
                change();
                setting.scan()
            };
            let precopy = Precopy {
                scan: &scan,
                available_bytes: &|| Ok(available_bytes),
                ..*precopy
            };
            let mut drafted = setting.draft(&precopy).unwrap();
            let update = precopy.update(&mut drafted, &scan().unwrap()).unwrap();
            (drafted.pass_count > 1, update.is_some())
        })
    };
    assert_eq!(with_room(6 << 20), (false, false));
    assert_eq!(with_room(16 << 20), (true, true));
}

fn draft_of(tree: &Path, place: &Path) -> Option<Drafted> {
    let setting = Setting::new(tree, place);
    setting.precopy(TICKS, |precopy| setting.draft(precopy))
}
