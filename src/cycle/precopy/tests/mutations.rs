//! Each step that keeps a draft true to its tree is necessary: without it, the
//! property test finds a difference.

use super::disk::Disk;
use super::property::first_difference;
use super::slow_writes::difference_after_a_buffered_write;
use super::{SECONDS, TICKS, Terms};
use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::scan::mutation::Mutation;

/// How often the test of slow writes has a chance to notice.
const TRIES: usize = 8;
/// Most mutations are found in the first rounds, on a busy machine too.
const ROUNDS_MAX: u64 = 40;

fn assert_noticed(mutation: Mutation, disk: &Disk, terms: Terms) {
    let difference = mutation.during(|| first_difference(&disk.path, ROUNDS_MAX, terms));
    let difference = difference.expect("the property test did not notice the missing step");
    println!("{mutation:?}: {difference}");
}

fn ext4() -> Disk {
    Disk::new("ext4", &["-q", "-m", "0"])
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_copy_without_a_sync_is_noticed() {
    assert_noticed(Mutation::Sync, &ext4(), TICKS);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn an_update_without_a_second_scan_is_noticed() {
    assert_noticed(Mutation::Scan, &ext4(), TICKS);
}

/// Only whole seconds are coarse enough for this test to write between two stamps.
#[test]
#[ignore = "needs root; run scripts/test"]
fn relying_on_young_files_is_noticed() {
    assert_noticed(Mutation::Settle, &Disk::with_whole_seconds(), SECONDS);
}

/// Reads of XFS wait by themselves.
#[test]
#[ignore = "needs root; run scripts/test"]
fn not_waiting_for_writes_is_noticed() {
    for kind in ["ext4", "btrfs"] {
        // On a busy machine the write may begin too late to be read half done.
        let tries = std::iter::repeat_with(|| {
            Mutation::Wait.during(|| difference_after_a_buffered_write(kind))
        });
        let noticed = tries.take(TRIES).flatten().next();
        let difference = noticed.expect("the test of slow writes did not notice");
        println!("{kind}: {difference}");
    }
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn keeping_blocks_that_differ_is_noticed() {
    assert_noticed(Mutation::Blocks, &ext4(), TICKS);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn relying_on_files_that_were_left_for_later_is_noticed() {
    let disk = Disk::new("xfs", &["-q", "-m", "reflink=1"]);
    let terms = Terms {
        deferred_from_bytes: Some(ALIGNED_FROM_BYTES),
        ..TICKS
    };
    assert_noticed(Mutation::Later, &disk, terms);
}
