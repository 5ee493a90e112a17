//! Writes that take long: the time stamp comes first, the data much later.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::thread;
use std::time::Duration;

use memmap2::MmapMut;
use rustix::fs::OFlags;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use super::disk::Disk;
use super::{Setting, TICKS, Terms, assemble, compare};

/// Memory whose content arrives late: the kernel waits for it (`userfaultfd(2)`).
struct Late {
    memory: MmapMut,
    faults: OwnedFd,
}

// From `linux/userfaultfd.h`.
const UFFD_API: u64 = 0xAA;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    bytes: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    bytes: u64,
    mode: u64,
    copied: i64,
}

#[allow(unsafe_code)]
fn call<const OPCODE: rustix::ioctl::Opcode, T>(faults: &OwnedFd, mut argument: T) {
    // SAFETY: `OPCODE` belongs to the structure that is passed.
    unsafe { ioctl(faults, Updater::<OPCODE, T>::new(&mut argument)) }.unwrap();
}

impl Late {
    fn new(bytes: usize) -> Late {
        let memory = MmapMut::map_anon(bytes).unwrap();
        // SAFETY: only pages of this mapping are registered with it.
        #[allow(unsafe_code)]
        let faults = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.unwrap();
        let api = Api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        call::<{ opcode::read_write::<Api>(0xAA, 0x3F) }, _>(&faults, api);
        let register = Register {
            start: memory.as_ptr().addr() as u64,
            bytes: bytes as u64,
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        call::<{ opcode::read_write::<Register>(0xAA, 0) }, _>(&faults, register);
        Late { memory, faults }
    }

    /// Fills the memory, so that readers of it continue.
    fn arrive(&self, byte: u8) {
        let bytes = vec![byte; self.memory.len()];
        let copy = Copy {
            to: self.memory.as_ptr().addr() as u64,
            from: bytes.as_ptr().addr() as u64,
            bytes: bytes.len() as u64,
            mode: 0,
            copied: 0,
        };
        call::<{ opcode::read_write::<Copy>(0xAA, 3) }, _>(&self.faults, copy);
    }
}

/// A write begins, its file is scanned and copied, and then its data arrives.
/// Returns the first difference of the archive from the tree.
fn difference_after_a_slow_write(disk: &Disk, flags: OFlags, share: bool) -> Option<String> {
    let tree = disk.path.join("tree");
    fs::create_dir(&tree).unwrap();
    let path = tree.join("file");
    fs::write(&path, vec![1; 256 << 10]).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    let setting = Setting::new(&tree, &disk.path);
    let terms = Terms {
        deferred_from_bytes: share.then_some(u64::MAX),
        ..TICKS
    };
    let ctime = || {
        let metadata = fs::metadata(&path).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = ctime();
    let late = Late::new(64 << 10);
    let file = File::options()
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(&path)
        .unwrap();
    let settled = 4 * TICKS.settled_after;
    let (draft, stamped) = thread::scope(|scope| {
        scope.spawn(|| file.write_all_at(&late.memory, 0).unwrap());
        scope.spawn(|| {
            thread::sleep(settled + Duration::from_millis(400));
            late.arrive(2);
        });
        // At the time of the scan the stamp is old.
        thread::sleep(settled);
        let stamped = ctime();
        let draft = setting.precopy(terms, |precopy| setting.draft(precopy));
        (draft.unwrap(), stamped)
    });
    // The controls: the write was in progress, and its end moved no stamp.
    assert_ne!(stamped, before);
    assert_eq!(stamped, ctime());
    let now = setting.scan().unwrap();
    let expected = setting.archive_offline(&now, &disk.path.join("expected.tar"));
    let archive = setting.precopy(terms, |precopy| {
        let mut draft = draft;
        let update = precopy.update(&mut draft, &now).unwrap().unwrap();
        assemble(precopy, draft, update)
    });
    compare(&archive, &expected).err()
}

pub(super) fn difference_after_a_buffered_write(kind: &str) -> Option<String> {
    difference_after_a_slow_write(&Disk::new(kind, &["-q"]), OFlags::empty(), false)
}

fn difference_after_a_shared_direct_write(kind: &str) -> Option<String> {
    difference_after_a_slow_write(&Disk::new(kind, &["-q"]), OFlags::DIRECT, true)
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_copy_waits_for_a_write_in_progress_on_ext4() {
    assert_eq!(difference_after_a_buffered_write("ext4"), None);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_copy_waits_for_a_write_in_progress_on_xfs() {
    assert_eq!(difference_after_a_buffered_write("xfs"), None);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_copy_waits_for_a_write_in_progress_on_btrfs() {
    assert_eq!(difference_after_a_buffered_write("btrfs"), None);
}

/// Copying does not wait for direct writes; see
/// [`await_write`](crate::scan::await_write).
#[test]
#[ignore = "needs root; run scripts/test"]
fn sharing_blocks_waits_for_a_direct_write_on_xfs() {
    assert_eq!(difference_after_a_shared_direct_write("xfs"), None);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn sharing_blocks_waits_for_a_direct_write_on_btrfs() {
    assert_eq!(difference_after_a_shared_direct_write("btrfs"), None);
}
