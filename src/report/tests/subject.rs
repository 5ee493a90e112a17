//! The subject of the mail.

use insta::assert_snapshot;

use super::*;

#[test]
fn a_run_without_stacks_is_a_success() {
    let mut run = run(Vec::new());
    run.store = None;
    assert_snapshot!(run_subject(&run, ""), @"SUCCESS on nas: no stacks to back up");
    assert_snapshot!(run_text(&run, None), @"
    SUCCESS: no stacks to back up
    nas, 2026-11-23 03:00:00 +01:00, took 12 min 41 s

    docker-stack-backup 0.1.0
    ");
}

#[test]
fn long_names_are_shortened_in_the_subject() {
    let names = ["one", "two", "three", "four", "five"];
    let fail = |name: &&str| failed(name, StackStatus::Failed, &[]);
    let mut run = run(names.iter().map(fail).collect());
    assert_snapshot!(run_subject(&run, "x"), @"[x] FAILURE on nas: one, two, three and 2 more not backed up; none of 5 stacks backed up");
    for stack in &mut run.stacks {
        stack.stack = stack.stack.repeat(40);
    }
    assert_eq!(run_subject(&run, &"tag".repeat(50)).len(), 150);
}

#[test]
fn a_tag_has_brackets_once() {
    let run = run(vec![ok("a", GIB)]);
    for (tag, expected) in [
        ("nas", "[nas] SUCCESS on nas: "),
        ("[nas]", "[nas] SUCCESS on nas: "),
        (" [a] [b] ", "[a] [b] SUCCESS on nas: "),
        ("", "SUCCESS on nas: "),
    ] {
        let subject = run_subject(&run, tag);
        assert!(subject.starts_with(expected), "{subject}");
    }
}

#[test]
fn the_subject_agrees_with_the_exit_status() {
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
        assert!(run_subject(&run, "").starts_with(label), "{status:?}");
        assert_eq!(run.exit_status() == ExitStatus::Ok, label == "SUCCESS");
    }
}
