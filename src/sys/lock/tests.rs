use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use super::*;

#[test]
fn a_second_run_is_refused_until_the_first_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("state");
    let first = Lock::take(&state_dir, Operation::Run).unwrap();
    let message = Lock::take(&state_dir, Operation::Run)
        .unwrap_err()
        .to_string();
    let expected = format!(
        "a run is under way (process {} holds {}/lock)",
        std::process::id(),
        state_dir.display()
    );
    assert_eq!(message, expected);
    drop(first);
    Lock::take(&state_dir, Operation::Run).unwrap();
}

#[test]
fn timed_operations_wait_for_others_and_typed_ones_fail_at_once() {
    use Operation::*;
    let waits = |operation| match operation {
        Run => vec![Drill, Restore, Guard, Verify, Prune, Handover, Recover],
        Drill => vec![Run, Restore, Guard, Verify, Prune, Handover, Recover],
        Recover => vec![Restore, Verify, Prune, Handover, Recover],
        Restore | Guard | Verify | Prune | Handover => vec![],
    };
    let pairs = Operation::ALL.map(|operation| Operation::ALL.map(|holder| (operation, holder)));
    thread::scope(|scope| {
        for (operation, holder) in pairs.into_iter().flatten() {
            let is_waited_for = waits(operation).contains(&holder);
            scope.spawn(move || assert_waits(operation, holder, is_waited_for));
        }
    });
}

fn assert_waits(operation: Operation, holder: Operation, is_waited_for: bool) {
    let dir = tempfile::tempdir().unwrap();
    let first = Lock::take(dir.path(), holder).unwrap();
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let taken = Lock::wait(dir.path(), operation, &Signals::default());
            sender.send(taken.map(drop).map_err(|error| error.to_string()))
        });
        // A refusal comes after some tries, on a slow machine later.
        let patience = match is_waited_for {
            true => POLL_INTERVAL * 3,
            false => Duration::from_secs(60),
        };
        let early = receiver.recv_timeout(patience).ok();
        drop(first);
        if is_waited_for {
            assert_eq!(early, None, "{operation:?} waits for {holder:?}");
            assert_eq!(receiver.recv(), Ok(Ok(())));
        } else {
            let expected = format!("a {} is under way (process ", holder.name());
            let error = early.and_then(Result::err).unwrap();
            assert!(error.starts_with(&expected), "{operation:?}: {error}");
        }
    });
}

#[test]
fn the_record_of_a_dead_holder_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Lock::take(dir.path(), Operation::Run).unwrap();
    let refusal = || Lock::take(dir.path(), Operation::Prune).unwrap_err();
    let holder_recovers = || {
        refusal()
            .downcast_ref::<LockHeld>()
            .unwrap()
            .holder_recovers()
    };
    // The control: this process is alive.
    assert!(holder_recovers());
    // No process has a pid as large (proc_sys_kernel(5), pid_max).
    for text in [
        "",
        "7",
        "4194305 run",
        "4194305 drill",
        "1 verify",
        "1 walk",
    ] {
        fs::write(dir.path().join("lock"), text).unwrap();
        assert!(!holder_recovers(), "{text}");
    }
    fs::write(dir.path().join("lock"), "1 drill").unwrap();
    assert!(holder_recovers());
}

/// Several processes take the lock for a moment, again and again, so that its
/// record is mostly missing or outdated. Threads stand in for the processes: each
/// `take` opens the file anew, and locks conflict between open files.
#[test]
fn a_command_that_waits_is_never_refused_while_the_holders_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let end = AtomicBool::new(false);
    // Holds the lock for most of the time, and leaves the record of a process that
    // is gone.
    let hold = || {
        while !end.load(Ordering::Relaxed) {
            if let Ok(lock) = Flock::lock(
                open(&path, Operation::Run).unwrap(),
                FlockArg::LockExclusiveNonblock,
            ) {
                fs::write(&path, "4194305 recover").unwrap();
                thread::sleep(POLL_INTERVAL * 12);
                drop(lock);
                thread::sleep(POLL_INTERVAL * 2);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(hold);
        while fs::read_to_string(&path).unwrap_or_default().is_empty() {
            thread::yield_now();
        }
        // The control: a command that does not wait is refused.
        let refused = Lock::take(dir.path(), Operation::Prune).unwrap_err();
        assert!(matches!(
            refused.downcast_ref(),
            Some(LockHeld::ByUnknown { .. })
        ));
        for operation in [Operation::Run, Operation::Drill, Operation::Recover] {
            Lock::wait(dir.path(), operation, &Signals::default()).unwrap();
        }
        end.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_lock_that_was_released_names_no_holder() {
    let dir = tempfile::tempdir().unwrap();
    let read = || fs::read_to_string(dir.path().join("lock")).unwrap();
    let lock = Lock::take(dir.path(), Operation::Run).unwrap();
    assert_eq!(read(), format!("{} run", std::process::id()));
    drop(lock);
    assert_eq!(read(), "");
}
