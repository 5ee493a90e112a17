//! The sidecar with the checksums of an archive. It records every member as it
//! was written, so that damage found later can be attributed to single files.
//!
//! `docs/archive-format.md` describes its lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::archive::tar::BLOCK_BYTES;
use crate::archive::tar::{Input, Reader};
use crate::sys::format::display_path;

const FIRST_LINE: &str = "docker-stack-backup sums 1";
/// How much of the hash of a member's head and padding is kept.
const HEAD_HASH_BYTES: usize = 8;
const READ_BYTES: usize = 256 << 10;

/// The checksums of one archive. A member takes 72 bytes and its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub archive_bytes: u64,
    members: Vec<MemberSum>,
    /// All paths, one after the other, as [`display_path`] shows them. They are
    /// only for people: a member is found by its offset.
    paths: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct MemberSum {
    /// Offset of its first header in the archive.
    start: u64,
    /// Length of everything before the data.
    head_bytes: u64,
    data_bytes: u64,
    /// SHA-256 of the data; zeros if there is none.
    data: [u8; 32],
    /// First bytes of the SHA-256 of head and padding.
    head: [u8; HEAD_HASH_BYTES],
    /// End of its path in [`Sums::paths`].
    path_end: usize,
}

impl Sums {
    /// Reads the whole archive in several threads.
    ///
    /// # Errors
    /// Names the member that cannot be read, or whose structure is damaged.
    pub fn compute(file: &File, cancel: &AtomicBool) -> Result<Sums> {
        let mut sums = Sums {
            archive_bytes: file.metadata()?.len(),
            ..Sums::default()
        };
        let mut reader = Reader::new(Input::File(file))?;
        while let Some(member) = reader.next_member()? {
            let place = MemberSum {
                start: member.start,
                head_bytes: member.data - member.start,
                data_bytes: member.stored_bytes,
                ..MemberSum::default()
            };
            sums.push(place, &display_path(&member.path));
        }
        ensure!(
            reader.ends_with_zeros()?,
            "data follows the end of the archive"
        );
        let mut members = std::mem::take(&mut sums.members);
        let mut path_start = 0;
        let parts = members.iter_mut().map(|member| {
            let path = &sums.paths[path_start..member.path_end];
            path_start = member.path_end;
            (member, path)
        });
        in_parallel(parts, cancel, |(member, path), buffer| {
            let (data, head) = hash(file, member, buffer, cancel)
                .with_context(|| format!("cannot read {path}"))?;
            (member.data, member.head) = (data, head);
            Ok(())
        })?;
        sums.members = members;
        Ok(sums)
    }

    /// Reads the sidecar of the archive at `path`; `None` if there is none.
    pub fn read_sidecar(path: &Path) -> Option<Result<Sums>> {
        match std::fs::read_to_string(path.with_extension("sums")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            text => Some(text.map_err(Into::into).and_then(|text| Sums::parse(&text))),
        }
    }

    /// Members with the manifest.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    fn push(&mut self, member: MemberSum, path: &str) {
        self.paths.push_str(path);
        self.members.push(MemberSum {
            path_end: self.paths.len(),
            ..member
        });
    }

    fn path(&self, at: usize) -> &str {
        let before = at
            .checked_sub(1)
            .map(|before| self.members[before].path_end);
        &self.paths[before.unwrap_or(0)..self.members[at].path_end]
    }

    /// Writes the sidecar. Its last line is a hash of all lines before.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut all = Sha256::new();
        let mut put = |line: String| {
            all.update(line.as_bytes());
            out.write_all(line.as_bytes())
        };
        put(format!("{FIRST_LINE} {}\n", self.archive_bytes))?;
        for (at, sum) in self.members.iter().enumerate() {
            let data = match sum.data_bytes {
                0 => "-".to_owned(),
                _ => hex(&sum.data),
            };
            put(format!(
                "{data} {} {} {} {} {}\n",
                hex(&sum.head),
                sum.start,
                sum.head_bytes,
                sum.data_bytes,
                self.path(at)
            ))?;
        }
        writeln!(out, "end {}", hex(&all.finalize()))
    }

    /// Parses a sidecar.
    ///
    /// # Errors
    /// When it is damaged, or its format is unknown.
    pub fn parse(text: &str) -> Result<Sums> {
        let end = text
            .trim_end()
            .rfind("\nend ")
            .context("its last line is missing")?;
        let (lines, last) = text.split_at(end + 1);
        ensure!(
            last.trim_end() == format!("end {}", hex(&Sha256::digest(lines.as_bytes()))),
            "it is damaged"
        );
        let mut lines = lines.lines();
        let first = lines
            .next()
            .and_then(|line| line.strip_prefix(FIRST_LINE))
            .context("its format is unknown")?;
        let mut sums = Sums {
            archive_bytes: first.trim().parse()?,
            ..Sums::default()
        };
        for line in lines {
            let (member, path) = parse_line(line).context("it has a malformed line")?;
            sums.push(member, path);
        }
        Ok(sums)
    }

    /// Reads all members where they were written, and compares them; their present
    /// headers do not matter. Returns a message for each damaged member.
    ///
    /// # Errors
    /// Only when interrupted. A member that cannot be read is damaged.
    pub fn find_damage(&self, file: &File, cancel: &AtomicBool) -> Result<Vec<String>> {
        let damaged = Mutex::new(Vec::new());
        let members = self.members.iter().enumerate();
        in_parallel(members, cancel, |(at, was), buffer| {
            let what = match hash(file, was, buffer, cancel) {
                Err(error) if cancel.load(Ordering::Relaxed) => return Err(error),
                Err(_) => "it cannot be read",
                Ok((data, _)) if data != was.data => "its data is damaged",
                Ok((_, head)) if head != was.head => "its headers are damaged",
                Ok(_) => return Ok(()),
            };
            let mut damaged = damaged.lock().unwrap_or_else(PoisonError::into_inner);
            damaged.push((at, format!("{}: {what}", self.path(at))));
            Ok(())
        })?;
        let mut damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        damaged.sort_unstable();
        Ok(damaged.into_iter().map(|(_, line)| line).collect())
    }
}

