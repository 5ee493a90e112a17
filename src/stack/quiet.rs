//! Proof that a stopped stack's data is not being written to.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::engine::{Container, Status};
use crate::scan::Inventory;
use crate::sys::paths::without_symlinks;

/// The Engine's word for a container that was never started.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What was found, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Can write, or does: the data must not be taken for consistent.
    pub busy: Vec<String>,
    /// Could reach the data through a mount of something above it, as
    /// managers of many stacks do; no reason not to go on.
    pub possible: Vec<String>,
}

/// Which containers count as writers, if they mount the data writable.
#[derive(Clone, Copy)]
pub enum WriterFilter<'a> {
    /// Those that run, but for those of these ids.
    RunningExcept(&'a [&'a str]),
    /// Those that run, or were started since this earlier look.
    StartedSince(&'a [Container]),
    /// Those that have it mounted, be it read-only or while they are paused:
    /// when it is exchanged, they keep what was there before. But for those of
    /// these ids.
    HoldingExcept(&'a [&'a str]),
}

impl WriterFilter<'_> {
    /// What to say of such a container.
    fn verb(self, container: &Container) -> Option<&'static str> {
        let runs = matches!(container.status, Status::Running | Status::Restarting);
        match self {
            WriterFilter::RunningExcept(own) | WriterFilter::HoldingExcept(own)
                if own.contains(&container.id.as_str()) =>
            {
                None
            }
            _ if runs => Some("runs"),
            WriterFilter::RunningExcept(_) => None,
            WriterFilter::HoldingExcept(_) => {
                (container.status == Status::Paused).then_some("is paused")
            }
            WriterFilter::StartedSince(before) => {
                let was = before.iter().find(|was| was.id == container.id);
                let started_at = was.map_or(NEVER, |was| &was.started_at);
                (container.started_at != started_at).then_some("ran meanwhile")
            }
        }
    }
}

/// Containers, of any project, that mount one of `paths`: writable, unless
/// `filter` says otherwise.
pub fn container_writers(
    containers: &[Container],
    paths: &[PathBuf],
    filter: WriterFilter<'_>,
) -> Writers {
    let captured: Vec<PathBuf> = paths.iter().map(|path| without_symlinks(path)).collect();
    // A volume that is a bind by its driver has another path than its device,
    // but is the same directory.
    let directories: Vec<_> = captured.iter().filter_map(|path| directory(path)).collect();
    let mut writers = Writers::default();
    let counted = containers.iter().filter_map(|c| Some((c, filter.verb(c)?)));
    for (container, verb) in counted {
        for mount in &container.mounts {
            let counts = mount.writable || matches!(filter, WriterFilter::HoldingExcept(_));
            if !counts || mount.source.as_os_str().is_empty() {
                continue;
            }
            let source = without_symlinks(&mount.source);
            let of = match container.project.as_str() {
                "" => String::new(),
                project => format!(" of project {project}"),
            };
            let found = format!(
                "container {}{of} {verb} and mounts {}{}",
                container.name,
                mount.source.display(),
                if mount.writable { " writable" } else { "" }
            );
            let is_same = directory(&source).is_some_and(|source| directories.contains(&source));
            if is_same || captured.iter().any(|path| source.starts_with(path)) {
                writers.busy.push(found);
            } else if captured.iter().any(|path| path.starts_with(&source)) {
                writers.possible.push(found);
            }
        }
    }
    writers
}

/// Device and inode.
fn directory(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Processes that have one of the inventory's files open for writing, but for
/// those of the paused containers whose ids are in `frozen`: they cannot write.
/// A process is a container's by its cgroup, which is what is frozen.
///
/// Open files are compared by device and inode, since a path means something
/// else in every mount namespace.
pub fn process_writers(inventory: &Inventory, frozen: &[&str]) -> Result<Vec<String>> {
    let mut open: HashMap<(u64, u64), Vec<u32>> = HashMap::new();
    for process in fs::read_dir("/proc").context("list /proc")?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let is_frozen = || {
            let cgroup = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            frozen.iter().any(|id| cgroup.contains(id))
        };
        if !frozen.is_empty() && is_frozen() {
            continue;
        }
        // A process that is gone, or not ours to look at, has no files here.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for file in files.flatten() {
            let info = process.path().join("fdinfo").join(file.file_name());
            if is_writable(&info)
                && let Some(id) = identity(&file.path())
            {
                open.entry(id).or_default().push(pid);
            }
        }
    }
    let wanted: HashSet<(u64, u64)> = open.keys().copied().collect();
    let mut found: Vec<String> = Vec::new();
    for (dev, ino, path) in inventory.find_files(&wanted) {
        for pid in &open[&(dev, ino)] {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let line = format!(
                "process {pid} ({}) has {path} open for writing",
                command.trim_end()
            );
            if !found.contains(&line) {
                found.push(line);
            }
        }
    }
    Ok(found)
}

/// By the octal `flags:` of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).
fn is_writable(info: &Path) -> bool {
    let Ok(info) = fs::read_to_string(info) else {
        return false;
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 != 0)
}

/// Device and inode of an open regular file. A network file system that hangs
/// is not asked.
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
    fn what_only_reads_or_is_paused_holds_what_it_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let container = |status: &str, writable: bool| -> Container {
            Container::from_json(serde_json::json!({
                "Id": "x", "Name": "/x", "Image": "i",
                "State": {"Status": status, "StartedAt": NEVER, "ExitCode": 0},
                "Config": {}, "HostConfig": {},
                "Mounts": [{"Type": "bind", "Source": dir.path(), "RW": writable}],
            }))
        };
        let found = |status: &str, writable: bool, filter: WriterFilter| {
            let paths = [dir.path().to_owned()];
            !container_writers(&[container(status, writable)], &paths, filter)
                .busy
                .is_empty()
        };
        for status in ["running", "restarting", "paused"] {
            assert!(
                found(status, false, WriterFilter::HoldingExcept(&[])),
                "{status}"
            );
            assert!(
                found(status, true, WriterFilter::HoldingExcept(&[])),
                "{status}"
            );
            assert!(
                !found(status, false, WriterFilter::RunningExcept(&[])),
                "{status}"
            );
        }
        assert!(!found("exited", true, WriterFilter::HoldingExcept(&[])));
    }

    #[test]
    fn a_container_that_ran_between_two_looks_is_found_by_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let container = |status: &str, started_at: &str| -> Container {
            Container::from_json(serde_json::json!({
                "Id": "x", "Name": "/x", "Image": "i",
                "State": {"Status": status, "StartedAt": started_at, "ExitCode": 0},
                "Config": {}, "HostConfig": {},
                "Mounts": [{"Type": "bind", "Source": dir.path(), "RW": true}],
            }))
        };
        let early = "2026-11-24T03:00:00.1Z";
        let late = "2026-11-24T03:00:01.2Z";
        let before = [container("exited", early)];
        let count = |now: Container, before: &[Container]| {
            let paths = [dir.path().to_owned()];
            let filter = WriterFilter::StartedSince(before);
            container_writers(&[now], &paths, filter).busy.len()
        };
        assert_eq!(count(container("exited", late), &before), 1);
        assert_eq!(count(container("exited", late), &[]), 1, "it is new");
        assert_eq!(count(container("running", early), &before), 1);
        // The controls.
        assert_eq!(count(container("exited", early), &before), 0);
        assert_eq!(count(container("paused", early), &before), 0);
        assert_eq!(count(container("created", NEVER), &[]), 0);
    }
}
