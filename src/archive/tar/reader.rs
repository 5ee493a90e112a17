//! Reads any tar file member by member: ours, GNU tar's, and what else is
//! ustar, pax or GNU. Nothing in it is trusted: all sizes are checked before
//! they are used, and an error names the member.
//!
//! Own code, because the `tar` crate takes pax records apart at newlines and
//! does not know sparse format 1.0.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::tar::decode::{Block, Header, Pairs, sparse_extension};
use crate::archive::tar::{BLOCK_BYTES, acl, pax};
use crate::scan::Extent;
use crate::sys::format::display_path;

/// Of an extended header or a GNU long name. The kernel allows 64 KiB for one
/// attribute's value and for the names of all; ext4 and XFS hold less.
const EXTENDED_BYTES_MAX: u64 = 16 << 20;
/// Before one member.
const EXTENDED_COUNT_MAX: usize = 16;
/// Of a sparse file.
const EXTENT_COUNT_MAX: usize = 4 << 20;
/// Of a path or the target of a link.
const NAME_BYTES_MAX: usize = 1 << 20;
const BUFFER_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    HardLink,
    Symlink,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// A member as the archive has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As it is written, but for slashes at its end.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes by the kernel's names, ACLs and capabilities too.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of the file.
    pub file_bytes: u64,
    /// Bytes of it that are in the archive, from `data` on.
    pub stored_bytes: u64,
    /// Where these belong, for a sparse file.
    pub extents: Option<Vec<Extent>>,
    /// Where its first header begins, in bytes from the archive's start.
    pub start: u64,
    pub data: u64,
}

impl Member {
    /// Where the next member's header begins.
    pub fn end(&self) -> u64 {
        self.data + self.stored_bytes.next_multiple_of(BLOCK_BYTES)
    }

    /// For messages.
    pub fn name(&self) -> String {
        display_path(&self.path)
    }
}

pub enum Input<'a> {
    /// Data that is not asked for is skipped without being read.
    File(&'a File),
    Stream(Box<dyn Read + Send + 'a>),
}

pub struct Reader<'a> {
    input: Input<'a>,
    buffer: Vec<u8>,
    /// What of the buffer is not used yet.
    filled: std::ops::Range<usize>,
    /// Of the next unused byte.
    position: u64,
    /// Length of a file.
    length: Option<u64>,
    /// Of the member last returned: end of its data, and of its padding.
    data_end: u64,
    member_end: u64,
    globals: Records,
    /// For messages about a member whose name is not known yet.
    last_name: String,
    ended: bool,
}

