//! Processes that have a file of a stack's data open for writing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::scan::Inventory;

/// How long the open files of all processes are looked at while a stack is down. Any
/// container can have millions of files open.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// The same for advice, which is not needed.
const ADVICE_LIMIT: Duration = Duration::from_secs(1);

/// Finds the processes that have a file of the inventory open for writing.
/// Processes of the containers whose ids are in `paused` do not count, because
/// they cannot write. If there are too many open files to look at, that is in the result.
///
/// Open files are compared by device and inode, because the same path may lead
/// elsewhere in another mount namespace.
pub fn process_writers(inventory: &Inventory, paused: &[&str]) -> Result<Vec<String>> {
    let mut open: HashMap<(u64, u64), Vec<u32>> = HashMap::new();
    let unfinished = each_open_file(paused, LOOK_LIMIT, |pid, file, info| {
        if is_writable(info)
            && let Some(id) = identity(file)
        {
            open.entry(id).or_default().push(pid);
        }
    })?;
    let wanted: HashSet<(u64, u64)> = open.keys().copied().collect();
    let mut found: Vec<String> = unfinished.into_iter().collect();
    for (dev, ino, path) in inventory.find_files(&wanted) {
        for pid in &open[&(dev, ino)] {
            let line = format!(
                "process {pid} ({}) has {path} open for writing",
                command_of(*pid)
            );
            if !found.contains(&line) {
                found.push(line);
            }
        }
    }
    Ok(found)
}

/// Returns the commands of the processes that have a file at or beneath `path` open for
/// writing, each once. Processes of the containers whose ids are in `except` do not
/// count. Nothing beneath `path` is looked at, so a process in another mount namespace
/// is not always found.
pub fn commands_writing_beneath(path: &Path, except: &[&str]) -> Result<BTreeSet<String>> {
    let mut commands = BTreeSet::new();
    let unfinished = each_open_file(except, ADVICE_LIMIT, |pid, file, info| {
        let is_beneath = fs::read_link(file).is_ok_and(|target| target.starts_with(path));
        if is_beneath && is_writable(info) && identity(file).is_some() {
            commands.insert(command_of(pid));
        }
    })?;
    match unfinished {
        Some(unfinished) => bail!(unfinished),
        None => Ok(commands),
    }
}

/// Calls `see` with each open file of each process that may be looked at: the process,
/// the link to the file, and the path of what is known of it. Leaves out the processes of
/// the containers with the ids `except`. A process belongs to the container in whose
/// cgroup it is; pausing a container freezes its cgroup. If that takes longer than
/// `limit`, it ends, and returns where it was.
fn each_open_file(
    except: &[&str],
    limit: Duration,
    mut see: impl FnMut(u32, &Path, &Path),
) -> Result<Option<String>> {
    let began = Instant::now();
    for process in fs::read_dir("/proc")
        .context("cannot list /proc")?
        .flatten()
    {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let is_exempt = || {
            let cgroup = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            except.iter().any(|id| cgroup.contains(id))
        };
        if !except.is_empty() && is_exempt() {
            continue;
        }
        // The process is gone, or this program may not look at it.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for (count, file) in files.flatten().enumerate() {
            if began.elapsed() > limit {
                return Ok(Some(format!(
                    "who has files open for writing is not known: looking at them was not done \
                     within {} s, and process {pid} ({}) has more than {count} open",
                    limit.as_secs(),
                    command_of(pid)
                )));
            }
            let info = process.path().join("fdinfo").join(file.file_name());
            see(pid, &file.path(), &info);
        }
    }
    Ok(None)
}

fn command_of(pid: u32) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    command.trim_end().to_owned()
}

/// Whether an open file is writable, by the octal `flags:` of
/// /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).
fn is_writable(info: &Path) -> bool {
    let Ok(info) = fs::read_to_string(info) else {
        return false;
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 != 0)
}

/// Returns device and inode of an open regular file. The flags avoid a request
/// to a network file system, which may hang.
fn identity(fd: &Path) -> Option<(u64, u64)> {
    let link = fs::read_link(fd).ok()?;
    if !link.is_absolute() {
        return None;
    }
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(CWD, fd, flags, StatxFlags::BASIC_STATS).ok()?;
    let is_file = u32::from(stat.stx_mode) & 0o170_000 == 0o100_000;
    let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    is_file.then_some((dev, stat.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_open_files_ends_at_its_limit_and_says_where() {
        let mut count = 0;
        let see = |_: u32, _: &Path, _: &Path| count += 1;
        let found = each_open_file(&[], Duration::ZERO, see).unwrap();
        assert_eq!(count, 0);
        let found = found.expect("this process has files open");
        assert!(found.contains("was not done within 0 s"), "{found}");
        let mut own = 0;
        let see = |pid: u32, _: &Path, _: &Path| own += u32::from(pid == std::process::id());
        assert_eq!(each_open_file(&[], LOOK_LIMIT, see).unwrap(), None);
        assert!(own > 0);
    }
}
