//! The sidecar: what every member of an archive was when it was written, so
//! that damage found later can be told by the file.
//!
//! A line for each member: SHA-256 of its data (as `sha256sum` has it, but for
//! sparse files, of which the holes are left out), the first 16 digits of the
//! SHA-256 of its headers and padding, where it begins, the lengths of headers
//! and of data, its path.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::{BLOCK_BYTES, Input, Member, Reader};
use crate::capture::display_path;

const FIRST_LINE: &str = "docker-stack-backup sums 1";
/// Digits of the hash of headers.
const HEAD_DIGITS: usize = 16;
const READ_BYTES: usize = 1 << 20;

/// The sums of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    pub archive_bytes: u64,
    pub members: Vec<MemberSum>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSum {
    /// For people, and to find it again: as [`display_path`] shows it.
    pub path: String,
    pub start: u64,
    /// All before the data.
    pub head_bytes: u64,
    pub data_bytes: u64,
    /// Lower-case hexadecimal; of no data, `-`.
    pub data: String,
    pub head: String,
}

impl Sums {
    /// Reads the whole archive, with several threads.
    ///
    /// # Errors
    /// Names the member that cannot be read, or whose structure is damaged.
    pub fn of(file: &File, cancel: &AtomicBool) -> Result<Sums> {
        let mut reader = Reader::new(Input::File(file))?;
        let mut members = Vec::new();
        while let Some(member) = reader.next_member()? {
            members.push(Part::of(&member));
        }
        ensure!(
            reader.ends_with_zeros()?,
            "data follows the end of the archive"
        );
        Ok(Sums {
            archive_bytes: file.metadata()?.len(),
            members: hash_all(file, &members, cancel, OnError::End)?
                .into_iter()
                .flatten()
                .collect(),
        })
    }

    /// Of the archive at `path`; `None` if there are none.
    pub fn beside(path: &Path) -> Option<Result<Sums>> {
        match std::fs::read_to_string(path.with_extension("sums")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            text => Some(text.map_err(Into::into).and_then(|text| Sums::parse(&text))),
        }
    }

    /// As the sidecar holds them; the last line is of all that is before it.
    pub fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE} {}\n", self.archive_bytes);
        for sum in &self.members {
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                text,
                "{} {} {} {} {} {}",
                sum.data, sum.head, sum.start, sum.head_bytes, sum.data_bytes, sum.path
            );
        }
        let all = hex(&Sha256::digest(text.as_bytes()));
        text + "end " + &all + "\n"
    }

    /// # Errors
    /// When it is damaged, or of another format.
    pub fn parse(text: &str) -> Result<Sums> {
        let (lines, all) = text
            .trim_end()
            .rsplit_once("\nend ")
            .context("its end is missing")?;
        let lines = format!("{lines}\n");
        ensure!(
            hex(&Sha256::digest(lines.as_bytes())) == all,
            "it is damaged"
        );
        let mut lines = lines.lines();
        let first = lines
            .next()
            .and_then(|line| line.strip_prefix(FIRST_LINE))
            .context("its format is not known")?;
        let archive_bytes = first.trim().parse()?;
        let members = lines
            .map(parse_line)
            .collect::<Option<_>>()
            .context("a line of it is not understood")?;
        Ok(Sums {
            archive_bytes,
            members,
        })
    }

    /// Reads the members where they were written, whatever their headers say
    /// now: a line for each that is not as it was.
    ///
    /// # Errors
    /// Only when interrupted: what cannot be read is damaged.
    pub fn damaged(&self, file: &File, cancel: &AtomicBool) -> Result<Vec<String>> {
        let parts: Vec<Part> = self.members.iter().map(Part::of_sum).collect();
        let now = hash_all(file, &parts, cancel, OnError::GoOn)?;
        let difference = |(was, now): (&MemberSum, &Option<MemberSum>)| match now {
            None => Some(format!("{}: it cannot be read", was.path)),
            Some(now) if now.data != was.data => Some(format!("{}: its data is damaged", was.path)),
            Some(now) if now != was => Some(format!("{}: its headers are damaged", was.path)),
            Some(_) => None,
        };
        Ok(self
            .members
            .iter()
            .zip(&now)
            .filter_map(difference)
            .collect())
    }
}

fn parse_line(line: &str) -> Option<MemberSum> {
    let mut fields = line.splitn(6, ' ');
    let mut field = || fields.next();
    Some(MemberSum {
        data: field()?.to_owned(),
        head: field()?.to_owned(),
        start: field()?.parse().ok()?,
        head_bytes: field()?.parse().ok()?,
        data_bytes: field()?.parse().ok()?,
        path: field()?.to_owned(),
    })
}

/// A member, as far as it is needed here.
struct Part {
    path: String,
    start: u64,
    data: u64,
    stored_bytes: u64,
    end: u64,
}

impl Part {
    fn of(member: &Member) -> Part {
        Part {
            path: display_path(&member.path),
            start: member.start,
            data: member.data,
            stored_bytes: member.stored_bytes,
            end: member.end(),
        }
    }

    fn of_sum(sum: &MemberSum) -> Part {
        let data = sum.start.saturating_add(sum.head_bytes);
        let end = data.saturating_add(sum.data_bytes);
        Part {
            path: sum.path.clone(),
            start: sum.start,
            data,
            stored_bytes: sum.data_bytes,
            end: end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum OnError {
    End,
    GoOn,
}

/// In the order of `parts`; `None` where it could not be read.
fn hash_all(
    file: &File,
    parts: &[Part],
    cancel: &AtomicBool,
    on_error: OnError,
) -> Result<Vec<Option<MemberSum>>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(parts.len()));
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8);
    let work = || -> Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(at) else {
                return Ok(());
            };
            if cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let sum = match hash(file, part, &mut buffer, cancel) {
                Ok(sum) => Some(sum),
                Err(_) if on_error == OnError::GoOn && !cancel.load(Ordering::Relaxed) => None,
                Err(error) => return Err(error.context(format!("read {}", part.path))),
            };
            done.lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .push((at, sum));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results
            .map(|result| result.unwrap_or_else(|_| bail!("a thread panicked")))
            .collect::<Result<Vec<()>>>()
    })?;
    let mut done = done
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, sum)| sum).collect())
}

fn hash(file: &File, part: &Part, buffer: &mut [u8], cancel: &AtomicBool) -> Result<MemberSum> {
    let data_end = part.data + part.stored_bytes;
    let mut head = Sha256::new();
    hash_range(file, part.start, part.data, buffer, &mut head, cancel)?;
    hash_range(file, data_end, part.end, buffer, &mut head, cancel)?;
    let data = if part.stored_bytes == 0 {
        "-".to_owned()
    } else {
        let mut data = Sha256::new();
        hash_range(file, part.data, data_end, buffer, &mut data, cancel)?;
        hex(&data.finalize())
    };
    Ok(MemberSum {
        path: part.path.clone(),
        start: part.start,
        head_bytes: part.data - part.start,
        data_bytes: part.stored_bytes,
        data,
        head: hex(&head.finalize())[..HEAD_DIGITS].to_owned(),
    })
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

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_back_and_damage_is_seen() {
        let sum = |path: &str, start| MemberSum {
            path: path.to_owned(),
            start,
            head_bytes: 512,
            data_bytes: 0,
            data: "-".to_owned(),
            head: "0123456789abcdef".to_owned(),
        };
        let sums = Sums {
            archive_bytes: 4096,
            members: vec![sum("a b\\nc", 0), sum("d", 512)],
        };
        let text = sums.to_text();
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
