//! A small file system on a loop device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Place, output, succeed};

/// A file system in a file; unmounted when dropped.
pub struct Disk {
    pub path: PathBuf,
    pub image: PathBuf,
    /// The directory with both; `None` if they are in a `Place`.
    _dir: Option<tempfile::TempDir>,
}

impl Disk {
    /// Makes an ext4 in the place.
    pub fn new(place: &Place, name: &str, size_mib: u32) -> Disk {
        // No blocks are reserved for root, because the tests run as root.
        let options = ["-q", "-m", "0"];
        let image = place.path(&format!("{name}.img"));
        Disk::make(("ext4", &options), size_mib, image, place.path(name), None)
    }

    /// Makes a file system that can hold places; see [`Place::on`].
    pub fn of(kind: &str, options: &[&str], size_mib: u32) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let (image, path) = (dir.path().join("image"), dir.path().join("disk"));
        Disk::make((kind, options), size_mib, image, path, Some(dir))
    }

    /// Makes a file system in a file on this one, and mounts it elsewhere.
    pub fn inside(&self, kind: &str, options: &[&str], size_mib: u32) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let image = self.path.join("image");
        Disk::make((kind, options), size_mib, image, path, Some(dir))
    }

    /// Mounts the file system that `image` already holds.
    fn open(image: PathBuf, path: PathBuf) -> Disk {
        Disk::mount(image, path, "loop")
    }

    /// Mounts a copy of a file system that is mounted itself. XFS needs an
    /// option for that; Btrfs needs none since Linux 6.7.
    pub fn open_copy(image: PathBuf, path: PathBuf) -> Disk {
        let options = Disk::options_of_copy(&image);
        Disk::mount(image, path, options)
    }

    pub fn options_of_copy(image: &Path) -> &'static str {
        let image = image.to_str().unwrap();
        match &*succeed("blkid", ["-o", "value", "-s", "TYPE", image]) {
            "xfs" => "loop,nouuid",
            _ => "loop",
        }
    }

    fn mount(image: PathBuf, path: PathBuf, options: &str) -> Disk {
        fs::create_dir(&path).unwrap();
        let files = [image.to_str().unwrap(), path.to_str().unwrap()];
        succeed("mount", ["-o", options, files[0], files[1]]);
        Disk {
            path,
            image,
            _dir: None,
        }
    }

    fn make(
        (kind, options): (&str, &[&str]),
        size_mib: u32,
        image: PathBuf,
        path: PathBuf,
        dir: Option<tempfile::TempDir>,
    ) -> Disk {
        let file = image.to_str().unwrap();
        succeed("truncate", ["-s", &format!("{size_mib}M"), file]);
        succeed(&format!("mkfs.{kind}"), options.iter().chain(&[file]));
        let mut disk = Disk::open(image, path);
        disk._dir = dir;
        disk
    }

    /// Returns a shell command that uses up every free block. ext4 refuses
    /// large writes while there is still room for small ones, until the next
    /// sync.
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
