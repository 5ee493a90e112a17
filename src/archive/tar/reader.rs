//! Reads any tar file member by member: those of this program, of GNU tar, and
//! all others in the ustar, pax or GNU format. Nothing in an archive is trusted:
//! all sizes are checked before they are used, and an error names the member.
//!
//! This is our own code because the `tar` crate splits pax records at newlines
//! and does not know sparse format 1.0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, ensure};

use crate::archive::tar::BLOCK_BYTES;
use crate::archive::tar::header::{Header, TarBlock};
use crate::archive::tar::input::{BufferedInput, Input};
use crate::archive::tar::member::{Headers, Member};
use crate::archive::tar::records::{PaxRecords, RECORD_BYTES_MAX, Records};
use crate::sys::encryption::is_encrypted;
use crate::sys::progress;

/// A longer extended header, or GNU long name, is refused.
const EXTENDED_BYTES_MAX: u64 = RECORD_BYTES_MAX + (1 << 20);
/// More extended headers before one member are refused.
const EXTENDED_COUNT_MAX: usize = 16;
/// How the name of a manifest ends.
const MANIFEST_SUFFIX: &[u8] = b".manifest.json";
const BUFFER_BYTES: usize = 256 << 10;
/// Global headers apply to each member that follows. They may have this many bytes for all
/// members together, and as many more as the archive has up to there: otherwise a few
/// megabytes of members would be as much work as terabytes.
const GLOBAL_BYTES_MAX: u64 = 256 << 20;

/// Reads an archive from its first member to its last.
pub struct Reader<'a> {
    input: BufferedInput<'a>,
    /// Offset of the end of the last member's data.
    data_end: u64,
    /// Offset of the end of the last member, padding included.
    member_end: u64,
    globals: Arc<Records>,
    /// Bytes of the global records that applied to each member so far, in sum.
    global_bytes: u64,
    /// Name of the last member, for messages about the next one.
    last_name: String,
    has_ended: bool,
    /// Whether it is an archive of this program.
    needs_end: bool,
    lacks_end: bool,
}

impl<'a> Reader<'a> {
    /// # Errors
    /// When the length of a file cannot be read.
    pub fn new(input: Input<'a>) -> Result<Reader<'a>> {
        Reader::with_buffer(input, BUFFER_BYTES)
    }

    /// A reader that reads ahead by less than `buffer_bytes`.
    ///
    /// # Errors
    /// When the length of a file cannot be read.
    pub(crate) fn with_buffer(input: Input<'a>, buffer_bytes: usize) -> Result<Reader<'a>> {
        Ok(Reader {
            input: BufferedInput::new(input, buffer_bytes)?,
            data_end: 0,
            member_end: 0,
            globals: Arc::default(),
            global_bytes: 0,
            last_name: String::new(),
            has_ended: false,
            needs_end: false,
            lacks_end: false,
        })
    }

    /// Whether the input has no byte left: at the beginning, whether it is empty.
    pub(crate) fn is_at_end(&mut self) -> Result<bool> {
        self.input.is_at_end()
    }

    /// Reads the headers of the next member; `None` after the last member. The
    /// rest of the last member's data is skipped.
    ///
    /// # Errors
    /// Names the member that is damaged, truncated or of an unknown type. After
    /// an error nothing more can be read.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        match self.next_headers()? {
            Some(headers) => self.parse(headers).map(Some),
            None => Ok(None),
        }
    }

    /// Like [`next_member`](Reader::next_member), but only the path is parsed.
    /// [`parse`](Reader::parse) must follow before anything else is read.
    pub(crate) fn next_headers(&mut self) -> Result<Option<Headers>> {
        if self.has_ended {
            return Ok(None);
        }
        let start = self.member_end;
        self.input
            .skip_to(start)
            .with_context(|| self.place(start))?;
        let headers = self
            .read_headers(start)
            .with_context(|| self.place(start))?;
        self.has_ended = headers.is_none();
        Ok(headers)
    }

    /// Parses the headers that [`next_headers`](Reader::next_headers) returned.
    pub(crate) fn parse(&mut self, headers: Headers) -> Result<Member> {
        let (start, name) = (headers.start, headers.name());
        self.global_bytes += self.globals.bytes();
        ensure!(
            self.global_bytes <= GLOBAL_BYTES_MAX.saturating_add(start),
            "{}: {name}: the global headers that apply to it and the members before it are too many",
            self.place(start)
        );
        let member = Member::parse(headers, &mut self.input)
            .context(name)
            .with_context(|| self.place(start))?;
        self.last_name = member.name();
        self.data_end = member.data + member.stored_bytes;
        self.member_end = member.end();
        ensure!(
            !self.input.is_beyond_end(self.data_end),
            "{}: the archive ends within its data",
            self.last_name
        );
        Ok(member)
    }

