//! The sidecar with the checksums of an archive. It records every member as it
//! was written, so that damage found later can be attributed to single files.
//!
//! `docs/archive-format.md` describes its lines.

mod member_sum;
mod reading;

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::archive::sums::member_sum::{Algorithm, MemberSum};
use crate::archive::sums::reading::hash_members;
use crate::archive::tar::{Input, Member, Reader};
use crate::archive::write::hashes::RenderedHashes;
use crate::sys::format::display_path;
use crate::sys::paths::open_regular_linked;

pub use member_sum::{ContentChecker, ContentHash};

const FIRST_LINE: &str = "docker-stack-backup sums";
/// The sums of an archive are shorter than this many times its length: a member has 512 bytes
/// and its path, and a line of the sums at most 200 and its path with each byte escaped.
const BYTES_PER_BYTE: u64 = 8;
const BYTES_MIN: u64 = 4096;

/// The checksums of one archive. A member takes 72 bytes and its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub archive_bytes: u64,
    algorithm: Algorithm,
    members: Vec<MemberSum>,
    /// All paths, one after the other, as [`display_path`] shows them. They are
    /// only for people: a member is found by its offset.
    paths: String,
}

impl Sums {
    /// Reads the whole archive in several threads.
    ///
    /// # Errors
    /// Names the member that cannot be read, or whose structure is damaged.
    pub fn compute(file: &File, cancel: &AtomicBool) -> Result<Sums> {
        let mut sums = Sums::empty(file)?;
        let mut reader = Reader::new(Input::File(file))?;
        while let Some(member) = reader.next_member()? {
            ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
            sums.add(&member);
        }
        ensure!(
            reader.ends_with_zeros(cancel)?,
            "data follows the end of the archive"
        );
        sums.hash(file, cancel)?;
        Ok(sums)
    }

    /// Sums without members.
    ///
    /// # Errors
    /// When the length of the archive cannot be read.
    pub(crate) fn empty(file: &File) -> io::Result<Sums> {
        Ok(Sums {
            archive_bytes: file.metadata()?.len(),
            ..Sums::default()
        })
    }

    /// Adds a member, which must follow the last one, without its hashes.
    pub(crate) fn add(&mut self, member: &Member) {
        let place = MemberSum {
            start: member.start,
            head_bytes: member.data - member.start,
            data_bytes: member.stored_bytes,
            ..MemberSum::default()
        };
        self.push(place, &display_path(&member.path));
    }

