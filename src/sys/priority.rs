//! CPU and I/O priority of the calling thread: the lowest while all stacks are
//! up, the normal one while a stack is down. Threads and processes that the
//! thread starts inherit both.

use nix::libc;
use rustix::process::{getpriority_process, setpriority_process};

const LOWEST_NICE: i32 = 19;
const NORMAL_NICE: i32 = 0;

/// I/O scheduling classes of `linux/ioprio.h`.
#[derive(Clone, Copy)]
enum IoClass {
    /// The nice value decides.
    None = 0,
    /// The disk serves this thread only when no other asks for it.
    Idle = 3,
}

/// Gives every other process precedence from now on.
pub fn lower() {
    // Without the right to raise the nice value again (setpriority(2)) it stays
    // as it is: a phase with a low priority would prolong a stack's downtime.
    if setpriority_process(None, NORMAL_NICE - 1).is_ok() {
        set_nice(LOWEST_NICE);
    }
    set_io_class(IoClass::Idle);
}

/// Normal priority while a stack is down. Dropping it lowers the priority again.
#[must_use]
pub struct RaisedPriority(());

/// Returns to normal priority until the result is dropped.
pub fn raise() -> RaisedPriority {
    set_nice(NORMAL_NICE);
    set_io_class(IoClass::None);
    RaisedPriority(())
}

impl Drop for RaisedPriority {
    fn drop(&mut self) {
        lower();
    }
}

fn set_nice(nice: i32) {
    if getpriority_process(None) != Ok(nice)
        && let Err(error) = setpriority_process(None, nice)
    {
        tracing::debug!(nice, %error, "cannot change the nice value");
    }
}

/// Calls ioprio_set(2), for which neither the standard library nor `rustix` nor
/// `nix` has a function.
#[allow(unsafe_code)]
fn set_io_class(class: IoClass) {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    const THIS_THREAD: libc::c_int = 0;
    let priority = (class as libc::c_int) << IOPRIO_CLASS_SHIFT;
    // SAFETY: three integers go in, no memory is read or written.
    let status = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            THIS_THREAD,
            priority,
        )
    };
    if status != 0 {
        tracing::debug!("cannot change the I/O scheduling class");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Returns the nice value and the I/O class of a new child process.
    fn priority_of_a_child() -> (String, String) {
        let output = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        (output("nice", &[]), output("ionice", &[]))
    }

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn a_raised_priority_ends_with_its_scope_for_the_thread_and_its_children() {
        let idle = ("19".to_owned(), "idle".to_owned());
        thread::spawn(move || {
            lower();
            assert_eq!(priority_of_a_child(), idle);
            {
                let _raised = raise();
                let (nice, io) = priority_of_a_child();
                assert_eq!(nice, "0");
                assert!(io.starts_with("none"), "{io}");
            }
            assert_eq!(priority_of_a_child(), idle);
            assert_eq!(thread::spawn(priority_of_a_child).join().unwrap(), idle);
        })
        .join()
        .unwrap();
    }
}
