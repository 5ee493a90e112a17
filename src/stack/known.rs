//! Binds that need no mention, because everybody knows that they are not archived.

use std::path::{Path, PathBuf};

use crate::config::plan::StackPlan;
use crate::sys::paths::without_symlinks;

/// Of the machine, not of a stack.
const SYSTEM: [&str; 10] = [
    "/dev",
    "/proc",
    "/sys",
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/var/run/podman/podman.sock",
];

/// Whether a bind is a part of the machine, the Engine's socket, or in the directory of
/// another stack, which has archives of its own.
pub fn is_known(stack: &StackPlan, source: &Path) -> bool {
    let real = without_symlinks(source);
    let is_in = |dir: &Path| source.starts_with(dir) || real.starts_with(without_symlinks(dir));
    SYSTEM.iter().any(|path| is_in(Path::new(path)))
        || stack
            .compose
            .engine
            .socket()
            .is_some_and(|socket| is_in(&socket))
        || stack.other_stacks.iter().any(|dir| is_in(dir))
}

/// Whether `ignoreBinds` names a bind, by a path at or above it or by one of its users.
pub fn is_ignored<'a>(
    stack: &StackPlan,
    source: &Path,
    mut users: impl Iterator<Item = &'a String>,
) -> bool {
    let real = without_symlinks(source);
    let is_in = |path: &PathBuf| source.starts_with(path) || real.starts_with(path);
    let names = |ignored: &String| ignored.starts_with('/') && is_in(&PathBuf::from(ignored));
    stack.ignore_binds.iter().any(names) || users.any(|user| stack.ignore_binds.contains(user))
}
