//! Writes that are under way for long: the time stamp comes first, the data
//! last.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::thread;
use std::time::Duration;

use memmap2::MmapMut;
use rustix::fs::OFlags;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use super::*;

/// Memory whose content the kernel waits for: `userfaultfd(2)`.
struct Late {
    memory: MmapMut,
    faults: OwnedFd,
}

/// Those of `linux/userfaultfd.h`.
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
fn ask<const OPCODE: rustix::ioctl::Opcode, T>(faults: &OwnedFd, mut what: T) {
    // SAFETY: each structure is what its number is for.
    unsafe { ioctl(faults, Updater::<OPCODE, T>::new(&mut what)) }.unwrap();
}

impl Late {
    fn new(bytes: usize) -> Late {
        let memory = MmapMut::map_anon(bytes).unwrap();
        // SAFETY: no page of any other mapping is registered with it.
        #[allow(unsafe_code)]
        let faults = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.unwrap();
        let api = Api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        ask::<{ opcode::read_write::<Api>(0xAA, 0x3F) }, _>(&faults, api);
        let register = Register {
            start: memory.as_ptr().addr() as u64,
            bytes: bytes as u64,
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        ask::<{ opcode::read_write::<Register>(0xAA, 0) }, _>(&faults, register);
        Late { memory, faults }
    }

    /// Who waits for it goes on.
    fn arrive(&self, byte: u8) {
        let bytes = vec![byte; self.memory.len()];
        let copy = Copy {
            to: self.memory.as_ptr().addr() as u64,
            from: bytes.as_ptr().addr() as u64,
            bytes: bytes.len() as u64,
            mode: 0,
            copied: 0,
        };
        ask::<{ opcode::read_write::<Copy>(0xAA, 3) }, _>(&self.faults, copy);
    }
}

/// A write begins, its file is scanned and copied, and then its data arrives.
fn a_write_across_the_copy(disk: &Disk, flags: OFlags, share: bool) {
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
    let (drafted, stamped) = thread::scope(|scope| {
        scope.spawn(|| file.write_all_at(&late.memory, 0).unwrap());
        scope.spawn(|| {
            thread::sleep(settled + Duration::from_millis(400));
            late.arrive(2);
        });
        // By the time of the scan its stamp is an old one.
        thread::sleep(settled);
        let stamped = ctime();
        let drafted = setting.precopy(terms, |precopy| setting.draft(precopy));
        (drafted.unwrap(), stamped)
    });
    // The controls: the write was under way, and nothing tells that it ended.
    assert_ne!(stamped, before);
    assert_eq!(stamped, ctime());
    assert_is_the_tree(&setting, terms, drafted, disk);
}

fn assert_is_the_tree(setting: &Setting, terms: Terms, mut drafted: Drafted, disk: &Disk) {
    let now = setting.scan().unwrap();
    let expected = disk.path.join("expected.tar");
    archive_offline(&setting.sources, &now, &expected);
    let finished = setting.precopy(terms, |precopy| {
        let update = precopy.update(&mut drafted, &now).unwrap().unwrap();
        precopy.finish(drafted, update).unwrap()
    });
    let archive = fs::read(finished.partial.path()).unwrap();
    compare(&archive, &fs::read(&expected).unwrap(), 0);
}

fn buffered(kind: &str) {
    a_write_across_the_copy(&Disk::new(kind, &["-q"]), OFlags::empty(), false);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_write_that_is_under_way_throughout_is_waited_for_on_ext4() {
    buffered("ext4");
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_write_that_is_under_way_throughout_is_waited_for_on_xfs() {
    buffered("xfs");
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_write_that_is_under_way_throughout_is_waited_for_on_btrfs() {
    buffered("btrfs");
}

/// Sharing waits for direct writes, too. Copying does not: see
/// [`await_write`](crate::scan::await_write).
#[test]
#[ignore = "needs root; run scripts/test"]
fn a_direct_write_is_waited_for_where_blocks_are_shared_on_xfs() {
    a_write_across_the_copy(&Disk::new("xfs", &["-q"]), OFlags::DIRECT, true);
}

#[test]
#[ignore = "needs root; run scripts/test"]
fn a_direct_write_is_waited_for_where_blocks_are_shared_on_btrfs() {
    a_write_across_the_copy(&Disk::new("btrfs", &["-q"]), OFlags::DIRECT, true);
}