/// Pax records, the last of each keyword; sparse format 0.0 repeats two.
#[derive(Clone, Debug, Default)]
struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl<'a> Reader<'a> {
    /// # Errors
    /// When the length of a file cannot be asked for.
    pub fn new(input: Input<'a>) -> Result<Reader<'a>> {
        let length = match &input {
            Input::File(file) => Some(file.metadata()?.len()),
            Input::Stream(_) => None,
        };
        Ok(Reader {
            input,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0..0,
            position: 0,
            length,
            data_end: 0,
            member_end: 0,
            globals: Records::default(),
            last_name: String::new(),
            ended: false,
        })
    }

    /// The next member; `None` after the last. What is left of the data of the
    /// one before is skipped.
    ///
    /// # Errors
    /// Names the member that is damaged, cut, or of a kind that is not known.
    /// Nothing more can be read after that.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        if self.ended {
            return Ok(None);
        }
        let start = self.member_end;
        let after = std::mem::take(&mut self.last_name);
        let place = || match after.as_str() {
            "" => format!("read the header at byte {start}"),
            name => format!("read the header after {name} (at byte {start})"),
        };
        self.skip_to(start).with_context(place)?;
        let member = self.read_member(start).with_context(place)?;
        match &member {
            Some(member) => {
                self.last_name = member.name();
                self.data_end = member.data + member.stored_bytes;
                self.member_end = member.end();
                if let Some(length) = self.length {
                    ensure!(
                        member
                            .data
                            .checked_add(member.stored_bytes)
                            .is_some_and(|end| end <= length),
                        "{}: the archive ends within its data",
                        member.name()
                    );
                }
            }
            None => self.ended = true,
        }
        Ok(member)
    }

    /// Reads from the data of the member last returned; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left =
            usize::try_from(self.data_end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.read_some(&mut buffer[..wanted])?;
        ensure!(
            got > 0,
            "{}: the archive ends within its data",
            self.last_name
        );
        Ok(got)
    }

    /// After the last member: whether nothing but zeros follows. Reads to the
    /// end of the archive.
    pub fn ends_with_zeros(&mut self) -> Result<bool> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut only_zeros = true;
        loop {
            match self.read_some(&mut buffer)? {
                0 => return Ok(only_zeros),
                got => only_zeros &= buffer[..got].iter().all(|byte| *byte == 0),
            }
        }
    }

    fn read_member(&mut self, start: u64) -> Result<Option<Member>> {
        let mut records = self.globals.clone();
        let (mut long_path, mut long_link) = (None, None);
        for count in 0.. {
            ensure!(
                count < EXTENDED_COUNT_MAX,
                "more than {EXTENDED_COUNT_MAX} extended headers for one member"
            );
            let Some(block) = self.header_block(count == 0)? else {
                return Ok(None);
            };
            let header = Header::new(&block)?;
            match header.kind() {
                b'x' | b'X' => records.update(&self.extended(&header)?)?,
                b'g' => {
                    let body = self.extended(&header)?;
                    self.globals.update(&body)?;
                    records.update(&body)?;
                }
                b'L' => long_path = Some(c_string(self.extended(&header)?)),
                b'K' => long_link = Some(c_string(self.extended(&header)?)),
                // A volume label is no member.
                b'V' => {}
                _ => {
                    let path = long_path.unwrap_or_else(|| header.path());
                    let link = long_link.unwrap_or_else(|| header.link());
                    let named = records.name().unwrap_or(&path);
                    let name = display_path(&named[..named.len().min(NAME_BYTES_MAX)]);
                    let member = self.member(start, &header, &records, path, link);
                    return member.map(Some).context(name);
                }
            }
        }
        Ok(None)
    }

    /// `None` at the two blocks of zeros that end an archive.
    fn header_block(&mut self, may_end: bool) -> Result<Option<Block>> {
        let mut block = [0; BLOCK_BYTES as usize];
        self.read_exact(&mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        ensure!(may_end, "an extended header without its member");
        self.read_exact(&mut block)?;
        ensure!(
            block.iter().all(|byte| *byte == 0),
            "a block of zeros where a header should be"
        );
        Ok(None)
    }

    /// The body of an extended header.
    fn extended(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let bytes = header.size()?;
        ensure!(
            bytes <= EXTENDED_BYTES_MAX,
            "an extended header of {bytes} bytes is not taken"
        );
        let mut body = vec![0; bytes.next_multiple_of(BLOCK_BYTES) as usize];
        self.read_exact(&mut body)?;
        body.truncate(bytes as usize);
        Ok(body)
    }

    fn member(
        &mut self,
        start: u64,
        header: &Header<'_>,
        records: &Records,
        path: Vec<u8>,
        link: Vec<u8>,
    ) -> Result<Member> {
        let mut path = records.name().map_or(path, <[u8]>::to_vec);
        let is_slashed = path.ends_with(b"/");
        let kind = match header.kind() {
            // Before POSIX a directory was told by its slash only.
            0 if is_slashed => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => bail!("members of type {:?} are not known", char::from(other)),
        };
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        let link = records.get(b"linkpath").map_or(link, <[u8]>::to_vec);
        ensure!(
            path.len() <= NAME_BYTES_MAX && link.len() <= NAME_BYTES_MAX,
            "its name is longer than {NAME_BYTES_MAX} bytes"
        );
        let size = match records.number(b"size")? {
            Some(size) => size,
            None => header.size()?,
        };
        ensure!(
            kind == Kind::File || size == 0,
            "it has {size} bytes of data, but is no regular file"
        );
        ensure!(size <= i64::MAX as u64 / 2, "its size {size} cannot be");
        let (mtime_s, mtime_ns) = match records.get(b"mtime") {
            Some(text) => time(text).context("its mtime is no number")?,
            None => (header.mtime()?, 0),
        };
        let owner = |keyword: &[u8], own: Result<u64>| {
            let id = match records.number(keyword)? {
                Some(id) => id,
                None => own?,
            };
            // The kernel takes the last one for "no change".
            let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            id.context("its owner cannot be")
        };
        let mut member = Member {
            path,
            kind,
            mode: header.mode()?,
            uid: owner(b"uid", header.uid())?,
            gid: owner(b"gid", header.gid())?,
            mtime_s,
            mtime_ns,
            link,
            device: header.device()?,
            attributes: records.attributes()?,
            file_bytes: size,
            stored_bytes: size,
            extents: None,
            start,
            data: self.position,
        };
        if kind == Kind::File {
            self.sparse(&mut member, header, records)?;
        }
        Ok(member)
    }

    /// Fills in where the data of a sparse file belongs.
    fn sparse(
        &mut self,
        member: &mut Member,
        header: &Header<'_>,
        records: &Records,
    ) -> Result<()> {
        let (pairs, file_bytes) = if header.kind() == b'S' {
            self.old_sparse(header)?
        } else if records.get(b"GNU.sparse.major").is_some() {
            let version = (
                records.number(b"GNU.sparse.major")?,
                records.number(b"GNU.sparse.minor")?,
            );
            ensure!(
                version == (Some(1), Some(0)),
                "its sparse format is not known"
            );
            let size = records.number(b"GNU.sparse.realsize")?;
            (
                self.sparse_map(member.stored_bytes)?,
                size.context("it has no real size")?,
            )
        } else if let Some(size) = records.number(b"GNU.sparse.size")? {
            (records.sparse_pairs()?, size)
        } else {
            return Ok(());
        };
        let map_bytes = self.position - member.data;
        // Extension blocks of the old format are not part of the size.
        let data_bytes = match header.kind() {
            b'S' => member.stored_bytes,
            _ => member
                .stored_bytes
                .checked_sub(map_bytes)
                .context("its sparse map is longer than its data")?,
        };
        let extents = checked_extents(&pairs, file_bytes)?;
        let stored = extents.last().map_or(0, |last| last.stored + last.bytes);
        ensure!(
            stored == data_bytes,
            "its sparse map tells of {stored} bytes, {data_bytes} are there"
        );
        member.data = self.position;
        member.file_bytes = file_bytes;
        member.stored_bytes = data_bytes;
        member.extents = Some(extents);
        Ok(())
    }

    fn old_sparse(&mut self, header: &Header<'_>) -> Result<(Pairs, u64)> {
        let (mut pairs, mut continues, size) = header.old_sparse()?;
        while continues {
            ensure!(pairs.len() < EXTENT_COUNT_MAX, "its sparse map is too long");
            let mut block = [0; BLOCK_BYTES as usize];
            self.read_exact(&mut block)?;
            let (more, goes_on) = sparse_extension(&block)?;
            ensure!(!more.is_empty(), "its sparse map is damaged");
            pairs.extend(more);
            continues = goes_on;
        }
        Ok((pairs, size))
    }

    /// The map of sparse format 1.0, at the front of `stored_bytes` of data.
    fn sparse_map(&mut self, stored_bytes: u64) -> Result<Pairs> {
        let mut blocks_left = stored_bytes.div_ceil(BLOCK_BYTES);
        let mut block = [0; BLOCK_BYTES as usize];
        let mut used = block.len();
        let mut number = || -> Result<u64> {
            let mut value: Option<u64> = None;
            loop {
                if used == block.len() {
                    ensure!(blocks_left > 0, "its sparse map is longer than its data");
                    self.read_exact(&mut block)?;
                    (blocks_left, used) = (blocks_left - 1, 0);
                }
                let byte = block[used];
                used += 1;
                value = match byte {
                    b'0'..=b'9' => {
                        let next = value.unwrap_or(0).checked_mul(10);
                        Some(
                            next.and_then(|v| v.checked_add(u64::from(byte - b'0')))
                                .context("its sparse map is damaged")?,
                        )
                    }
                    b'\n' => return value.context("its sparse map is damaged"),
                    _ => bail!("its sparse map is damaged"),
                };
            }
        };
        let count = number()?;
        ensure!(
            count <= EXTENT_COUNT_MAX as u64,
            "its sparse map is too long"
        );
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((number()?, number()?));
        }
        Ok(pairs)
    }

    fn skip_to(&mut self, position: u64) -> Result<()> {
        let mut left = position - self.position;
        let buffered = left.min(self.filled.len() as u64);
        self.filled.start += buffered as usize;
        self.position += buffered;
        left -= buffered;
        if left > 0 && matches!(self.input, Input::File(_)) {
            self.position += left;
            return Ok(());
        }
        while left > 0 {
            let got = self
                .fill()?
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            ensure!(got > 0, "the archive ends early");
            self.filled.start += got;
            self.position += got as u64;
            left -= got as u64;
        }
        Ok(())
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut got = 0;
        while got < buffer.len() {
            let more = self.read_some(&mut buffer[got..])?;
            ensure!(more > 0, "the archive ends early");
            got += more;
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.filled.is_empty() && buffer.len() >= BUFFER_BYTES {
            let got = self.read_input(buffer)?;
            self.position += got as u64;
            return Ok(got);
        }
        let got = self.fill()?.min(buffer.len());
        let start = self.filled.start;
        buffer[..got].copy_from_slice(&self.buffer[start..start + got]);
        self.filled.start += got;
        self.position += got as u64;
        Ok(got)
    }

    /// How much is in the buffer; 0 at the end of the input.
    fn fill(&mut self) -> Result<usize> {
        if self.filled.is_empty() {
            let mut buffer = std::mem::take(&mut self.buffer);
            let got = self.read_input(&mut buffer);
            self.buffer = buffer;
            self.filled = 0..got?;
        }
        Ok(self.filled.len())
    }

    fn read_input(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let got = match &mut self.input {
                Input::File(file) => file.read_at(buffer, self.position),
                Input::Stream(stream) => stream.read(buffer),
            };
            match got {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => return got.context("read the archive"),
            }
        }
    }
}

