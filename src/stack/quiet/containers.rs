//! Containers that mount a stack's data.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::{Container, Status};
use crate::sys::paths::without_symlinks;

/// The time of the last start, as the Engine writes it for a container that was
/// never started.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Descriptions of the containers that mount the data.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Containers that mount the data itself, so that it may be inconsistent.
    pub busy: Vec<String>,
    /// Containers that mount a directory above the data, as managers of many
    /// stacks do. They are no reason to fail.
    pub possible: Vec<String>,
}

/// Decides which of the containers that mount the data count.
#[derive(Clone, Copy)]
pub enum WriterFilter<'a> {
    /// Containers that mount the data writable and run, except these ids.
    RunningExcept(&'a [&'a str]),
    /// Containers that mount the data writable, and run or have been started
    /// since this earlier look.
    StartedSince(&'a [Container]),
    /// Containers that mount the data, even read-only, and run or are paused,
    /// except these ids. When the data is exchanged, they keep the old data.
    HoldingExcept(&'a [&'a str]),
}

impl WriterFilter<'_> {
    /// Returns a verb phrase for a container that counts.
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

/// Finds the containers, of any project, that mount one of `paths` or something
/// in it, as far as they count by `filter`. A mount of something that `is_left_out`
/// does not count; it is called with one of `paths` and a path in it.
pub fn container_writers(
    containers: &[Container],
    paths: &[PathBuf],
    filter: WriterFilter<'_>,
    is_left_out: &dyn Fn(&Path, &Path) -> bool,
) -> Writers {
    let captured: Vec<PathBuf> = paths.iter().map(|path| without_symlinks(path)).collect();
    // A volume whose driver binds a directory has another path than that
    // directory, but the same inode.
    let identities: Vec<_> = captured.iter().filter_map(|path| identity(path)).collect();
    let above = captured.iter().flat_map(|path| path.ancestors().skip(1));
    let above: BTreeSet<_> = above.filter_map(identity).collect();
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
            let mounted = identity(&source);
            let is_same = mounted.is_some_and(|mounted| identities.contains(&mounted));
            let is_above = mounted.is_some_and(|mounted| above.contains(&mounted));
            let is_inside = |path: &PathBuf| {
                let inside = source.strip_prefix(path);
                inside.is_ok_and(|inside| !is_left_out(path, inside))
            };
            if is_same || captured.iter().any(is_inside) {
                writers.busy.push(found);
            } else if is_above || captured.iter().any(|path| path.starts_with(&source)) {
                writers.possible.push(found);
            }
        }
    }
    writers
}

/// Returns device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_only_reads_or_is_paused_holds_what_it_mounts() {
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
            !container_writers(&[container(status, writable)], &paths, filter, &|_, _| {
                false
            })
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
    fn a_container_that_ran_between_two_looks_is_found_by_its_start_time() {
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
            container_writers(&[now], &paths, filter, &|_, _| false)
                .busy
                .len()
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
