//! Writers that change a tree in every possible way.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapMut;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, OFlags, Timespec, Timestamps, copy_file_range, fallocate,
    utimensat,
};

/// SplitMix64: the same seed gives the same rounds.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let byte = self.next() as u8;
        let mut bytes = vec![byte; len];
        for chunk in bytes.chunks_mut(512) {
            chunk[0] = self.next() as u8;
        }
        bytes
    }
}

const DIRECTORIES: u64 = 5;
const FILES: u64 = 12;

fn directory(tree: &Path, rng: &mut Rng) -> PathBuf {
    tree.join(format!("d{}", rng.below(DIRECTORIES)))
}

fn file(tree: &Path, rng: &mut Rng) -> PathBuf {
    directory(tree, rng).join(format!("f{:02}", rng.below(FILES)))
}

fn size(rng: &mut Rng) -> usize {
    let most = [100, 5000, 70_000, 300_000][rng.below(4) as usize];
    rng.below(most) as usize
}

pub fn build(tree: &Path, outside: &Path, seed: u64) {
    let mut rng = Rng(seed);
    fs::create_dir(outside).unwrap();
    fs::write(outside.join("f00"), "outside").unwrap();
    for number in 0..DIRECTORIES {
        fs::create_dir_all(tree.join(format!("d{number}"))).unwrap();
    }
    for _ in 0..40 {
        let (path, size) = (file(tree, &mut rng), size(&mut rng));
        fs::write(path, rng.bytes(size)).unwrap();
    }
    // This file is written by single long calls.
    fs::write(tree.join("long"), rng.bytes(6 << 20)).unwrap();
    fs::write(tree.join("mapped"), rng.bytes(200_000)).unwrap();
    fs::write(tree.join("~last"), rng.bytes(100_000)).unwrap();
    // No writer changes this file. Without it, a slow machine would make no second
    // pass, because more than half of the tree would change during the first.
    fs::write(tree.join("unchanged"), rng.bytes(16 << 20)).unwrap();
}

/// Makes a file whose pages are all mapped and dirty as long as the round lasts.
/// It is written in no other way, so without a sync between scan and copy its
/// ctime never moves again.
pub fn hold(tree: &Path) -> MmapMut {
    let path = tree.join("held");
    fs::write(&path, [1; 8 * 4096]).unwrap();
    let mut held = map(&path).unwrap();
    held.fill(2);
    held
}

pub fn store_until(held: &mut MmapMut, seed: u64, ended: &AtomicBool) {
    let mut rng = Rng(seed);
    while !ended.load(Ordering::Relaxed) {
        let at = rng.below(held.len() as u64) as usize;
        held[at] = rng.next() as u8;
        std::thread::sleep(std::time::Duration::from_micros(rng.below(1000)));
    }
}

/// Changes the tree until `ended`. Changes may fail, because a file is gone or has
/// become something else.
pub fn write_until(tree: &Path, outside: &Path, seed: u64, ended: &AtomicBool) {
    let mut rng = Rng(seed);
    // The pages stay dirty as long as the writer lives.
    let mut mapped = map(&tree.join("mapped"));
    // Some rounds have few changes, so that much of the draft is kept.
    let pause = rng.below(3) * 1500;
    while !ended.load(Ordering::Relaxed) {
        if let Some(mapped) = &mut mapped {
            let at = rng.below(mapped.len() as u64) as usize;
            mapped[at] = rng.next() as u8;
        }
        let _ = change(tree, outside, &mut rng);
        std::thread::sleep(std::time::Duration::from_micros(rng.below(pause + 1)));
    }
}

#[allow(unsafe_code)]
fn map(path: &Path) -> Option<MmapMut> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    // SAFETY: no writer truncates this file.
    unsafe { MmapMut::map_mut(&file) }.ok()
}

