//! Temporary file systems, most of them on loop devices.

use std::path::PathBuf;
use std::process::Command;

pub struct Disk {
    _place: tempfile::TempDir,
    pub path: PathBuf,
}

impl Disk {
    pub fn new(kind: &str, options: &[&str]) -> Disk {
        let place = tempfile::tempdir().unwrap();
        let image = place.path().join("image");
        let path = place.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        run(Command::new("truncate").args(["-s", "512M"]).arg(&image));
        run(Command::new(format!("mkfs.{kind}"))
            .args(options)
            .arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&path));
        Disk {
            _place: place,
            path,
        }
    }

    /// An ext4 that stamps files in whole seconds: its inodes have no room for
    /// nanoseconds.
    pub fn with_whole_seconds() -> Disk {
        Disk::new("ext4", &["-q", "-m", "0", "-I", "128"])
    }

    pub fn tmpfs() -> Disk {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().to_owned();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&path));
        Disk {
            _place: place,
            path,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.path));
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {errors}");
}
