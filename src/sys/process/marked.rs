//! Processes that are known by a variable in their environment, which what they start
//! inherits: a process that outlives the program that has started it is found by that.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long processes that were killed are waited for.
const KILL_WAIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Kills every process in whose environment the variable has this value, and waits until
/// there is none.
///
/// # Errors
/// When some do not end.
pub fn end_marked(variable: &str, value: &str) -> Result<()> {
    let mark = format!("{variable}={value}").into_bytes();
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        // What was started while the processes were listed is found the next time.
        let found = marked(&mark);
        if found.is_empty() {
            return Ok(());
        }
        for pid in &found {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            bail!("cannot end the processes {found:?}, which were killed");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Returns the processes whose environment has this entry. Those of other users cannot be
/// looked at, and were not started by this one.
fn marked(mark: &[u8]) -> Vec<i32> {
    let listing = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listing.filter_map(|item| item.file_name().to_str()?.parse().ok());
    let is_marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark)
    };
    pids.filter(is_marked).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeping(value: &str) -> Child {
        // The shell's child is in a session of its own.
        let mut shell = Command::new("sh");
        shell.args(["-c", "setsid sleep 60 >&- & echo; wait"]);
        let mut shell = shell.env("DSB_TEST_MARK", value).stdout(Stdio::piped());
        shell = shell.stdin(Stdio::null());
        shell.spawn().unwrap()
    }

    #[test]
    fn what_a_process_has_started_is_ended_with_it_and_others_go_on() {
        let own = format!("{}-own", std::process::id());
        let mut ended = sleeping(&own);
        let mut other = sleeping("other");
        for child in [&mut ended, &mut other] {
            let mut line = [0];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        }
        end_marked("DSB_TEST_MARK", &own).unwrap();
        ended.wait().unwrap();
        assert_eq!(marked(format!("DSB_TEST_MARK={own}").as_bytes()), [0; 0]);
        assert_eq!(other.try_wait().unwrap(), None);
        end_marked("DSB_TEST_MARK", "other").unwrap();
        other.wait().unwrap();
    }
}