impl Records {
    fn update(&mut self, body: &[u8]) -> Result<()> {
        for record in pax::records(body) {
            let (keyword, value) = record.context("a damaged extended header")?;
            let repeats = matches!(keyword, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
            if !repeats {
                self.0.retain(|(known, _)| known != keyword);
            }
            // An empty value takes a global record back (POSIX); attributes
            // may be empty.
            if !value.is_empty() || keyword.starts_with(b"SCHILY.xattr.") {
                self.0.push((keyword.to_vec(), value.to_vec()));
            }
        }
        Ok(())
    }

    fn get(&self, keyword: &[u8]) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| known == keyword);
        found.map(|(_, value)| &value[..])
    }

    fn name(&self) -> Option<&[u8]> {
        self.get(b"GNU.sparse.name").or_else(|| self.get(b"path"))
    }

    fn number(&self, keyword: &[u8]) -> Result<Option<u64>> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        let number = decimal(value);
        let keyword = display_path(keyword);
        number
            .map(Some)
            .with_context(|| format!("its {keyword} is no number"))
    }

    fn attributes(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut attributes = Vec::new();
        for (keyword, value) in &self.0 {
            let acl = match &keyword[..] {
                b"SCHILY.acl.access" => "system.posix_acl_access",
                b"SCHILY.acl.default" => "system.posix_acl_default",
                _ => {
                    if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                        let name = pax::attribute_name(name);
                        ensure!(
                            !name.contains(&0) && !name.is_empty(),
                            "an attribute without a usable name"
                        );
                        attributes.push((name, value.clone()));
                    }
                    continue;
                }
            };
            let value = acl::to_binary(value).context("its ACL cannot be understood")?;
            attributes.push((acl.as_bytes().to_vec(), value));
        }
        Ok(attributes)
    }

    /// Of the sparse formats 0.0 and 0.1 (GNU tar manual, "PAX Format, Versions
    /// 0.0 and 0.1").
    fn sparse_pairs(&self) -> Result<Pairs> {
        let numbers: Option<Vec<u64>> = match self.get(b"GNU.sparse.map") {
            Some(map) => map.split(|byte| *byte == b',').map(decimal).collect(),
            None => {
                let is_part = |keyword: &[u8]| {
                    matches!(keyword, b"GNU.sparse.offset" | b"GNU.sparse.numbytes")
                };
                let parts = self.0.iter().filter(|(keyword, _)| is_part(keyword));
                parts.map(|(_, value)| decimal(value)).collect()
            }
        };
        let numbers = numbers.context("its sparse map is damaged")?;
        ensure!(numbers.len() % 2 == 0, "its sparse map is damaged");
        Ok(numbers
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect())
    }
}

