//! Gives what was extracted its owner, mode, attributes and times: in this
//! order, since a change of owner drops set-user-id and capabilities, and a
//! change of mode changes the ACL's mask.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Mutex;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::archive::Member;

/// How many messages are kept.
const NAMED_COUNT: usize = 20;

/// What could not be restored, and is not worth failing for.
#[derive(Debug, Default)]
pub struct Unrestored {
    named: Mutex<Vec<String>>,
    /// What root may not set, for want of a capability, is one, too.
    tolerates_refusals: bool,
}

impl Unrestored {
    pub fn new(tolerates_refusals: bool) -> Unrestored {
        Unrestored {
            tolerates_refusals,
            ..Unrestored::default()
        }
    }

    pub fn add(&self, lack: String) {
        let mut named = self
            .named
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if named.len() < NAMED_COUNT && !named.contains(&lack) {
            named.push(lack);
        }
    }

    pub fn into_messages(self) -> Vec<String> {
        self.named
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Who extracts: only root can give files away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    Root,
    User,
}

impl Privilege {
    pub fn of_this_process() -> Privilege {
        match nix::unistd::geteuid().is_root() {
            true => Privilege::Root,
            false => Privilege::User,
        }
    }
}

/// Of a file or directory that is open.
pub fn apply(
    fd: BorrowedFd<'_>,
    member: &Member,
    privilege: Privilege,
    unrestored: &Unrestored,
) -> Result<()> {
    let mut mode = member.mode;
    if privilege == Privilege::Root {
        let (uid, gid) = owner(member);
        rustix::fs::fchown(fd, uid, gid).context("set its owner")?;
    } else {
        // These bits would speak for somebody else.
        mode &= 0o1777;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).context("set its mode")?;
    for (name, value) in &member.attributes {
        let set = rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty());
        attribute_result(set, name, member, privilege, unrestored)?;
    }
    rustix::fs::futimens(fd, &times(member)).context("set its time")
}

/// Of `name` in the directory `at`, which is no regular file or directory; a
/// symlink is not followed.
pub fn apply_at(
    at: BorrowedFd<'_>,
    name: &[u8],
    member: &Member,
    privilege: Privilege,
    unrestored: &Unrestored,
) -> Result<()> {
    let is_symlink = member.kind == crate::archive::Kind::Symlink;
    if privilege == Privilege::Root {
        let (uid, gid) = owner(member);
        rustix::fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .context("set its owner")?;
    }
    if !is_symlink {
        // It was just made in a directory that only this program writes to.
        let mode = Mode::from_raw_mode(member.mode);
        rustix::fs::chmodat(at, name, mode, AtFlags::empty()).context("set its mode")?;
    }
    let mut path = format!("/proc/self/fd/{}/", at.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    for (attribute, value) in &member.attributes {
        let set = rustix::fs::lsetxattr(&path[..], &attribute[..], value, XattrFlags::empty());
        attribute_result(set, attribute, member, privilege, unrestored)?;
    }
    rustix::fs::utimensat(at, name, &times(member), AtFlags::SYMLINK_NOFOLLOW)
        .context("set its time")
}

fn owner(member: &Member) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(member.uid)),
        Some(Gid::from_raw(member.gid)),
    )
}

fn times(member: &Member) -> Timestamps {
    let time = Timespec {
        tv_sec: member.mtime_s,
        tv_nsec: member.mtime_ns.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn attribute_result(
    result: rustix::io::Result<()>,
    name: &[u8],
    member: &Member,
    privilege: Privilege,
    unrestored: &Unrestored,
) -> Result<()> {
    let name = crate::sys::format::display_path(name);
    match result {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => {
            unrestored.add(format!(
                "{name}: this file system does not keep it ({} has it)",
                member.name()
            ));
            Ok(())
        }
        Err(Errno::PERM | Errno::ACCESS) if privilege == Privilege::User => {
            unrestored.add(format!("{name}: only root may set it"));
            Ok(())
        }
        Err(Errno::PERM | Errno::ACCESS) if unrestored.tolerates_refusals => {
            unrestored.add(format!(
                "{name}: only root with {} may set it",
                capability(&name)
            ));
            Ok(())
        }
        Err(error @ (Errno::PERM | Errno::ACCESS)) => Err(error).with_context(|| {
            let capability = capability(&name);
            format!("set its attribute {name} (this process needs {capability} for that)")
        }),
        Err(error) => Err(error).with_context(|| format!("set its attribute {name}")),
    }
}

/// That setting an attribute needs (xattr(7), capabilities(7)).
fn capability(name: &str) -> &'static str {
    match name {
        "security.capability" => "CAP_SETFCAP",
        _ => "CAP_SYS_ADMIN",
    }
}
