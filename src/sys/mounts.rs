//! The mount points in the mount namespace of this process.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A mount point, by its line in proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    pub path: PathBuf,
    /// Type of the file system, such as `nfs4`.
    pub file_system: String,
    id: u64,
    parent: u64,
    /// `major:minor`.
    device: String,
    /// The directory of the file system that is mounted.
    root: PathBuf,
}

impl MountPoint {
    /// Whether it shows what would be there without it, as the mounts of a sandbox
    /// do (`ReadWritePaths=` in systemd.exec(5)).
    pub fn is_of_itself(&self, all: &[MountPoint]) -> bool {
        all.iter().any(|parent| {
            let inside = self.path.strip_prefix(&parent.path);
            parent.id == self.parent
                && parent.device == self.device
                && inside.is_ok_and(|inside| parent.root.join(inside) == self.root)
        })
    }
}

/// Returns all mount points; of those at the same path, the topmost comes last.
pub fn all() -> Result<Vec<MountPoint>> {
    let table = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(points(&table))
}

/// Returns the mount points beneath `path`, which must have no symlinks.
pub fn beneath(path: &Path) -> Result<Vec<PathBuf>> {
    let mut points: Vec<PathBuf> = all()?.into_iter().map(|point| point.path).collect();
    points.retain(|point| point != path && point.starts_with(path));
    Ok(points)
}

fn points(table: &[u8]) -> Vec<MountPoint> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(point).collect()
}

fn point(line: &[u8]) -> Option<MountPoint> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescaped(field)));
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    // The number of fields before the hyphen varies.
    let hyphen = fields.iter().position(|field| *field == b"-")?;
    Some(MountPoint {
        path: path(fields.get(4)?),
        file_system: text(fields.get(hyphen + 1)?),
        id: text(fields.first()?).parse().ok()?,
        parent: text(fields.get(1)?).parse().ok()?,
        device: text(fields.get(2)?),
        root: path(fields.get(3)?),
    })
}

/// Decodes a path: space, tab, newline and backslash are a backslash and three
/// octal digits.
fn unescaped(point: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(point.len());
    let mut rest = point;
    while let [first, after @ ..] = rest {
        let octal = match (first, after) {
            (b'\\', [a, b, c, ..]) => str::from_utf8(&[*a, *b, *c])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_escaped_names_are_read() {
        let table = b"21 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n\
            40 21 0:35 / /srv/my\\040stack/a\\134b\\011 rw shared:7 - tmpfs tmpfs rw\n\
            41 21 0:36 / /srv/\xfc rw - nfs4 nas:/x rw\n";
        let points = points(table);
        let paths: Vec<Vec<u8>> = points
            .iter()
            .map(|point| point.path.clone().into_os_string().into_vec())
            .collect();
        assert_eq!(paths, [&b"/"[..], b"/srv/my stack/a\\b\t", b"/srv/\xfc"]);
        let kinds: Vec<&str> = points.iter().map(|point| &*point.file_system).collect();
        assert_eq!(kinds, ["ext4", "tmpfs", "nfs4"]);
    }

    #[test]
    fn a_mount_of_a_sandbox_is_told_from_one_of_other_data() {
        let table = b"21 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
            30 21 254:2 /home /srv rw - ext4 /dev/vda2 rw\n\
            40 30 254:2 /home/web /srv/web rw - ext4 /dev/vda2 rw\n\
            41 30 254:2 /other /srv/bound rw - ext4 /dev/vda2 rw\n\
            42 30 254:3 /home/web /srv/web rw - ext4 /dev/vda3 rw\n";
        let points = points(table);
        let own = points.iter().map(|point| point.is_of_itself(&points));
        let own: Vec<bool> = own.collect();
        assert_eq!(own, [false, false, true, false, false]);
    }

    #[test]
    fn only_mount_points_beneath_the_directory_are_returned() {
        let beneath = |path: &str| beneath(Path::new(path)).unwrap();
        assert!(beneath("/").contains(&PathBuf::from("/proc")));
        assert!(!beneath("/proc").contains(&PathBuf::from("/proc")));
        assert_eq!(beneath("/pro"), [""; 0].map(PathBuf::from));
    }
}