    /// Reads and hashes all members.
    ///
    /// # Errors
    /// Names the first member that cannot be read.
    pub(crate) fn hash(&mut self, file: &File, cancel: &AtomicBool) -> Result<()> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        self.hash_some(file, &all, cancel)
    }

    /// Takes the hashes of what was rendered, and reads and hashes only the
    /// members whose hashes are not known.
    ///
    /// # Errors
    /// Names the first member that cannot be read.
    pub(crate) fn take_rendered(
        &mut self,
        file: &File,
        rendered: &RenderedHashes,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let mut unknown = Vec::new();
        for (at, member) in self.members.iter_mut().enumerate() {
            let (head, data) = member.rendered(rendered);
            match (head, data) {
                (Some(head), Some(data)) => (member.head, member.data) = (head, data),
                _ => unknown.push(at),
            }
        }
        self.hash_some(file, &unknown, cancel)
    }

    /// Returns messages for the members that are not as they were rendered.
    pub(crate) fn differing(&self, rendered: &RenderedHashes) -> Vec<String> {
        let members = self.members.iter().enumerate();
        let differing = members.filter(|(_, member)| {
            let (head, data) = member.rendered(rendered);
            head.is_some_and(|head| head != member.head)
                || data.is_some_and(|data| data != member.data)
        });
        differing
            .map(|(at, _)| format!("{}: it is not what was written", self.path(at)))
            .collect()
    }

    fn hash_some(&mut self, file: &File, which: &[usize], cancel: &AtomicBool) -> Result<()> {
        let hashed = Mutex::new(Vec::with_capacity(which.len()));
        let members = which.iter().map(|at| (*at, self.members[*at]));
        let hashing = (file, self.algorithm);
        hash_members(hashing, members, cancel, |at, hashes| {
            let hashes = hashes.with_context(|| format!("cannot read {}", self.path(at)))?;
            let mut hashed = hashed.lock().unwrap_or_else(PoisonError::into_inner);
            hashed.push((at, hashes));
            Ok(())
        })?;
        for (at, (data, head)) in hashed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let member = &mut self.members[at];
            (member.data, member.head) = (data, head);
        }
        Ok(())
    }

    /// Reads the sidecar of the archive at `path`, which has this length; `None` if there is
    /// none.
    pub fn read_sidecar(path: &Path, archive_bytes: u64) -> Option<Result<Sums>> {
        let opened = Sums::open_sidecar(path, archive_bytes)?;
        Some(opened.map(|(sums, _)| sums))
    }

    /// Does the same, and returns the open file, too.
    pub fn open_sidecar(path: &Path, archive_bytes: u64) -> Option<Result<(Sums, File)>> {
        let read = open_text(path, archive_bytes)?;
        let parsed = |(text, file): (String, File)| Ok((Sums::parse(&text)?, file));
        Some(read.map_err(Into::into).and_then(parsed))
    }

    /// Reads the text of the sidecar of the archive at `path`; `None` if there is none.
    pub fn read_text(path: &Path, archive_bytes: u64) -> Option<io::Result<String>> {
        Some(open_text(path, archive_bytes)?.map(|(text, _)| text))
    }

    /// Returns the hash of the data of the `at`th member. `None` if it has no data, or
    /// is another member than the one that the sums have there.
    pub fn content(&self, at: usize, member: &Member) -> Option<ContentHash> {
        let sum = self.members.get(at)?;
        let is_it = sum.start == member.start
            && sum.data_start() == member.data
            && sum.data_bytes == member.stored_bytes
            && sum.data_bytes > 0;
        is_it.then(|| ContentHash::new(self.algorithm, sum.data))
    }

    /// Returns the path, the length and the hash of the data of each member that has data.
    pub fn contents(&self) -> impl Iterator<Item = (&str, u64, ContentHash)> {
        let members = self.members.iter().enumerate();
        let with_data = members.filter(|(_, sum)| sum.data_bytes > 0);
        with_data.map(|(at, sum)| {
            let hash = ContentHash::new(self.algorithm, sum.data);
            (self.path(at), sum.data_bytes, hash)
        })
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
        let mut all = blake3::Hasher::new();
        let mut put = |line: String| {
            all.update(line.as_bytes());
            out.write_all(line.as_bytes())
        };
        debug_assert_eq!(self.algorithm, Algorithm::Blake3);
        put(format!("{FIRST_LINE} 2 {}\n", self.archive_bytes))?;
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
        writeln!(out, "end {}", hex(all.finalize().as_bytes()))
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
        let first = lines.lines().next().and_then(|line| {
            let (format, bytes) = line.strip_prefix(FIRST_LINE)?.trim().split_once(' ')?;
            Some((format, bytes.parse().ok()?))
        });
        let (algorithm, archive_bytes) = match first {
            Some(("1", bytes)) => (Algorithm::Sha256, bytes),
            Some(("2", bytes)) => (Algorithm::Blake3, bytes),
            _ => bail!("its format is unknown"),
        };
        ensure!(
            last.trim_end() == format!("end {}", hex(&algorithm.digest(lines.as_bytes()))),
            "it is damaged"
        );
        let mut sums = Sums {
            archive_bytes,
            algorithm,
            ..Sums::default()
        };
        let mut end = 0;
        for line in lines.lines().skip(1) {
            let (member, path) = parse_line(line).context("it has a malformed line")?;
            // Otherwise all of the archive might be read for each line.
            ensure!(member.start >= end, "it has members that overlap");
            end = member.end();
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
        let members = self.members.iter().copied().enumerate();
        hash_members((file, self.algorithm), members, cancel, |at, hashes| {
            let was = &self.members[at];
            let what = match hashes {
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

/// Reads the text of the sidecar of an archive. An archive that is not of the store may have
/// anything beside it.
fn open_text(path: &Path, archive_bytes: u64) -> Option<io::Result<(String, File)>> {
    let bytes_max = archive_bytes.saturating_mul(BYTES_PER_BYTE);
    let bytes_max = bytes_max.saturating_add(BYTES_MIN);
    let read = |file: File| {
        let mut text = String::new();
        let read_bytes = (&file).take(bytes_max).read_to_string(&mut text)?;
        match (read_bytes as u64) < bytes_max {
            true => Ok((text, file)),
            false => Err(io::Error::other("it is too long for its archive")),
        }
    };
    match open_regular_linked(&path.with_extension("sums")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.and_then(read)),
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
