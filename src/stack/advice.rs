//! What to advise about a mount that is not archived. Who follows the advice must not
//! get a backup that fails every night.

use std::fs;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::config::OnBusy;
use crate::config::plan::StackPlan;
use crate::engine::Container;
use crate::stack::quiet::{WriterFilter, commands_writing_beneath, container_writers};
use crate::sys::mounts::MountPoint;
use crate::sys::paths::without_symlinks;

/// File systems that are made by the kernel or by Docker, and hold no data to archive.
const PSEUDO: [&str; 24] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// What decides whether a backup with one more tree would succeed.
pub struct Advisor<'a> {
    pub stack: &'a StackPlan,
    /// Whether no running container can write to the compose file.
    pub trusts_compose_file: bool,
    pub containers: &'a [Container],
    /// Ids of the containers that are stopped for the backup.
    pub own: Vec<&'a str>,
    pub mounts: &'a [MountPoint],
}

impl Advisor<'_> {
    /// Completes a reason why the data in `path` is not archived: says how to add `what`
    /// to `option`, or why that would not help.
    pub fn complete(&self, reason: &str, path: &Path, what: &str, option: &str) -> String {
        if let Some(obstacle) = self.obstacle(path) {
            return format!("{reason}, and cannot be archived: {obstacle}");
        }
        match self.busy(path).as_slice() {
            [] => format!("{reason}: add {what} to {option} to have it archived"),
            users => format!(
                "{reason}, and in use by others ({}): add {what} to {option} and set onBusy to \
                 warn to have it archived",
                users.join("; ")
            ),
        }
    }

    /// Whether every backup would fail if the data in `path` were archived.
    pub fn would_fail(&self, path: &Path) -> bool {
        self.obstacle(path).is_some() || !self.busy(path).is_empty()
    }

    /// Returns what would make every backup fail.
    fn obstacle(&self, path: &Path) -> Option<String> {
        let real = without_symlinks(path);
        let overlap = |dir: &Path| {
            let dir = without_symlinks(dir);
            dir.starts_with(&real) || real.starts_with(&dir)
        };
        let own_dirs = &self.stack.own_dirs;
        if let Some(dir) = own_dirs.iter().find(|dir| overlap(dir)) {
            return Some(format!("{} lies there, or holds it", dir.display()));
        }
        let others = self.stack.other_stacks.iter().map(|dir| &**dir);
        let mut dirs = std::iter::once(self.stack.dir()).chain(others);
        if let Some(dir) = dirs.find(|dir| without_symlinks(dir).starts_with(&real)) {
            return Some(format!("the stack in {} lies there", dir.display()));
        }
        let is_pseudo = |mount: &&MountPoint| {
            mount.path.starts_with(&real) && PSEUDO.contains(&&*mount.file_system)
        };
        if let Some(pseudo) = self.mounts.iter().find(is_pseudo) {
            return Some(format!(
                "it is not only data ({} is a {})",
                pseudo.path.display(),
                pseudo.file_system
            ));
        }
        let opened = match real.is_dir() {
            true => fs::read_dir(&real).map(drop),
            // Opening a pipe waits, and opening a device can have effects.
            false => access(&real, Access::READ_OK).map_err(Into::into),
        };
        opened.err().map(|error| error.to_string())
    }

    /// Returns who would make a backup fail.
    fn busy(&self, path: &Path) -> Vec<String> {
        match self.stack.on_busy {
            OnBusy::Fail => self.users(path),
            OnBusy::Warn => Vec::new(),
        }
    }

    /// Returns who writes there now and is not stopped for the backup.
    fn users(&self, path: &Path) -> Vec<String> {
        let filter = WriterFilter::RunningExcept(&self.own);
        let paths = [path.to_owned()];
        let mut users = container_writers(self.containers, &paths, filter, &|_, _| false).busy;
        // What cannot be listed is no reason to keep the advice back.
        let commands = commands_writing_beneath(&without_symlinks(path), &self.ids());
        users.extend(commands.unwrap_or_default());
        users
    }

    /// Processes of containers are those of the mounts above.
    fn ids(&self) -> Vec<&str> {
        let ids = self.containers.iter().map(|container| &*container.id);
        ids.collect()
    }
}
