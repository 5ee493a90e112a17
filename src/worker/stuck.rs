//! What a process waits for, as far as the kernel tells.

use std::fs;
use std::path::Path;

/// Returns the file or directory that a thread of a process waits for: the one that the
/// first argument of the thread's system call means. (The kernel knows its path; nothing
/// is asked of the file system that does not answer.)
pub(super) fn path_waited_for(pid: u32) -> Option<String> {
    let process = Path::new("/proc").join(pid.to_string());
    let threads = fs::read_dir(process.join("task")).ok()?;
    threads.flatten().find_map(|thread| {
        // proc_pid_syscall(5): number and arguments; "running" if it waits for nothing.
        let call = fs::read_to_string(thread.path().join("syscall")).ok()?;
        let first = call.split_ascii_whitespace().nth(1)?.strip_prefix("0x")?;
        let descriptor = u32::from_str_radix(first, 16).ok()?;
        // Small numbers are mostly something else, such as the clock to sleep by.
        let descriptor = (descriptor > 2).then_some(descriptor)?;
        let path = fs::read_link(process.join("fd").join(descriptor.to_string())).ok()?;
        let is_file = path.is_absolute() && !path.starts_with("/dev") && !path.starts_with("/proc");
        is_file.then(|| path.to_string_lossy().into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_waits_for_no_file_waits_for_none() {
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert_eq!(path_waited_for(sleep.id()), None);
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!(path_waited_for(u32::MAX), None);
    }
}