fn change(tree: &Path, outside: &Path, rng: &mut Rng) -> std::io::Result<()> {
    let path = file(tree, rng);
    let other = file(tree, rng);
    // This follows a directory that has become a symlink to `outside`, as writes of
    // containers do. The archive must not have what is there.
    let open = |path: &Path| File::options().read(true).write(true).open(path);
    match rng.below(28) {
        0 | 1 => {
            let (offset, len) = (rng.below(100_000), size(rng));
            open(&path)?.write_all_at(&rng.bytes(len), offset)
        }
        2 => {
            // One byte differs; the length stays.
            let bytes = open(&path)?.metadata()?.len().max(1);
            open(&path)?.write_all_at(&rng.bytes(1), rng.below(bytes))
        }
        3 => open(&path)?.set_len(rng.below(200_000)),
        4 => {
            let file = open(&path)?;
            file.set_len(0)?;
            file.write_all_at(&rng.bytes(rng.0 as usize % 90_000), 0)
        }
        5 => {
            let how = [
                FallocateFlags::empty(),
                FallocateFlags::KEEP_SIZE,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                FallocateFlags::ZERO_RANGE,
            ];
            let how = how[rng.below(4) as usize];
            fallocate(
                open(&path)?,
                how,
                rng.below(100_000),
                1 + rng.below(150_000),
            )?;
            Ok(())
        }
        6 => {
            let direct = File::options()
                .read(true) // so that opening a FIFO does not block
                .write(true)
                .custom_flags(OFlags::DIRECT.bits() as i32)
                .open(&path)?;
            let buffer = vec![rng.next() as u8; 3 * 4096];
            let skip = buffer.as_ptr().align_offset(4096);
            direct.write_all_at(&buffer[skip..skip + 8192], 4096 * rng.below(10))
        }
        7 | 8 => {
            let file = open(&tree.join("mapped"))?;
            drop(file);
            if let Some(mut mapped) = map(&tree.join("mapped")) {
                for _ in 0..rng.below(5) {
                    let at = rng.below(mapped.len() as u64) as usize;
                    mapped[at] = rng.next() as u8;
                }
            }
            Ok(())
        }
        9 => open(&tree.join("long"))?.write_all_at(&rng.bytes(6 << 20), 0),
        10 => {
            let new = tree.join(format!("new{}", rng.below(3)));
            let len = size(rng);
            fs::write(&new, rng.bytes(len))?;
            fs::rename(new, path)
        }
        11 => fs::rename(path, other),
        12 => fs::hard_link(path, other),
        13 => fs::remove_file(path),
        14 => {
            fs::remove_file(&path)?;
            symlink(outside.join("f00"), path)
        }
        15 => fs::rename(directory(tree, rng), directory(tree, rng)),
        16 => {
            let (at, away) = (directory(tree, rng), tree.join("away"));
            fs::rename(&at, &away)?;
            symlink(outside, &at)?;
            std::thread::sleep(std::time::Duration::from_micros(rng.below(3000)));
            fs::remove_file(&at)?;
            fs::rename(away, at)
        }
        17 => fs::create_dir(directory(tree, rng)),
        18 => fs::set_permissions(
            path,
            fs::Permissions::from_mode(0o600 + rng.below(8) as u32),
        ),
        19 => xattr::set(path, "user.x", &[rng.next() as u8]),
        20 | 21 => {
            // It is written, and then its mtime is set back.
            let file = open(&path)?;
            let before = file.metadata()?.modified()?;
            let bytes = file.metadata()?.len().max(1);
            file.write_all_at(&rng.bytes(1), rng.below(bytes))?;
            file.set_modified(before)
        }
        22 => {
            let time = Timespec {
                tv_sec: rng.below(2_000_000_000) as i64,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(())
        }
        23 | 24 => {
            // A segment of a log is reused under a new name.
            let segment = directory(tree, rng).join(format!("segment{}", rng.below(3)));
            fs::rename(path, &segment)?;
            let (offset, len) = (rng.below(50_000), size(rng));
            open(&segment)?.write_all_at(&rng.bytes(len), offset)?;
            fs::rename(segment, other)
        }
        25 => {
            let how = [FallocateFlags::INSERT_RANGE, FallocateFlags::COLLAPSE_RANGE];
            let how = how[rng.below(2) as usize];
            let (offset, bytes) = (4096 * rng.below(10), 4096 * (1 + rng.below(5)));
            fallocate(open(&path)?, how, offset, bytes)?;
            Ok(())
        }
        26 => {
            let (from, to) = (open(&other)?, open(&path)?);
            let (mut at, mut to_at) = (4096 * rng.below(10), 4096 * rng.below(10));
            let bytes = rng.below(200_000) as usize;
            copy_file_range(from, Some(&mut at), to, Some(&mut to_at), bytes)?;
            Ok(())
        }
        _ => {
            fs::remove_file(&path)?;
            let kind = [SFlag::S_IFIFO, SFlag::S_IFCHR][rng.below(2) as usize];
            mknod(&path, kind, Mode::S_IRUSR, makedev(1, 3))?;
            Ok(())
        }
    }
}
