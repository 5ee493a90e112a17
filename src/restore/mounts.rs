//! The mount points in the mount namespace of this process.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Returns the mount points beneath `path`, which must have no symlinks
/// (proc_pid_mountinfo(5)).
pub fn beneath(path: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let mut points = points(&table);
    points.retain(|point| point != path && point.starts_with(path));
    Ok(points)
}

fn points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let escaped = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    escaped
        .map(|point| PathBuf::from(OsString::from_vec(unescaped(point))))
        .collect()
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
            41 21 0:36 / /srv/\xfc rw - tmpfs tmpfs rw\n";
        let points: Vec<Vec<u8>> = points(table)
            .into_iter()
            .map(|point| point.into_os_string().into_vec())
            .collect();
        assert_eq!(points, [&b"/"[..], b"/srv/my stack/a\\b\t", b"/srv/\xfc"]);
    }

    #[test]
    fn only_mount_points_beneath_the_directory_are_returned() {
        let beneath = |path: &str| beneath(Path::new(path)).unwrap();
        assert!(beneath("/").contains(&PathBuf::from("/proc")));
        assert!(!beneath("/proc").contains(&PathBuf::from("/proc")));
        assert_eq!(beneath("/pro"), [""; 0].map(PathBuf::from));
    }
}
