//! Removes a directory with everything in it, however deep it is, with few open
//! files, and although files are immutable (`chattr +i`).
//!
//! [`std::fs::remove_dir_all`] needs an open file and a stack frame for each
//! level, and gives up at the first immutable file.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result};

/// Directories that are entered within each other. What is deeper is moved up
/// first.
const DEPTH_MAX: usize = 32;

/// Removes what is at `path`: a directory with everything in it, or a file.
/// Follows no symlink, and does not enter mounts. It is no error if there is
/// nothing.
///
/// # Errors
/// When something cannot be removed. Other things in it may be gone by then.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    if remove(CWD, &name)? == Removed::NotEmpty {
        let root = open_dir(CWD, &name)?;
        let mut removal = Removal {
            root: &root,
            moved_count: 0,
        };
        // Each round removes the next levels, which the one before moved up.
        while removal.empty(&root, 0)? {}
        if remove(CWD, &name)? == Removed::NotEmpty {
            return Err(Errno::NOTEMPTY.into());
        }
    }
    Ok(())
}

struct Removal<'a> {
    root: &'a OwnedFd,
    /// Number of directories that were moved to the root so far.
    moved_count: u64,
}

impl Removal<'_> {
    /// Empties a directory. Returns whether something was moved to the root.
    fn empty(&mut self, dir: &OwnedFd, depth: usize) -> Result<bool> {
        let mut has_moved = false;
        for name in names(dir)? {
            if remove(dir, &name)? == Removed::Gone {
                continue;
            }
            if depth == DEPTH_MAX {
                self.move_up(dir, &name)?;
                has_moved = true;
                continue;
            }
            has_moved |= self.empty(&open_dir(dir, &name)?, depth + 1)?;
            // What was moved up is in the root, which is not empty then.
            remove(dir, &name)?;
        }
        Ok(has_moved)
    }

    fn move_up(&mut self, dir: &OwnedFd, name: &CString) -> Result<()> {
        loop {
            self.moved_count += 1;
            let to = format!(".removed-{}", self.moved_count);
            let rename =
                || rustix::fs::renameat_with(dir, name, self.root, &to, RenameFlags::NOREPLACE);
            match retry_without_flags(dir, name, rename) {
                Err(Errno::EXIST) => {}
                result => return result,
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Removed {
    Gone,
    /// It is a directory that is not empty.
    NotEmpty,
}

/// Removes a file or an empty directory.
fn remove(dir: impl AsFd, name: &CString) -> Result<Removed> {
    let unlink = |flags| {
        retry_without_flags(&dir, name, || {
            rustix::fs::unlinkat(&dir, name.as_c_str(), flags)
        })
    };
    let removed = match unlink(AtFlags::empty()) {
        Err(Errno::ISDIR) => unlink(AtFlags::REMOVEDIR),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(Removed::Gone),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removed::NotEmpty),
        Err(error) => Err(error),
    }
}

/// Acts. If that is not permitted, clears the flags that may be the reason, and
/// acts again.
fn retry_without_flags(
    dir: impl AsFd,
    name: &CString,
    mut act: impl FnMut() -> Result<()>,
) -> Result<()> {
    match act() {
        Err(Errno::PERM) => {
            clear_flags_of(dir, name)?;
            act()
        }
        result => result,
    }
}

fn clear_flags_of(dir: impl AsFd, name: &CString) -> Result<()> {
    let stat = rustix::fs::statat(&dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            clear_flags(&rustix::fs::openat(
                &dir,
                name.as_c_str(),
                flags,
                Mode::empty(),
            )?)
        }
        // Opening it clears them.
        FileType::Directory => open_dir(dir, name).map(drop),
        // Nothing else has such flags, and opening a device may act on it.
        _ => Err(Errno::PERM),
    }
}

/// Opens a directory, and makes sure that its entries can be removed.
fn open_dir(dir: impl AsFd, name: &CString) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name.as_c_str(), flags, Mode::empty())?;
    clear_flags(&opened)?;
    Ok(opened)
}

/// Clears the flags that keep an inode, or the entries of a directory, from being
/// removed (`ioctl_iflags(2)`).
fn clear_flags(inode: &OwnedFd) -> Result<()> {
    const BLOCKING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
    match rustix::fs::ioctl_getflags(inode) {
        Ok(flags) if flags.intersects(BLOCKING) => {
            rustix::fs::ioctl_setflags(inode, flags - BLOCKING)
        }
        // Many file systems have no flags.
        _ => Ok(()),
    }
}

/// Returns the names of all entries except `.` and `..`.
fn names(dir: &OwnedFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    /// Makes directories, each within the one before, and a file in the last.
    fn make_deep(at: &Path, depth: usize) {
        let mut dir = File::open(at).unwrap().into();
        for _ in 0..depth {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = open_dir(&dir, &CString::new("d").unwrap()).unwrap();
        }
        let flags = OFlags::WRONLY | OFlags::CREATE;
        rustix::fs::openat(&dir, "file", flags, Mode::RWXU).unwrap();
    }

    #[test]
    fn files_symlinks_and_trees_of_any_depth_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        for depth in [0, 1, DEPTH_MAX, DEPTH_MAX + 1, 3000] {
            let tree = dir.path().join("tree");
            fs::create_dir_all(tree.join("a/b")).unwrap();
            make_deep(&tree.join("a"), depth);
            // A file with the name that a directory gets when it is moved up.
            fs::write(tree.join(".removed-1"), "").unwrap();
            symlink(&outside, tree.join("link")).unwrap();
            remove_tree(&tree).unwrap();
            assert!(!tree.exists(), "{depth}");
        }
        let link = dir.path().join("link");
        symlink(&outside, &link).unwrap();
        remove_tree(&link).unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        remove_tree(&link).unwrap();
        assert!(outside.join("kept").exists());
    }

    #[test]
    #[ignore = "needs root; run scripts/test"]
    fn immutable_files_and_directories_are_removed() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("fixed/sub")).unwrap();
        for file in ["fixed/file", "fixed/sub/file", "appended"] {
            fs::write(tree.join(file), "").unwrap();
        }
        let change = |flag: &str, path: &str| {
            let mut chattr = Command::new("chattr");
            let changed = chattr.arg(flag).arg(tree.join(path)).status().unwrap();
            assert!(changed.success(), "{path}");
        };
        for path in ["fixed/sub/file", "fixed/sub", "fixed/file", "fixed"] {
            change("+i", path);
        }
        change("+a", "appended");
        // The control.
        fs::remove_dir_all(&tree).unwrap_err();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
