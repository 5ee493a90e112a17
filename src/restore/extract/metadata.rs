//! Sets owner, mode, attributes and times of what was extracted, in this order:
//! a change of owner drops set-user-id and capabilities, and a change of mode
//! changes the mask of the ACL.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, makedev,
};
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
    rustix::fs::futimens(fd, &times(member)).context("cannot set its time")?;
    note_other_time(|| rustix::fs::fstat(fd), member, unrestored);
    Ok(())
}

/// Sets the metadata of `name` in the directory `at`. It is a symlink, which is
/// not followed, or a special file. It is opened once, and its type is checked,
/// because a container may write to the directory and put something else there.
///
/// # Errors
/// When something else is there.
pub fn apply_at(
    at: BorrowedFd<'_>,
    name: &[u8],
    member: &Member,
    privilege: Privilege,
    unrestored: &Unrestored,
) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(at, name, flags, Mode::empty()).context("cannot open it")?;
    let stat = rustix::fs::fstat(&handle).context("cannot stat it")?;
    ensure!(
        is_of_kind(&stat, member),
        "something else was put in its place while it was unpacked"
    );
    // A magic link leads to exactly that inode, even if it is a symlink. The calls
    // that take a handle refuse one by `O_PATH`.
    let itself = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let follow = AtFlags::empty();
    if privilege == Privilege::Root {
        let (uid, gid) = owner(member);
        rustix::fs::chownat(CWD, &itself, uid, gid, follow).context("cannot set its owner")?;
    }
    if member.kind != Kind::Symlink {
        let mode = Mode::from_raw_mode(member.mode);
        rustix::fs::chmodat(CWD, &itself, mode, follow).context("cannot set its mode")?;
    }
    for (attribute, value) in &member.attributes {
        let set = rustix::fs::setxattr(&itself, &attribute[..], value, XattrFlags::empty());
        attribute_result(set, attribute, member, privilege, unrestored)?;
    }
    rustix::fs::utimensat(CWD, &itself, &times(member), follow).context("cannot set its time")?;
    note_other_time(|| rustix::fs::fstat(&handle), member, unrestored);
    Ok(())
}

/// A time that a file system cannot hold becomes another one, without an error.
fn note_other_time(
    stat: impl Fn() -> rustix::io::Result<Stat>,
    member: &Member,
    unrestored: &Unrestored,
) {
    // All that keep owners hold these.
    let is_usual = i32::try_from(member.mtime_s).is_ok();
    if !is_usual && stat().is_ok_and(|stat| stat.st_mtime != member.mtime_s) {
        let name = member.name();
        unrestored.add(format!("this file system cannot hold the time of {name}"));
    }
}

/// Whether an inode is of the kind that a member describes.
fn is_of_kind(stat: &Stat, member: &Member) -> bool {
    let is_device = || stat.st_rdev == makedev(member.device.0, member.device.1);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => member.kind == Kind::Symlink,
        FileType::Fifo => member.kind == Kind::Fifo,
        FileType::CharacterDevice => member.kind == Kind::CharDevice && is_device(),
        FileType::BlockDevice => member.kind == Kind::BlockDevice && is_device(),
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use super::*;

    fn member(kind: Kind) -> Member {
        Member {
            path: b"p".to_vec(),
            kind,
            mode: 0o666,
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            mtime_s: 1_000_000_000,
            mtime_ns: 5,
            link: Vec::new(),
            device: (1, 3),
            attributes: Vec::new(),
            file_bytes: 0,
            stored_bytes: 0,
            extents: None,
            start: 0,
            data: 0,
        }
    }

    #[test]
    fn a_time_that_a_file_system_cannot_hold_is_told() {
        let file = tempfile::tempfile().unwrap();
        for (mtime_s, is_told) in [(0, false), (i64::from(i32::MIN), false), (-1 << 54, true)] {
            let member = Member {
                mtime_s,
                ..member(Kind::File)
            };
            let unrestored = Unrestored::default();
            apply(file.as_fd(), &member, Privilege::User, &unrestored).unwrap();
            let is_held = rustix::fs::fstat(&file).unwrap().st_mtime == mtime_s;
            assert_eq!(
                unrestored.messages().len(),
                usize::from(!is_held),
                "{mtime_s}"
            );
            // A file system without limits holds all of them.
            assert!(is_held || is_told, "{mtime_s}");
        }
    }

    #[test]
    fn what_was_put_in_the_place_of_a_member_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let at = File::open(dir).unwrap();
        let apply = |name: &str, kind: Kind| {
            let privilege = Privilege::of_this_process();
            let unrestored = Unrestored::default();
            apply_at(
                at.as_fd(),
                name.as_bytes(),
                &member(kind),
                privilege,
                &unrestored,
            )
        };
        let seen = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.mode() & 0o7777, metadata.mtime())
        };
        let (victim, fifo, link) = (dir.join("victim"), dir.join("fifo"), dir.join("link"));
        fs::write(&victim, "secret").unwrap();
        rustix::fs::chmod(&victim, Mode::from_raw_mode(0o600)).unwrap();
        symlink(&victim, &link).unwrap();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let before = [&victim, &fifo, &link].map(|path| seen(path));
        for (name, kinds) in [
            ("link", [Kind::Fifo, Kind::CharDevice]),
            ("victim", [Kind::Fifo, Kind::Symlink]),
            ("fifo", [Kind::Symlink, Kind::CharDevice]),
        ] {
            for kind in kinds {
                let error = format!("{:#}", apply(name, kind).unwrap_err());
                assert!(
                    error.contains("something else was put in its place"),
                    "{error}"
                );
            }
        }
        assert_eq!([&victim, &fifo, &link].map(|path| seen(path)), before);
        // The controls: what a member describes gets its metadata, and a symlink gets
        // its own.
        apply("fifo", Kind::Fifo).unwrap();
        assert_eq!(seen(&fifo), (0o666, 1_000_000_000));
        apply("link", Kind::Symlink).unwrap();
        assert_eq!(seen(&link).1, 1_000_000_000);
        assert_eq!(seen(&victim), before[0]);
    }
}
