//! Kills a restore before each system call by which its main thread changes
//! anything on disk. (tests/docker/restore.rs kills it at each docker call.)

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::kill_points::{if_complete, kill_points, third_of};
use crate::common::mixed::{Mixed, PARTS, RUNNING};
use crate::common::{in_parallel, killed_before, output, strace};

/// System calls that exchange trees, write the journal, clean up and fill volumes.
const SYSCALLS: [&str; 6] = [
    "renameat2",
    "rename",
    "fsync",
    "syncfs",
    "unlink",
    "unlinkat",
];

/// The state of the stack before the restore.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Changed,
    Gone,
}

impl Before {
    /// Brings the stack into this state.
    fn make(self, mixed: &Mixed) {
        match self {
            Before::Changed => mixed.change(),
            Before::Gone if mixed.stack.dir.exists() => mixed.remove(),
            Before::Gone => {}
        }
    }

    #[track_caller]
    fn assert(self, mixed: &Mixed, point: &str) {
        match self {
            Before::Changed => mixed.assert_changed(point),
            Before::Gone => mixed.assert_gone(point),
        }
    }
}

/// Counts of what was found right after the kills. They are the controls of the
/// assertions after a recovery.
#[derive(Debug, Default)]
struct Seen {
    points: usize,
    /// Kills that left trees of both generations, or only some of the trees.
    mixed: usize,
    down: usize,
    old: usize,
    new: usize,
}

/// Kills a restore before the first call, the next before the second call, and so
/// on until a restore completes. Recovers after each.
fn kill_before_every(syscall: &str, before: Before, parts: &[&str]) -> Seen {
    let mixed = Mixed::new();
    let options = match parts {
        [] => vec!["--yes"],
        parts => [&["--yes", "--only"], parts].concat(),
    };
    // What is unpacked for parts lies beside them.
    let beside = || {
        let inside = ["conf/app.ini", "inside/generation"].map(|part| mixed.stack.dir.join(part));
        [mixed.trees(), inside.to_vec()].concat()
    };
    let mut seen = Seen::default();
    for n in kill_points() {
        before.make(&mixed);
        let what = [&["restore", &mixed.stack.name], &options[..]].concat();
        let restore = mixed.place.program(&what);
        let mut killed = killed_before(&restore, syscall, n);
        let ended = output(&mut killed);
        if ended.status != -1 {
            ended.expect_status(0);
            mixed.assert_archived("not killed");
            mixed.place.assert_no_restore(&beside(), "not killed");
            break;
        }
        let point = format!("{before:?}, killed before {syscall} {n}");
        seen.points += 1;
        seen.mixed += usize::from(is_mixed(&mixed));
        seen.down += usize::from(mixed.stack.running().is_empty());
        output(&mut mixed.place.program(&["recover"])).expect_status(0);
        if mixed.generations() == ["archived"] {
            seen.new += 1;
            mixed.assert_archived(&point);
        } else {
            seen.old += 1;
            before.assert(&mixed, &point);
        }
        mixed.place.assert_no_restore(&beside(), &point);
    }
    seen
}

