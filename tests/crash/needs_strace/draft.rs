//! Kills a run that copies while the stack is up, in each of its steps: while it
//! writes the draft, while it copies the changes, and while it assembles the
//! archive from both.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::common::disk::Disk;
use crate::common::kill_points::{if_complete, sample_of, third_of};
use crate::common::ledger::{Ledger, Shape};
use crate::common::{Background, killed_before, output, slowed, strace, wait_until};
use serde_json::json;

/// System calls by which the main thread of a run assembles an archive from the
/// draft and the changes. For fsync and rename see
/// `tests/crash/needs_strace/durable.rs`.
const STEPS: [&str; 5] = ["ioctl", "linkat", "pwritev2", "pwrite64", "pread64"];
/// The calls of each kind before which runs are killed: most of the first ones, and a
/// few of the later ones.
const NUMBERS: [usize; 9] = [1, 2, 3, 5, 8, 20, 50, 120, 300];

/// Recovers by `recover` or by the next run, and checks the result.
fn recover(ledger: &mut Ledger, points: usize, point: &str) {
    let command = if points.is_multiple_of(3) {
        "run"
    } else {
        "recover"
    };
    output(&mut ledger.place.program(&[command])).expect_status(0);
    ledger.assert_recovered(&format!("{point}, {command}"));
}

/// The number of kills per kind of system call.
type Seen = BTreeMap<&'static str, usize>;

