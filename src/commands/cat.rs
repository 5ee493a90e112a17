//! `cat`: one file of an archive, on standard output.

use std::io::{ErrorKind, IsTerminal as _};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::look::LookedInto;
use crate::archive::tree::{FileData, NodeKind};
use crate::cli::Global;
use crate::outcome::ExitStatus;
use crate::sys::format::{display_path, without_commands};
use crate::sys::outlet::write_stdout;

const READ_BYTES: usize = 256 << 10;

pub fn cat(global: &Global, what: &str, pass_over: bool) -> Result<ExitStatus> {
    let (archive, path) = split(what)?;
    let looked = LookedInto::open(global, archive, pass_over)?;
    let (id, member) = looked.find(Path::new(path))?;
    let member = display_path(&member);
    let data = match &looked.tree.node(id).kind {
        NodeKind::File(data) => data,
        NodeKind::Symlink(target) => bail!(
            "{member} is a symlink to {}, which is not followed: name what it leads to",
            display_path(target)
        ),
        kind => bail!("{member} is not a file, but a {}", kind.name()),
    };
    let is_sound = write(&looked, data)
        .with_context(|| format!("cannot write {member} of {}", looked.name()))?;
    if is_sound {
        return Ok(ExitStatus::Ok);
    }
    tracing::error!("{member} is damaged: it is not what was archived (`verify` names all damage)");
    Ok(ExitStatus::Incomplete)
}

/// Splits `STACK[@TIME]:PATH` or `ARCHIVE.tar:PATH`. A time may have colons, so the
/// path begins at the last one among the characters of a time.
fn split(what: &str) -> Result<(&str, &str)> {
    let usage = "name a file of an archive as STACK:PATH, STACK@TIME:PATH or ARCHIVE.tar:PATH";
    let first = what.find(':').context(usage)?;
    let is_file = what[..first].contains('/') || what[..first].ends_with(".tar");
    let at = if is_file {
        what.find(".tar:").context(usage)? + ".tar".len()
    } else if let Some(time) = what[..first].find('@') {
        let is_of_time = |c: char| c.is_ascii_digit() || "-_:T ".contains(c);
        let time_bytes = what[time + 1..].find(|c| !is_of_time(c));
        let end = time_bytes.map_or(what.len(), |bytes| time + 1 + bytes);
        what[..end].rfind(':').context(usage)?
    } else {
        first
    };
    let (archive, path) = (&what[..at], &what[at + 1..]);
    ensure!(!archive.is_empty() && !path.is_empty(), usage);
    Ok((archive, path))
}

/// Writes the file's content, and returns whether it is what was archived, as far as
/// that is known. It ends early if nobody reads any more, as `head` does.
fn write(looked: &LookedInto, data: &FileData) -> Result<bool> {
    let file = looked.file()?;
    let mut out = Output::new();
    let mut checker = data.hash.map(|hash| hash.checker());
    let mut buffer = vec![0; READ_BYTES];
    let mut position = 0;
    for extent in data.data_extents() {
        out.zeros(extent.offset - position)?;
        let mut done = 0;
        while done < extent.bytes {
            if out.is_closed {
                return Ok(true);
            }
            let wanted = (extent.bytes - done).min(READ_BYTES as u64) as usize;
            let part = &mut buffer[..wanted];
            data.read_at(file, part, extent.offset + done)?;
            if let Some(checker) = &mut checker {
                checker.update(part);
            }
            out.write(part)?;
            done += wanted as u64;
        }
        position = extent.offset + extent.bytes;
    }
    out.zeros(data.file_bytes - position)?;
    out.finish()?;
    Ok(checker.is_none_or(|checker| checker.is_sound()))
}

/// Standard output: as it is, or without what would command a terminal.
struct Output {
    is_terminal: bool,
    is_closed: bool,
    /// The beginning of a character whose rest comes with the next bytes.
    unfinished: Vec<u8>,
}

impl Output {
    fn new() -> Output {
        Output {
            is_terminal: std::io::stdout().is_terminal(),
            is_closed: false,
            unfinished: Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.is_terminal {
            return self.put(bytes);
        }
        let mut all = std::mem::take(&mut self.unfinished);
        all.extend_from_slice(bytes);
        let end = all.len() - unfinished_bytes(&all);
        self.unfinished = all.split_off(end);
        self.put(without_commands(&String::from_utf8_lossy(&all)).as_bytes())
    }

    /// Writes a hole, which may be as large as a hostile archive says.
    fn zeros(&mut self, mut count: u64) -> Result<()> {
        let zeros = [0; 64 << 10];
        while count > 0 && !self.is_closed {
            let part = count.min(zeros.len() as u64);
            self.write(&zeros[..part as usize])?;
            count -= part;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.unfinished);
        self.put(String::from_utf8_lossy(&rest).as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_closed {
            return Ok(());
        }
        match write_stdout(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            written => Ok(written?),
        }
    }
}

/// Returns how many bytes at the end may be the beginning of a character.
fn unfinished_bytes(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let invalid = last.map_or(0, |chunk| chunk.invalid().len());
    if invalid > 0
        && std::str::from_utf8(&bytes[bytes.len() - invalid..])
            .is_err_and(|e| e.error_len().is_none())
    {
        invalid
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{split, unfinished_bytes};

    #[test]
    fn an_archive_and_a_path_are_told_apart() {
        for (what, archive, path) in [
            ("web:.env", "web", ".env"),
            ("web:/srv/web/a:b", "web", "/srv/web/a:b"),
            (
                "web@2026-11-24T03:15:html/x",
                "web@2026-11-24T03:15",
                "html/x",
            ),
            ("web@20261124:7/x", "web@20261124", "7/x"),
            ("./a.tar:web/x", "./a.tar", "web/x"),
            ("/mnt/b:c/a.tar:/srv/x", "/mnt/b:c/a.tar", "/srv/x"),
            ("web:/srv/a.tar:b", "web", "/srv/a.tar:b"),
        ] {
            assert_eq!(split(what).unwrap(), (archive, path), "{what}");
        }
        for wrong in ["web", "web:", ":x", "/mnt/x:y", "web@2026"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let text = "a\u{20ac}".as_bytes();
        for (bytes, unfinished) in [(4, 0), (3, 2), (2, 1), (1, 0)] {
            assert_eq!(unfinished_bytes(&text[..bytes]), unfinished);
        }
        assert_eq!(unfinished_bytes(b"a\xff"), 0);
    }
}
