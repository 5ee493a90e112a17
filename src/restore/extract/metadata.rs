//! Sets owner, mode, attributes and times of what was extracted, in this order:
//! a change of owner drops set-user-id and capabilities, and a change of mode
//! changes the mask of the ACL.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::archive::{Kind, Member};
use crate::sys::format::display_path;

/// Number of messages that are kept; there may be one for each member.
const MESSAGE_COUNT: usize = 20;

/// Collects messages on what could not be restored, but is no error.
#[derive(Debug, Default)]
pub struct Unrestored {
    messages: Mutex<Vec<String>>,
    /// Whether attributes that root lacks a capability for are no error.
    tolerates_refusals: bool,
}

impl Unrestored {
    pub fn new(tolerates_refusals: bool) -> Unrestored {
        Unrestored {
            tolerates_refusals,
            ..Unrestored::default()
        }
    }

    pub fn add(&self, message: String) {
        let mut messages = self.lock();
        if messages.len() < MESSAGE_COUNT && !messages.contains(&message) {
            messages.push(message);
        }
    }

    pub fn messages(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this process runs as root, who alone can change owners.
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

/// Sets the metadata of an open file or directory.
pub fn apply(
    fd: BorrowedFd<'_>,
    member: &Member,
    privilege: Privilege,
    unrestored: &Unrestored,
) -> Result<()> {
    let mut mode = member.mode;
    if privilege == Privilege::Root {
        let (uid, gid) = owner(member);
        rustix::fs::fchown(fd, uid, gid).context("cannot set its owner")?;
    } else {
        // Set-user-id and set-group-id would give the rights of this user instead of
        // the owner's.
        mode &= 0o1777;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).context("cannot set its mode")?;
    for (name, value) in &member.attributes {
        let set = rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty());
        attribute_result(set, name, member, privilege, unrestored)?;
    }
    rustix::fs::futimens(fd, &times(member)).context("cannot set its time")
}

/// Sets the metadata of `name` in the directory `at`. It is a symlink, which is
/// not followed, or a special file.
pub fn apply_at(
    at: BorrowedFd<'_>,
    name: &[u8],
    member: &Member,
    privilege: Privilege,
    unrestored: &Unrestored,
) -> Result<()> {
    let is_symlink = member.kind == Kind::Symlink;
    if privilege == Privilege::Root {
        let (uid, gid) = owner(member);
        rustix::fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .context("cannot set its owner")?;
    }
    if !is_symlink {
        // No symlink can have replaced it: only this program writes to the
        // directory.
        let mode = Mode::from_raw_mode(member.mode);
        rustix::fs::chmodat(at, name, mode, AtFlags::empty()).context("cannot set its mode")?;
    }
    let mut path = format!("/proc/self/fd/{}/", at.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    for (attribute, value) in &member.attributes {
        let set = rustix::fs::lsetxattr(&path[..], &attribute[..], value, XattrFlags::empty());
        attribute_result(set, attribute, member, privilege, unrestored)?;
    }
    rustix::fs::utimensat(at, name, &times(member), AtFlags::SYMLINK_NOFOLLOW)
        .context("cannot set its time")
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
    let name = display_path(name);
    match result {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => {
            unrestored.add(format!(
                "{name}: this file system does not support it ({} has it)",
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
            format!("cannot set its attribute {name} (this process needs {capability} for that)")
        }),
        Err(error) => Err(error).with_context(|| format!("cannot set its attribute {name}")),
    }
}

/// The capability that setting an attribute requires (xattr(7), capabilities(7)).
fn capability(name: &str) -> &'static str {
    match name {
        "security.capability" => "CAP_SETFCAP",
        _ => "CAP_SYS_ADMIN",
    }
}
