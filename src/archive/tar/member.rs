//! A member of an archive, made from its headers.

use anyhow::{Context, Result, bail, ensure};

use crate::archive::tar::BLOCK_BYTES;
use crate::archive::tar::header::Header;
use crate::archive::tar::input::BufferedInput;
use crate::archive::tar::records::PaxRecords;
use crate::archive::tar::sparse::read_sparse;
use crate::scan::{Extent, PATH_BYTES_MAX};
use crate::sys::format::display_path;

/// Longer paths and link targets are refused. An inventory has none.
const NAME_BYTES_MAX: usize = PATH_BYTES_MAX;
/// GNU tar's type of a directory in an incremental archive.
const DUMP_DIRECTORY: u8 = b'D';

/// What a member is.
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

impl Kind {
    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::HardLink => "hard link",
            Kind::Symlink => "symlink",
            Kind::Fifo => "FIFO",
            Kind::CharDevice => "character device",
            Kind::BlockDevice => "block device",
        }
    }
}

/// A member as its headers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As written in the archive, without slashes at its end.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Modification time: whole seconds since 1970, rounded down, and
    /// nanoseconds.
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes by the kernel's names, ACLs and capabilities
    /// included.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of the file, holes included.
    pub file_bytes: u64,
    /// Bytes of the file that are stored in the archive, from `data` on.
    pub stored_bytes: u64,
    /// Where the stored bytes belong in a sparse file.
    pub extents: Option<Vec<Extent>>,
    /// Offset of the member's first header in the archive.
    pub start: u64,
    /// Offset of the stored data in the archive.
    pub data: u64,
}

/// The headers of one member. Only the path has been parsed.
pub(crate) struct Headers {
    /// Offset of the first one in the archive.
    pub(super) start: u64,
    pub(super) header: Header,
    pub(super) records: PaxRecords,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
}

impl Headers {
    /// The path as written in the archive.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path for messages.
    pub(super) fn name(&self) -> String {
        display_path(&self.path[..self.path.len().min(NAME_BYTES_MAX)])
    }
}

impl Member {
    /// Offset of the next member's header in the archive.
    pub fn end(&self) -> u64 {
        self.data + self.stored_bytes.next_multiple_of(BLOCK_BYTES)
    }

    /// The path for messages.
    pub fn name(&self) -> String {
        display_path(&self.path)
    }

    /// Parses the headers. `input` is where they end; the map of a sparse file
    /// is read from it.
    pub(super) fn parse(headers: Headers, input: &mut BufferedInput<'_>) -> Result<Member> {
        let Headers {
            start,
            header,
            records,
            mut path,
            link,
        } = headers;
        let kind = kind(&header, path.ends_with(b"/"))?;
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        ensure!(
            path.len() <= NAME_BYTES_MAX && link.len() <= NAME_BYTES_MAX,
            "its path or its link target is longer than {NAME_BYTES_MAX} bytes"
        );
        let has_data = kind == Kind::File || header.kind() == DUMP_DIRECTORY;
        let size = match records.number(b"size")? {
            // All readers agree that nothing follows, whatever the size.
            _ if !has_data => 0,
            Some(size) => size,
            None => header.size()?,
        };
        ensure!(
            size <= i64::MAX as u64 / 2,
            "its size {size} is out of range"
        );
        if header.kind() == DUMP_DIRECTORY {
            // The names that the directory had. Directories have no data here.
            let end = input.position() + size.next_multiple_of(BLOCK_BYTES);
            ensure!(
                !input.is_beyond_end(end),
                "the archive ends within its data"
            );
            input.skip_to(end)?;
        }
        let size = if kind == Kind::File { size } else { 0 };
        let (mtime_s, mtime_ns) = match records.mtime()? {
            Some(time) => time,
            None => (header.mtime()?, 0),
        };
        let mut member = Member {
            path,
            kind,
            mode: header.mode()?,
            uid: owner(&records, "uid", header.uid())?,
            gid: owner(&records, "gid", header.gid())?,
            mtime_s,
            mtime_ns,
            link,
            device: header.device()?,
            attributes: records.attributes()?,
            file_bytes: size,
            stored_bytes: size,
            extents: None,
            start,
            data: input.position(),
        };
        if kind == Kind::File
            && let Some(sparse) = read_sparse(input, &header, &records, size)?
        {
            member.data = input.position();
            member.file_bytes = sparse.file_bytes;
            member.stored_bytes = sparse.stored_bytes;
            member.extents = Some(sparse.extents);
        }
        Ok(member)
    }
}

fn kind(header: &Header, ends_with_slash: bool) -> Result<Kind> {
    Ok(match header.kind() {
        // Before POSIX only a slash at the end of its path marked a directory.
        0 if ends_with_slash => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' | DUMP_DIRECTORY => Kind::Directory,
        b'6' => Kind::Fifo,
        b'M' => bail!("it continues a file that begins in another volume"),
        b'N' => bail!("it is a list of long names, of an old GNU tar"),
        // A type that a reader does not know is a regular file (POSIX.1-2017 `pax`,
        // "ustar Interchange Format").
        _ => Kind::File,
    })
}

/// A user or group id: the record's if there is one, otherwise the header's.
fn owner(records: &PaxRecords, keyword: &str, in_header: Result<u64>) -> Result<u32> {
    let id = match records.number(keyword.as_bytes())? {
        Some(id) => id,
        None => in_header?,
    };
    // To chown(2) the largest one means "no change".
    let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    id.with_context(|| format!("its {keyword} is out of range"))
}