/// Kills runs before each of the system calls in `always`, and a sample of those in
/// `steps`.
fn kill_at_every_step(
    disk: &Disk,
    shape: Shape,
    always: &[&'static str],
    steps: &[&'static str],
) -> Seen {
    let mut ledger = Ledger::new(disk, shape, json!({}));
    let mut seen = Seen::new();
    let mut partial_count = 0;
    for step in always.iter().copied().chain(third_of(steps.to_vec()).0) {
        for n in sample_of(NUMBERS) {
            let point = format!("killed before {step} {n}");
            let mut command = killed_before(&ledger.place.program(&["run"]), step, n);
            let ended = output(&mut command);
            if ended.status != -1 {
                ended.expect_status(0);
                ledger.assert_recovered(&format!("no {step} {n}"));
                break;
            }
            *seen.entry(step).or_default() += 1;
            partial_count += usize::from(ledger.has_partial());
            recover(&mut ledger, seen.values().sum(), &point);
        }
    }
    eprintln!(
        "{seen:?}, {partial_count} partials, {} archives",
        ledger.good_count
    );
    // The controls: some kills left a partial, and some runs an archive.
    assert!(partial_count >= if_complete(3));
    assert!(ledger.good_count >= if_complete(3));
    seen
}

fn ext4() -> Disk {
    Disk::of("ext4", &["-q", "-m", "0"], 1200)
}

const STEADY: Shape = Shape {
    old_mib: 20,
    young_mib: 1,
    grows: 0,
};

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_its_draft_is_updated_in_place_is_recovered() {
    let seen = kill_at_every_step(&ext4(), STEADY, &["ftruncate", "fallocate"], &STEPS);
    assert!(seen.contains_key("ftruncate"), "{seen:?}");
    assert!(!seen.contains_key("fallocate"), "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_ranges_are_inserted_into_its_draft_is_recovered() {
    let shape = Shape {
        grows: 8192,
        ..STEADY
    };
    let steps = [&STEPS[..], &["ftruncate"]].concat();
    let seen = kill_at_every_step(&ext4(), shape, &["fallocate"], &steps);
    assert!(seen.contains_key("fallocate"), "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_ranges_are_removed_from_its_draft_is_recovered() {
    let shape = Shape {
        grows: -8192,
        ..STEADY
    };
    let steps = ["ftruncate", "pwritev2"];
    let seen = kill_at_every_step(&ext4(), shape, &["fallocate"], &steps);
    assert!(seen.contains_key("fallocate"), "{seen:?}");
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_its_draft_is_replaced_is_recovered() {
    let shape = Shape {
        old_mib: 6,
        young_mib: 20,
        grows: 8192,
    };
    let seen = kill_at_every_step(&ext4(), shape, &["linkat"], &["ftruncate", "pwritev2"]);
    assert!(seen.contains_key("linkat"), "{seen:?}");
}

/// The stack is big enough for a second pass, which writes to a file of its own.
#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_in_its_second_pass_is_recovered() {
    let shape = Shape {
        old_mib: 160,
        young_mib: 70,
        grows: 8192,
    };
    let seen = kill_at_every_step(&ext4(), shape, &["syncfs", "fallocate"], &["ftruncate"]);
    // There is one syncfs before each pass.
    assert!(seen["syncfs"] > if_complete(1), "{seen:?}");
    assert!(seen["fallocate"] >= 1, "{seen:?}");
}

fn kill_where_blocks_are_shared(disk: &Disk) {
    // Blocks are shared while the stack is up, and ranges are moved afterwards.
    let shape = Shape {
        old_mib: 15,
        young_mib: 1,
        grows: 8192,
    };
    let seen = kill_at_every_step(disk, shape, &["ioctl", "linkat"], &["pwritev2"]);
    assert!(
        seen["ioctl"] > if_complete(2) && seen.contains_key("linkat"),
        "{seen:?}"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_run_killed_while_it_writes_with_the_stack_up_or_down_is_recovered() {
    let disk = ext4();
    let mut ledger = Ledger::new(&disk, STEADY, json!({}));
    // The first and the second window of the draft that each thread writes.
    for n in [1, 2] {
        let inject = format!("inject=pwritev2:signal=SIGKILL:when={n}");
        // Without --seccomp-bpf, since with it strace counts wrongly across threads.
        let options = [
            "-qq",
            "-o",
            "/dev/null",
            "-f",
            "-e",
            "trace=pwritev2",
            "-e",
            &inject,
        ];
        let mut command = strace(&ledger.place.program(&["run"]), &options);
        output(&mut command).expect_status(-1);
        // The controls: the draft was begun, and nothing was stopped yet.
        assert!(ledger.has_partial());
        assert_eq!(ledger.place.journalled(), [""; 0]);
        recover(
            &mut ledger,
            n,
            &format!("killed in the draft's windows {n}"),
        );
    }
    for (n, wait_ms) in [20, 100, 250].into_iter().enumerate() {
        // Each write takes 300 ms.
        let run = ledger.place.program(&["run"]);
        let mut command = slowed(&run, "pwritev2", 300_000);
        let run = Background::spawn(&mut command);
        let entry = ledger.place.state().join("journal");
        let entry = entry.join(format!("{}.json", ledger.stack.name));
        wait_until("the stack is down", || {
            fs::read_to_string(&entry).is_ok_and(|entry| entry.contains("\"stopped\""))
        });
        thread::sleep(Duration::from_millis(wait_ms));
        ledger.place.kill_holder();
        run.wait();
        // The controls: the draft exists, and the stack is down.
        assert!(ledger.has_partial());
        assert!(ledger.stack.states().contains(&"writer:exited".to_owned()));
        recover(
            &mut ledger,
            n,
            &format!("killed {wait_ms} ms after the stop"),
        );
    }
}

mod needs_xfs {
    use super::*;

    /// Blocks are shared while the stack is down; then some get copies of their own.
    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn a_run_killed_while_it_shares_blocks_with_the_stack_down_is_recovered() {
        let disk = Disk::of("xfs", &["-q", "-m", "reflink=1"], 600);
        let seen = kill_at_every_step(&disk, STEADY, &["ioctl", "fallocate"], &[]);
        assert!(
            seen["ioctl"] > if_complete(2) && seen["fallocate"] > if_complete(1),
            "{seen:?}"
        );
    }

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn a_run_killed_while_it_shares_blocks_is_recovered() {
        kill_where_blocks_are_shared(&Disk::of("xfs", &["-q", "-m", "reflink=1"], 600));
    }
}

mod needs_btrfs {
    use super::*;

    #[test]
    #[ignore = "needs a Docker Engine; run scripts/test"]
    fn a_run_killed_while_it_shares_blocks_is_recovered() {
        kill_where_blocks_are_shared(&Disk::of("btrfs", &["-q"], 600));
    }
}