/// In order, apart, within the file.
fn checked_extents(pairs: &[(u64, u64)], file_bytes: u64) -> Result<Vec<Extent>> {
    let mut extents = Vec::with_capacity(pairs.len());
    let (mut end, mut stored) = (0, 0);
    for (offset, bytes) in pairs {
        let next_end = offset
            .checked_add(*bytes)
            .filter(|next| *next <= file_bytes);
        let Some(next_end) = next_end.filter(|_| *offset >= end) else {
            bail!("its sparse map overlaps, or goes beyond its size");
        };
        if *bytes > 0 {
            extents.push(Extent {
                offset: *offset,
                bytes: *bytes,
                stored,
            });
        }
        (end, stored) = (next_end, stored + bytes);
    }
    ensure!(
        file_bytes <= i64::MAX as u64,
        "its size {file_bytes} cannot be"
    );
    Ok(extents)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let is_plain = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| is_plain)?
        .parse()
        .ok()
}

/// Seconds since 1970 with a fraction; what is finer than a nanosecond is cut.
/// The nanoseconds count forward, also before 1970.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let s = i64::try_from(decimal(whole.as_bytes())?).ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ns: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    Some(match (is_negative, ns) {
        (false, _) => (s, ns),
        (true, 0) => (-s, 0),
        (true, _) => (-s - 1, 1_000_000_000 - ns),
    })
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"7.1234567899"), Some((7, 123_456_789)));
        for wrong in [
            &b""[..],
            b"x",
            b"1.x",
            b".5",
            b"--1",
            b"1e3",
            b"99999999999999999999",
        ] {
            assert_eq!(time(wrong), None);
        }
    }
}
