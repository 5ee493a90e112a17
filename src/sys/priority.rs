//! Gives way to everything else while a stack is up, and no longer while it is
//! down. Both settings are of the calling thread; threads and processes that it
//! starts have them, too.

use nix::libc;
use rustix::process::{getpriority_process, setpriority_process};

/// Nice value of work that nobody waits for.
const PATIENT: i32 = 19;
const URGENT: i32 = 0;

/// I/O scheduling classes, as in `linux/ioprio.h`.
#[derive(Clone, Copy)]
enum IoClass {
    /// What the nice value says.
    None = 0,
    /// Only when nobody else wants the disk.
    Idle = 3,
}

/// From now on, everything else goes first.
pub fn lower() {
    // Only root can take it back (setpriority(2)), and an urgent phase that
    // cannot be would make a stack's downtime long.
    if setpriority_process(None, URGENT - 1).is_ok() {
        set_nice(PATIENT);
    }
    set_io_class(IoClass::Idle);
}

/// A phase in which a stack is down; when it is dropped, everything else goes
/// first again.
#[must_use]
pub struct RaisedPriority(());

pub fn raise() -> RaisedPriority {
    set_nice(URGENT);
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
        tracing::debug!(nice, %error, "the nice value stays as it is");
    }
}

/// Source: ioprio_set(2), for which neither the standard library nor `rustix` or
/// `nix` have a function.
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
        tracing::debug!("the I/O class stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Nice value and I/O class, as a process that this thread starts has them.
    fn of_a_child() -> (String, String) {
        let output = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        (output("nice", &[]), output("ionice", &[]))
    }

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn what_is_urgent_is_so_until_it_ends_for_this_thread_and_its_children() {
        let idle = ("19".to_owned(), "idle".to_owned());
        thread::spawn(move || {
            lower();
            assert_eq!(of_a_child(), idle);
            {
                let _urgent = raise();
                let (nice, io) = of_a_child();
                assert_eq!(nice, "0");
                assert!(io.starts_with("none"), "{io}");
            }
            assert_eq!(of_a_child(), idle);
            assert_eq!(thread::spawn(of_a_child).join().unwrap(), idle);
        })
        .join()
        .unwrap();
    }
}
