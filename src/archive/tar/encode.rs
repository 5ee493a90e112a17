use tar::{EntryType, Header};

use crate::archive::tar::pax::{attribute_keyword, push_comment, push_record, push_time};
use crate::archive::tar::ustar::{fits_link, fits_name, pad, push_pax_header, set_link, set_name};
use crate::archive::tar::{ALIGNED_FROM_BYTES, ALIGNMENT_BYTES, BLOCK_BYTES, acl};
use crate::scan::{Extent, Inventory, Node};

/// Largest size, and largest time, that eleven octal digits can say.
const OCTAL_11_MAX: u64 = 0o77_777_777_777;

/// Largest user or group id that seven octal digits can say.
const OCTAL_7_MAX: u32 = 0o7_777_777;

/// One member's metadata, and the buffers to render it with, so that nothing
/// is allocated for most members.
#[derive(Default)]
pub(crate) struct Scratch {
    path: Vec<u8>,
    link: Vec<u8>,
    records: Vec<u8>,
    map: Vec<u8>,
}

/// A member as its header tells it.
pub(crate) struct Member<'a> {
    /// With a trailing slash if it is a directory.
    pub(crate) path: &'a [u8],
    pub(crate) kind: EntryType,
    /// Permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: u32,
    /// Target of a symlink or hard link.
    pub(crate) link: &'a [u8],
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    /// Bytes of data that follow, without a sparse map.
    pub(crate) stored_bytes: u64,
    /// Size and extents of a sparse file.
    pub(crate) sparse: Option<(u64, &'a [Extent])>,
    /// Whether the data is to begin at a multiple of [`ALIGNMENT_BYTES`].
    pub(crate) is_aligned: bool,
}

/// Bytes of file data that the archive holds for an entry.
pub(crate) fn stored_bytes(inventory: &Inventory, node: Node) -> u64 {
    match node {
        Node::File { bytes, .. } => inventory.extents(node).map_or(bytes, |extents| {
            extents.last().map_or(0, |last| last.stored + last.bytes)
        }),
        _ => 0,
    }
}

/// Renders everything of a member before its data (headers, sparse map) for
/// the place `offset` in the archive.
pub(crate) fn render_entry(
    inventory: &Inventory,
    index: usize,
    offset: u64,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    with_member(inventory, index, scratch, |member, attributes, scratch| {
        member.render(offset, attributes, scratch, out);
    });
}

/// How many bytes [`render_entry`] appends. Much cheaper.
pub(crate) fn head_bytes(
    inventory: &Inventory,
    index: usize,
    offset: u64,
    scratch: &mut Scratch,
) -> u64 {
    with_member(inventory, index, scratch, |member, attributes, scratch| {
        member.head_bytes(offset, attributes, scratch)
    })
}

/// Calls `act` with an entry's member, and its attributes.
fn with_member<'a, T>(
    inventory: &'a Inventory,
    index: usize,
    scratch: &mut Scratch,
    act: impl FnOnce(&Member<'_>, &mut dyn Iterator<Item = (&'a [u8], &'a [u8])>, &mut Scratch) -> T,
) -> T {
    let entry = inventory.entries[index];
    let mut path = std::mem::take(&mut scratch.path);
    let mut link = std::mem::take(&mut scratch.link);
    inventory.member_path(index, &mut path);
    link.clear();
    let mut device = (0, 0);
    let kind = match entry.node {
        Node::Directory => EntryType::Directory,
        Node::File { .. } => EntryType::Regular,
        Node::HardLink { first } => {
            inventory.member_path(first as usize, &mut link);
            EntryType::Link
        }
        Node::Symlink { .. } => {
            link.extend_from_slice(inventory.symlink_target(entry.node));
            EntryType::Symlink
        }
        Node::Fifo => EntryType::Fifo,
        Node::CharDevice { major, minor } => {
            device = (major, minor);
            EntryType::Char
        }
        Node::BlockDevice { major, minor } => {
            device = (major, minor);
            EntryType::Block
        }
    };
    let bytes = match entry.node {
        Node::File { bytes, .. } => bytes,
        _ => 0,
    };
    let stored_bytes = stored_bytes(inventory, entry.node);
    let member = Member {
        path: &path,
        kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime_s: entry.mtime_s,
        mtime_ns: entry.mtime_ns,
        link: &link,
        device,
        stored_bytes,
        sparse: inventory.extents(entry.node).map(|list| (bytes, list)),
        is_aligned: stored_bytes >= ALIGNED_FROM_BYTES,
    };
    // A further link has the attributes of the first.
    let done = match kind {
        EntryType::Link => act(&member, &mut std::iter::empty(), scratch),
        _ => act(&member, &mut inventory.attributes(&entry), scratch),
    };
    scratch.path = path;
    scratch.link = link;
    done
}

