//! The property test: seeded rounds of concurrent writes.
//!
//! `PRECOPY_ROUNDS` sets the number of rounds, `PRECOPY_SEED` the first seed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::disk::Disk;
use super::writers::{Rng, build, hold, store_until, write_until};
use super::{SECONDS, Setting, TICKS, Terms, assemble, compare};
use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::scan::mutation::Mutation;

/// What the rounds did, to prove that they reach what is tested.
#[derive(Default)]
struct Tally {
    /// Bytes of the drafts that the archives kept.
    kept_bytes: u64,
    /// Bytes copied while the stack was down.
    fresh_bytes: u64,
    shared_bytes: u64,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

/// Rounds of each kind that a run of all tests can afford. `KILL_SEED`, which each change
/// of `src` changes, says which of two times as many.
const ROUNDS: u64 = 4;

/// Runs rounds in `place`, a directory on the file system under test.
fn assert_rounds(place: &Path, count: u64, terms: Terms) -> Tally {
    let first = number("PRECOPY_SEED", number("KILL_SEED", 0) % 2 * ROUNDS);
    let mut tally = Tally::default();
    for seed in first..first + number("PRECOPY_ROUNDS", count) {
        round(place, seed, terms, &mut tally).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    println!(
        "kept {} bytes, copied {} while down, shared {}",
        tally.kept_bytes, tally.fresh_bytes, tally.shared_bytes
    );
    assert!(tally.kept_bytes > 0, "nothing was kept");
    assert!(tally.fresh_bytes > 0, "nothing was copied while down");
    tally
}

/// Runs up to `count` rounds. Returns the first difference.
pub(super) fn first_difference(place: &Path, count: u64, terms: Terms) -> Option<String> {
    let mut tally = Tally::default();
    (0..count).find_map(|seed| round(place, seed, terms, &mut tally).err())
}

/// Copies a tree while it is written to. Fails with a description of the first
/// difference from the tree.
fn round(place: &Path, seed: u64, terms: Terms, tally: &mut Tally) -> Result<(), String> {
    let case = tempfile::tempdir_in(place).unwrap();
    let tree = case.path().join("tree");
    let outside = case.path().join("outside");
    build(&tree, &outside, terms.unchanged_bytes, seed);
    let mut held = hold(&tree);
    let setting = Setting::new(&tree, case.path());
    let mut rng = Rng(seed ^ 0x5eed);
    let terms = Terms {
        pass_from_bytes: rng.below(3) * 1_000_000,
        settled_after: match Mutation::Settle.is_on() {
            true => Duration::ZERO,
            false => terms.settled_after,
        },
        ..terms
    };
    setting.precopy(terms, |precopy| {
        // After this time part of the tree is old enough to be relied on.
        thread::sleep(terms.settled_after + Duration::from_millis(10));
        let ended = AtomicBool::new(false);
        let (mut draft, early) = thread::scope(|scope| {
            for writer in 0..2 {
                let (tree, outside, ended) = (&tree, &outside, &ended);
                scope.spawn(move || write_until(tree, outside, seed * 7 + writer, ended));
            }
            let (held, ended) = (&mut held, &ended);
            scope.spawn(move || store_until(held, seed, ended));
            thread::sleep(Duration::from_millis(rng.below(15)));
            let early = Mutation::Scan.is_on().then(|| setting.scan().unwrap());
            let draft = setting.draft(precopy);
            thread::sleep(Duration::from_millis(rng.below(10)));
            ended.store(true, Ordering::Relaxed);
            (draft.unwrap(), early)
        });
        if terms.deferred_from_bytes == Some(ALIGNED_FROM_BYTES) {
            assert_eq!(draft.summary.shared_bytes, 0, "all files are young");
        }
        // The stack is down.
        let now = setting.scan().unwrap();
        let inventory = early.as_ref().unwrap_or(&now);
        let update = precopy.update(&mut draft, inventory).unwrap().unwrap();
        let is_mutated = early.is_some();
        assert!(
            is_mutated || update.summary().changed_count == 0,
            "seed {seed}"
        );
        // From the same scan: XFS reports other holes once it has written back.
        let expected = setting.archive_offline(&now, &case.path().join("expected.tar"));
        let fresh_bytes = update.delta_bytes();
        tally.shared_bytes += draft.summary.shared_bytes + update.summary().shared_bytes;
        // The stack is up again: nothing more may be read from it.
        let ended = AtomicBool::new(false);
        let archive = thread::scope(|scope| {
            let (tree, outside, ended) = (&tree, &outside, &ended);
            scope.spawn(move || write_until(tree, outside, seed, ended));
            let archive = assemble(precopy, draft, update);
            ended.store(true, Ordering::Relaxed);
            archive
        });
        tally.fresh_bytes += fresh_bytes;
        tally.kept_bytes += archive.bytes.len() as u64 - fresh_bytes;
        compare(&archive, &expected).map_err(|wrong| format!("seed {seed}: {wrong}"))
    })
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_on_ext4() {
    let disk = Disk::new("ext4", &["-q", "-m", "0"]);
    assert_rounds(&disk.path, ROUNDS, TICKS);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_where_times_are_whole_seconds() {
    let disk = Disk::with_whole_seconds();
    assert_rounds(&disk.path, 6, SECONDS);
}

fn assert_rounds_with_and_without_sharing(disk: &Disk) {
    assert_rounds(&disk.path, ROUNDS, TICKS);
    for deferred_from_bytes in [ALIGNED_FROM_BYTES, u64::MAX] {
        let terms = Terms {
            deferred_from_bytes: Some(deferred_from_bytes),
            ..TICKS
        };
        let tally = assert_rounds(&disk.path, ROUNDS, terms);
        assert!(tally.shared_bytes > 0, "{deferred_from_bytes}");
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_on_xfs() {
    assert_rounds_with_and_without_sharing(&Disk::new("xfs", &["-q", "-m", "reflink=1"]));
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn the_archive_is_the_tree_as_it_stood_while_down_on_btrfs() {
    assert_rounds_with_and_without_sharing(&Disk::new("btrfs", &["-q"]));
}