impl MemberSum {
    // The numbers in a sidecar are not checked, so adding them may overflow.

    fn data_start(&self) -> u64 {
        self.start.saturating_add(self.head_bytes)
    }

    fn data_end(&self) -> u64 {
        self.data_start().saturating_add(self.data_bytes)
    }

    /// Offset of the end of its padding.
    fn end(&self) -> u64 {
        let blocks = self.data_end().div_ceil(BLOCK_BYTES);
        blocks.saturating_mul(BLOCK_BYTES)
    }
}

fn parse_line(line: &str) -> Option<(MemberSum, &str)> {
    let mut fields = line.splitn(6, ' ');
    let mut field = || fields.next();
    let (data, head) = (field()?, field()?);
    let member = MemberSum {
        data: match data {
            "-" => [0; 32],
            data => from_hex(data)?,
        },
        head: from_hex(head)?,
        start: field()?.parse().ok()?,
        head_bytes: field()?.parse().ok()?,
        data_bytes: field()?.parse().ok()?,
        path_end: 0,
    };
    let has_data = data != "-";
    (has_data == (member.data_bytes > 0)).then_some((member, field()?))
}

/// Calls `act` for each item, in several threads. Each thread has a buffer.
///
/// # Errors
/// The first error of `act`, or `interrupted` soon after `cancel` is set.
fn in_parallel<T: Send>(
    items: impl Iterator<Item = T> + Send,
    cancel: &AtomicBool,
    act: impl Fn(T, &mut [u8]) -> Result<()> + Sync,
) -> Result<()> {
    let items = Mutex::new(Some(items));
    let lock = || items.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8);
    let work = || -> Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let Some(item) = lock().as_mut().and_then(Iterator::next) else {
                return Ok(());
            };
            if cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if let Err(error) = act(item, &mut buffer) {
                // The other threads find no more items.
                *lock() = None;
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut results = workers.into_iter().map(|worker| worker.join());
        results.try_for_each(|result| result.unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

/// Hashes a member's data, and its head and padding.
fn hash(
    file: &File,
    member: &MemberSum,
    buffer: &mut [u8],
    cancel: &AtomicBool,
) -> Result<([u8; 32], [u8; HEAD_HASH_BYTES])> {
    let mut hash = Sha256::new();
    let (data_start, data_end) = (member.data_start(), member.data_end());
    hash_range(file, member.start, data_start, buffer, &mut hash, cancel)?;
    hash_range(file, data_end, member.end(), buffer, &mut hash, cancel)?;
    let mut head = [0; HEAD_HASH_BYTES];
    head.copy_from_slice(&hash.finalize_reset()[..HEAD_HASH_BYTES]);
    let mut data = [0; 32];
    if member.data_bytes > 0 {
        hash_range(file, data_start, data_end, buffer, &mut hash, cancel)?;
        data = hash.finalize().into();
    }
    Ok((data, head))
}

fn hash_range(
    file: &File,
    mut start: u64,
    end: u64,
    buffer: &mut [u8],
    hash: &mut Sha256,
    cancel: &AtomicBool,
) -> Result<()> {
    while start < end {
        if cancel.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let part = (end - start).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..part], start)?;
        hash.update(&buffer[..part]);
        start += part as u64;
    }
    Ok(())
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(digit).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_parsed_back_and_damage_is_noticed() {
        let sum = |start, data_bytes| MemberSum {
            start,
            head_bytes: 512,
            data_bytes,
            head: *b"\x01\x23\x45\x67\x89\xab\xcd\xef",
            data: [data_bytes as u8; 32],
            path_end: 0,
        };
        let mut sums = Sums {
            archive_bytes: 4096,
            ..Sums::default()
        };
        sums.push(sum(0, 0), "a b\\nc");
        sums.push(sum(512, 1), "d");
        let mut text = Vec::new();
        sums.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("\n- 0123456789abcdef 0 512 0 a b\\nc\n0101"),
            "{text}"
        );
        assert_eq!(Sums::parse(&text).unwrap(), sums);
        for at in 0..text.len() - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            let damaged = String::from_utf8(damaged).unwrap();
            assert!(Sums::parse(&damaged).is_err(), "{at}");
            assert!(Sums::parse(&text[..at]).is_err(), "{at}");
        }
    }
}