/// Calls `kill`, which returns how many points it has tried, with a third of the kinds of
/// calls; and with the others if those were fewer than the first point of the sample.
fn until_points_are_tried(kill: impl Fn(&'static str) -> usize + Copy + Send + Sync) {
    let points = AtomicUsize::new(0);
    let (chosen, others) = third_of(SYSCALLS);
    for syscalls in [chosen, others] {
        if points.load(Ordering::Relaxed) == 0 {
            let points = &points;
            in_parallel(syscalls, move |syscall| {
                points.fetch_add(kill(syscall), Ordering::Relaxed);
            });
        }
    }
    let points = points.into_inner();
    eprintln!("{points} points");
    assert!(points >= if_complete(11).max(1), "{points}");
}

fn is_mixed(mixed: &Mixed) -> bool {
    let of_each = mixed.generation_of_each();
    of_each.iter().any(|one| *one != of_each[0])
}

fn kill_before_every_step(before: Before, parts: &[&str]) {
    let all = Mutex::new(Seen::default());
    until_points_are_tried(|syscall| {
        let seen = kill_before_every(syscall, before, parts);
        eprintln!("{before:?}, {syscall}: {seen:?}");
        let mut all = all.lock().unwrap();
        all.points += seen.points;
        all.mixed += seen.mixed;
        all.down += seen.down;
        all.old += seen.old;
        all.new += seen.new;
        seen.points
    });
    let all = all.into_inner().unwrap();
    eprintln!("{before:?}: {all:?}");
    assert!(all.mixed >= if_complete(4), "{all:?}");
    let (old, new, down) = (if_complete(11), if_complete(6), if_complete(6));
    assert!(
        all.old >= old && all.new >= new && all.down >= down,
        "{all:?}"
    );
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_killed_at_any_step_is_wholly_old_or_wholly_new() {
    kill_before_every_step(Before::Changed, &[]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_of_parts_killed_at_any_step_is_wholly_old_or_wholly_new() {
    kill_before_every_step(Before::Changed, &PARTS);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_of_a_removed_stack_killed_at_any_step_leaves_nothing_or_everything() {
    kill_before_every_step(Before::Gone, &[]);
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_recovery_of_a_restore_killed_at_any_step_is_recovered() {
    until_points_are_tried(|syscall| {
        let mixed = Mixed::new();
        let mut points = 0;
        for n in kill_points() {
            mixed.change();
            let restore = mixed
                .place
                .program(&["restore", &mixed.stack.name, "--yes"]);
            // Kills it between the third and the fourth exchange.
            let mut killed = killed_before(&restore, "renameat2", 4);
            output(&mut killed).expect_status(-1);
            assert!(is_mixed(&mixed));
            let recover = mixed.place.program(&["recover"]);
            let ended = output(&mut killed_before(&recover, syscall, n));
            let point = format!("recovery killed before {syscall} {n}");
            let is_complete = ended.status != -1;
            if !is_complete {
                output(&mut mixed.place.program(&["recover"])).expect_status(0);
            }
            mixed.assert_changed(&point);
            mixed.place.assert_no_restore(&mixed.trees(), &point);
            if is_complete {
                ended.expect_status(0);
                break;
            }
            points += 1;
        }
        points
    });
}

/// The command, in which no file can be removed by `unlinkat`.
fn without_unlinkat(command: &Command) -> Command {
    let (trace, inject) = ("trace=unlinkat", "inject=unlinkat:error=EIO");
    strace(
        command,
        &["-qq", "-o", "/dev/null", "-e", trace, "-e", inject],
    )
}

#[test]
#[ignore = "needs a Docker Engine; run scripts/test"]
fn a_restore_that_cannot_remove_the_old_data_is_a_success_with_a_warning() {
    let mixed = Mixed::new();
    mixed.change();
    let place = &mixed.place;
    let restore = place.program(&["restore", &mixed.stack.name, "--yes"]);
    let ended = output(&mut without_unlinkat(&restore)).expect_status(0);
    let warning = "not all of the data that a restore replaced could be removed";
    assert!(ended.stderr.contains(warning), "{}", ended.stderr);
    let is_left = || !place.beside(&mixed.trees()).is_empty();
    assert!(is_left());
    assert_eq!(mixed.generations(), ["archived"]);
    assert_eq!(mixed.stack.running(), RUNNING);
    let recover = place.program(&["recover"]);
    let ended = output(&mut without_unlinkat(&recover)).expect_status(0);
    assert!(
        ended.stderr.contains("nothing to recover"),
        "{}",
        ended.stderr
    );
    assert!(is_left());

    // The next run makes an archive, and removes the old data.
    let json = place.run().expect_status(0).json();
    let outcome = mixed.stack.outcome(&json);
    assert!(outcome["archive"].is_object(), "{outcome}");
    assert!(
        !outcome["warnings"].to_string().contains(warning),
        "{outcome}"
    );
    place.assert_no_restore(&mixed.trees(), "cleaned");
}
