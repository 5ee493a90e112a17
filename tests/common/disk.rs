//! A small file system of its own, on a loop device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Place, output, succeed};

/// An ext4 in a file of the place; unmounted when dropped.
pub struct Disk {
    pub path: PathBuf,
}

impl Disk {
    pub fn new(place: &Place, name: &str, size_mib: u32) -> Disk {
        let image = place.path(&format!("{name}.img"));
        let path = place.path(name);
        fs::create_dir(&path).unwrap();
        succeed(
            "truncate",
            ["-s", &format!("{size_mib}M"), image.to_str().unwrap()],
        );
        // Nothing is reserved for root: the tests are root.
        succeed("mkfs.ext4", ["-q", "-m", "0", image.to_str().unwrap()]);
        succeed(
            "mount",
            [
                "-o",
                "loop",
                image.to_str().unwrap(),
                path.to_str().unwrap(),
            ],
        );
        Disk { path }
    }

    /// A shell command that leaves no free block. ext4 refuses large writes
    /// while there is still room for small ones, until the next sync.
    pub fn fill_command(&self) -> String {
        format!(
            "for size in 1M 4k 512 512; do dd if=/dev/zero of='{0}' bs=$size oflag=append \
             conv=notrunc; sync -f '{0}'; done 2>/dev/null",
            self.filler().display()
        )
    }

    pub fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    pub fn available_bytes(&self) -> u64 {
        available_bytes(&self.path)
    }
}

fn available_bytes(path: &Path) -> u64 {
    let stat = succeed("stat", ["-f", "-c", "%a %S", path.to_str().unwrap()]);
    let (blocks, size) = stat.split_once(' ').unwrap();
    blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap()
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = output(Command::new("umount").arg(&self.path));
        if unmounted.status != 0 {
            output(Command::new("umount").arg("--lazy").arg(&self.path));
            eprintln!("{}", unmounted.stderr);
        }
    }
}