    /// Reads from the data of the last member; returns 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = self.data_end.saturating_sub(self.input.position());
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..wanted])?;
        ensure!(
            got > 0,
            "{}: the archive ends within its data",
            self.last_name
        );
        Ok(got)
    }

    /// After the last member: whether only zeros follow. Reads to the end of
    /// the archive.
    ///
    /// # Errors
    /// When it cannot be read, or `interrupted` soon after `cancel` is set: a file may end
    /// with a hole of any length.
    pub fn ends_with_zeros(&mut self, cancel: &AtomicBool) -> Result<bool> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut only_zeros = true;
        loop {
            ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
            progress::step();
            match self.input.read(&mut buffer)? {
                0 => return Ok(only_zeros),
                got => only_zeros &= buffer[..got].iter().all(|byte| *byte == 0),
            }
        }
    }

    /// After the last member: whether the archive has no end of its own, so that it
    /// may have been cut.
    pub fn lacks_end(&self) -> bool {
        self.lacks_end
    }

    /// The context of an error in the header at `start`.
    fn place(&self, start: u64) -> String {
        match self.last_name.as_str() {
            "" => format!("cannot read the header at byte {start}"),
            name => format!("cannot read the header after {name} (at byte {start})"),
        }
    }

    fn read_headers(&mut self, start: u64) -> Result<Option<Headers>> {
        let mut own = Records::default();
        let (mut long_path, mut long_link) = (None, None);
        let mut may_end = true;
        for count in 0.. {
            ensure!(
                count < EXTENDED_COUNT_MAX,
                "a member has more than {EXTENDED_COUNT_MAX} extended headers"
            );
            let Some(block) = self.header_block(may_end)? else {
                return Ok(None);
            };
            let header = Header::new(block).map_err(|error| match compression(start, &block) {
                _ if start == 0 && is_encrypted(&block) => anyhow!(
                    "the archive is encrypted: `restore` reads it with --identity FILE, and `age \
                     --decrypt --identity FILE ARCHIVE` decrypts it"
                ),
                Some(program) => anyhow!(
                    "the archive is compressed: unpack it by `{program} -dc ARCHIVE | \
                     docker-stack-backup restore - --to DIR`"
                ),
                None => error,
            })?;
            let has_begun = !matches!(header.kind(), b'V' | b'g');
            may_end &= !has_begun;
            match header.kind() {
                b'x' | b'X' => own.update(&self.extended(&header)?)?,
                b'g' => {
                    let body = self.extended(&header)?;
                    Arc::make_mut(&mut self.globals).update(&body)?;
                }
                b'L' => long_path = Some(c_string(self.extended(&header)?)),
                b'K' => long_link = Some(c_string(self.extended(&header)?)),
                // The label of a volume is no member.
                b'V' => {
                    self.extended(&header)?;
                }
                _ => {
                    let path = long_path.unwrap_or_else(|| header.path());
                    let link = long_link.unwrap_or_else(|| header.link());
                    let records = PaxRecords::new(&self.globals, own);
                    let path = records.path().map_or(path, <[u8]>::to_vec);
                    if start == 0 {
                        self.needs_end = is_manifest_path(&path);
                    }
                    return Ok(Some(Headers {
                        start,
                        path,
                        link: records.get(b"linkpath").map_or(link, <[u8]>::to_vec),
                        header,
                        records,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Reads a header; `None` at the end of the archive. That is two blocks of zeros.
    /// Other programs may write only one, or none; an archive of this program has
    /// both, unless it was cut.
    fn header_block(&mut self, may_end: bool) -> Result<Option<TarBlock>> {
        let mut block = [0; BLOCK_BYTES as usize];
        let start = self.input.position();
        let may_lack_end =
            may_end && !self.needs_end && start > 0 && !self.input.is_beyond_end(start);
        if may_lack_end && self.input.is_at_end()? {
            self.lacks_end = true;
            return Ok(None);
        }
        self.input.read_exact(&mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        ensure!(may_end, "an extended header is not followed by a member");
        if may_lack_end && self.input.is_at_end()? {
            self.lacks_end = true;
            return Ok(None);
        }
        self.input.read_exact(&mut block)?;
        ensure!(
            block.iter().all(|byte| *byte == 0),
            "there is a block of zeros instead of a header"
        );
        Ok(None)
    }

    /// Reads the body of an extended header.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>> {
        let bytes = header.size()?;
        ensure!(
            bytes <= EXTENDED_BYTES_MAX,
            "an extended header of {bytes} bytes exceeds the limit of {EXTENDED_BYTES_MAX}"
        );
        let mut body = vec![0; bytes.next_multiple_of(BLOCK_BYTES) as usize];
        self.input.read_exact(&mut body)?;
        body.truncate(bytes as usize);
        Ok(body)
    }
}

/// Whether this is the path of a manifest of this program.
pub(crate) fn is_manifest_path(path: &[u8]) -> bool {
    path.ends_with(MANIFEST_SUFFIX) && !path.contains(&b'/')
}

/// The program that decompresses what begins with `block`.
fn compression(start: u64, block: &TarBlock) -> Option<&'static str> {
    let signatures: [(&[u8], &str); 4] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
    ];
    let mut signatures = signatures.into_iter();
    let (_, program) = signatures.find(|(signature, _)| block.starts_with(signature))?;
    (start == 0).then_some(program)
}

/// Cuts `bytes` at the first NUL.
fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}
