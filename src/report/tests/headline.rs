//! The subject, and what it agrees with.

use insta::assert_snapshot;

use super::*;

#[test]
fn there_was_nothing_to_do() {
    let mut run = run(Vec::new());
    run.store = None;
    assert_snapshot!(subject(&run, ""), @"SUCCESS: no stacks to back up");
    assert_snapshot!(text(&run), @"
    SUCCESS: no stacks to back up
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn the_subject_stays_one_short_line() {
    let names = ["one", "two", "three", "four", "five"];
    let fail = |name: &&str| failed(name, StackStatus::Failed, &[]);
    let mut run = run(names.iter().map(fail).collect());
    assert_snapshot!(subject(&run, "x"), @"[x] FAILURE: one, two, three and 2 more not backed up; none of 5 stacks backed up");
    for stack in &mut run.stacks {
        stack.stack = stack.stack.repeat(40);
    }
    assert_eq!(subject(&run, &"tag".repeat(50)).len(), 150);
}

#[test]
fn the_label_and_the_exit_status_agree() {
    use crate::outcome::ExitStatus;
    for (status, archive, label) in [
        (StackStatus::Ok, true, "SUCCESS"),
        (StackStatus::Failed, false, "FAILURE"),
        (StackStatus::Failed, true, "FAILURE"),
        (StackStatus::Down, true, "FAILURE"),
        (StackStatus::NotRun, false, "FAILURE"),
    ] {
        let mut stack = ok("a", GIB);
        stack.status = status;
        if !archive {
            stack.archive = None;
        }
        let run = run(vec![stack]);
        assert!(subject(&run, "").starts_with(label), "{status:?}");
        assert_eq!(run.exit_status() == ExitStatus::Ok, label == "SUCCESS");
    }
}