impl Member<'_> {
    /// Appends what comes before the data to `out`.
    pub(crate) fn render<'a>(
        &self,
        offset: u64,
        attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) {
        let size = self.prepare(offset, attributes, scratch);
        let Scratch { records, map, .. } = scratch;
        if !records.is_empty() {
            push_pax_header(self.base_name(), records, out);
        }
        let mut header = Header::new_ustar();
        if self.sparse.is_some() {
            // Seen by readers that do not know the format.
            let name = [b"GNUSparseFile.0/", self.base_name()].concat();
            set_name(&mut header, &name);
        } else {
            set_name(&mut header, self.path);
        }
        set_link(&mut header, self.link);
        self.numbers(&mut header, size);
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(map);
    }

    /// How many bytes [`render`](Member::render) appends.
    fn head_bytes<'a>(
        &self,
        offset: u64,
        attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        scratch: &mut Scratch,
    ) -> u64 {
        self.prepare(offset, attributes, scratch);
        let pax_bytes = match scratch.records.len() as u64 {
            0 => 0,
            bytes => BLOCK_BYTES + bytes.next_multiple_of(BLOCK_BYTES),
        };
        pax_bytes + BLOCK_BYTES + scratch.map.len() as u64
    }

    /// Fills in the records and the sparse map. Returns the size that the header
    /// is to tell.
    fn prepare<'a>(
        &self,
        offset: u64,
        attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        scratch: &mut Scratch,
    ) -> u64 {
        let Scratch { records, map, .. } = scratch;
        records.clear();
        map.clear();
        if let Some((_, extents)) = self.sparse {
            self.sparse_map(extents, map);
        }
        let size = map.len() as u64 + self.stored_bytes;
        self.records(size, attributes, records);
        if self.is_aligned {
            align(offset, map.len() as u64, records);
        }
        size
    }

    /// Fills `records` with what ustar cannot say, always in this order.
    fn records<'a>(
        &self,
        size: u64,
        attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        records: &mut Vec<u8>,
    ) {
        let has_long_name = self.sparse.is_some() || !fits_name(self.path);
        let has_long_link = !fits_link(self.link);
        if (has_long_name && std::str::from_utf8(self.path).is_err())
            || (has_long_link && std::str::from_utf8(self.link).is_err())
        {
            // Or bsdtar complains of names that are not UTF-8, and fails at the
            // end. GNU tar warns that it does not know it, and succeeds.
            push_record(records, b"hdrcharset", b"BINARY");
        }
        if let Some((bytes, _)) = self.sparse {
            push_record(records, b"GNU.sparse.major", b"1");
            push_record(records, b"GNU.sparse.minor", b"0");
            push_record(records, b"GNU.sparse.name", self.path);
            push_record(
                records,
                b"GNU.sparse.realsize",
                bytes.to_string().as_bytes(),
            );
        } else if has_long_name {
            push_record(records, b"path", self.path);
        }
        if has_long_link {
            push_record(records, b"linkpath", self.link);
        }
        if size > OCTAL_11_MAX {
            push_record(records, b"size", size.to_string().as_bytes());
        }
        if self.uid > OCTAL_7_MAX {
            push_record(records, b"uid", self.uid.to_string().as_bytes());
        }
        if self.gid > OCTAL_7_MAX {
            push_record(records, b"gid", self.gid.to_string().as_bytes());
        }
        let in_octal = u64::try_from(self.mtime_s).is_ok_and(|s| s <= OCTAL_11_MAX);
        if self.mtime_ns != 0 || !in_octal {
            push_time(records, b"mtime", self.mtime_s, self.mtime_ns);
        }
        for (name, value) in attributes {
            let acl = match name {
                b"system.posix_acl_access" => Some(&b"SCHILY.acl.access"[..]),
                b"system.posix_acl_default" => Some(&b"SCHILY.acl.default"[..]),
                _ => None,
            };
            match acl.zip(acl::to_text(value)) {
                Some((keyword, text)) => push_record(records, keyword, text.as_bytes()),
                None => push_record(records, &attribute_keyword(name), value),
            }
        }
    }

    /// Fills in everything of `header` but the names. What does not fit in
    /// octal is in the records, and here in base 256, as GNU tar has it, for
    /// readers that know no records.
    fn numbers(&self, header: &mut Header, size: u64) {
        header.set_entry_type(self.kind);
        header.set_mode(self.mode.into());
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        header.set_size(size);
        header.set_mtime(u64::try_from(self.mtime_s).unwrap_or(0).min(OCTAL_11_MAX));
        if let Some(ustar) = header.as_ustar_mut() {
            ustar.set_device_major(self.device.0);
            ustar.set_device_minor(self.device.1);
        }
        header.set_cksum();
    }

    /// The map that precedes the data of a sparse file, padded to a block: the
    /// number of entries, then offset and length of each, one number a line
    /// (GNU tar manual, "PAX Format, Version 1.0"). As GNU tar does, an empty
    /// entry at the end tells the size if the file ends with a hole.
    fn sparse_map(&self, extents: &[Extent], map: &mut Vec<u8>) {
        use std::io::Write;
        let bytes = self.sparse.map_or(0, |(bytes, _)| bytes);
        let end = extents.last().map_or(0, |last| last.offset + last.bytes);
        let has_hole_at_end = end < bytes;
        // Writing to a `Vec` cannot fail.
        let _ = writeln!(map, "{}", extents.len() + usize::from(has_hole_at_end));
        for extent in extents {
            let _ = write!(map, "{}\n{}\n", extent.offset, extent.bytes);
        }
        if has_hole_at_end {
            let _ = write!(map, "{bytes}\n0\n");
        }
        pad(map);
    }

    /// The last component, cut to what a short header has room for.
    fn base_name(&self) -> &[u8] {
        let path = self.path.strip_suffix(b"/").unwrap_or(self.path);
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        &name[..name.len().min(80)]
    }
}

/// Adds a `comment` to `records` if the data would not begin at a multiple of
/// [`ALIGNMENT_BYTES`] otherwise.
fn align(offset: u64, map_bytes: u64, records: &mut Vec<u8>) {
    let blocks = records.len().div_ceil(BLOCK_BYTES as usize) as u64;
    let has_records = u64::from(!records.is_empty());
    let data = offset + BLOCK_BYTES * (has_records + blocks + 1) + map_bytes;
    let mut missing_blocks = (data.next_multiple_of(ALIGNMENT_BYTES) - data) / BLOCK_BYTES;
    if missing_blocks == 0 {
        return;
    }
    if records.is_empty() {
        // The first record also costs a header of its own.
        if missing_blocks == 1 {
            missing_blocks += ALIGNMENT_BYTES / BLOCK_BYTES;
        }
        missing_blocks -= 1;
    }
    let whole_blocks = (blocks + missing_blocks - 1) * BLOCK_BYTES;
    push_comment(records, whole_blocks as usize + 1);
}
