//! Mounting a view, and unmounting it again.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::file_system::ArchiveFileSystem;
use super::view::View;

const DEVICE: &str = "/dev/fuse";
/// What mount(8) shows as the source and the type.
const SOURCE: &str = "docker-stack-backup";
const TYPE: &str = "fuse.docker-stack-backup";
/// A thread answers one request at a time.
const THREADS_MAX: usize = 8;

/// A view that is mounted. When it is dropped, it is unmounted.
pub struct Mounted {
    mount: Mount,
    session: JoinHandle<std::io::Result<()>>,
}

/// How the mount ends.
enum Mount {
    /// By umount(2), as root. `None` if it has ended: what is mounted there then is not
    /// ours.
    Own(Option<PathBuf>),
    /// By the program fusermount3, which is set-user-id root.
    Helper(SessionUnmounter),
}

impl Mounted {
    /// Mounts a view at `dir` for the user of this process alone, read-only, without
    /// devices and set-user-id.
    ///
    /// # Errors
    /// When the kernel has no FUSE, or this process may not mount.
    pub fn new(view: View, dir: &Path) -> Result<Mounted> {
        let context = || format!("cannot mount at {}", dir.display());
        let dir = fs::canonicalize(dir).with_context(context)?;
        let file_system = ArchiveFileSystem(view);
        let (mount, session) = match rustix::process::geteuid().is_root() {
            true => mount_as_root(file_system, &dir),
            false => mount_as_user(file_system, &dir),
        }
        .with_context(context)?;
        let thread = Builder::new().name("fuse".to_owned());
        let session = thread.spawn(move || session.run()).with_context(context)?;
        Ok(Mounted { mount, session })
    }

    /// Whether somebody has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.session.is_finished()
    }

    /// Unmounts it. Whoever has a file of it open cannot read it any more when this
    /// process has ended.
    ///
    /// # Errors
    /// When the kernel or fusermount3 refuses.
    pub fn unmount(self) -> Result<()> {
        let Mounted { mut mount, session } = self;
        match (&mut mount, session.is_finished()) {
            (Mount::Own(dir), true) => *dir = None,
            (mount, _) => mount.end()?,
        }
        Ok(())
    }
}

impl Mount {
    fn end(&mut self) -> Result<()> {
        match self {
            Mount::Own(dir) => dir.take().map_or(Ok(()), |dir| detach(&dir)),
            Mount::Helper(unmounter) => unmounter
                .unmount()
                .context("cannot unmount: run `fusermount3 -u DIR`"),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It was unmounted already, or an earlier error is told.
        let _ = self.end();
    }
}

/// Unmounts at once, even if a file is open or a shell stands in a directory.
fn detach(dir: &Path) -> Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(dir, flags) {
        // Nothing is mounted there any more.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", dir.display())),
    }
}

/// Checks that a view can be mounted at `dir`. A view whose program was killed is
/// unmounted there first.
///
/// # Errors
/// When it is not an empty directory.
pub fn check_mount_point(dir: &Path) -> Result<()> {
    let context = || format!("cannot mount at {}", dir.display());
    let is_dead =
        |error: &std::io::Error| error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error());
    match fs::metadata(dir) {
        Err(error) if is_dead(&error) => {
            tracing::warn!(path = %dir.display(), "unmounting what a killed program left mounted");
            detach(dir).context("run `fusermount3 -u DIR`, or as root `umount DIR`")?;
        }
        metadata => {
            metadata.with_context(context)?;
        }
    }
    let is_empty = fs::read_dir(dir).with_context(context)?.next().is_none();
    ensure!(
        is_empty,
        "{} is not empty: its content would be hidden",
        dir.display()
    );
    Ok(())
}

type Mounting = (Mount, Session<ArchiveFileSystem>);

/// Mounts without a helper. fuser would do that, too, but when the mount ends it would
/// unmount once more what is mounted at the same path then.
fn mount_as_root(file_system: ArchiveFileSystem, dir: &Path) -> Result<Mounting> {
    let device = open_device()?;
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    rustix::mount::mount(SOURCE, dir, TYPE, flags, Some(&*CString::new(data)?))?;
    let mount = Mount::Own(Some(dir.to_owned()));
    let device = OwnedFd::from(device);
    let session = Session::from_fd(file_system, device, SessionACL::Owner, config())?;
    Ok((mount, session))
}

fn open_device() -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.with_context(|| {
        format!("cannot open {DEVICE} (is FUSE in the kernel? try `modprobe fuse`)")
    })
}

fn mount_as_user(file_system: ArchiveFileSystem, dir: &Path) -> Result<Mounting> {
    if !Path::new(DEVICE).exists() {
        bail!("there is no {DEVICE} (is FUSE in the kernel? try `modprobe fuse`)");
    }
    let mut config = config();
    config.mount_options = vec![
        MountOption::FSName(SOURCE.to_owned()),
        MountOption::Subtype(SOURCE.to_owned()),
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
    ];
    let mut session = Session::new(file_system, dir, &config)
        .context("users other than root need the program fusermount3 (Debian: package fuse3)")?;
    Ok((Mount::Helper(session.unmount_callable()), session))
}

fn config() -> Config {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut config = Config::default();
    config.n_threads = Some(threads.clamp(2, THREADS_MAX));
    config
}
