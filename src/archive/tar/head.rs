//! What precedes a member's data: headers, pax records, the map of a sparse
//! file.

use tar::{EntryType, Header};

use crate::archive::tar::pax::{attribute_keyword, push_comment, push_record, push_time};
use crate::archive::tar::ustar::{fits_link, fits_name, pad, push_pax_header, set_link, set_name};
use crate::archive::tar::{ALIGNMENT_BYTES, BLOCK_BYTES, acl};
use crate::scan::Extent;

/// Largest size or time that eleven octal digits can express.
const OCTAL_11_MAX: u64 = 0o77_777_777_777;

/// Largest user or group id that seven octal digits can express.
const OCTAL_7_MAX: u32 = 0o7_777_777;

/// Buffers that are used again for each member, so that most members allocate
/// nothing.
#[derive(Default)]
pub(crate) struct HeadBuffers {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    records: Vec<u8>,
    map: Vec<u8>,
}

/// The metadata of a member, which precedes its data.
pub(crate) struct MemberHead<'a> {
    /// With a slash at its end if it is a directory.
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
    /// Whether the data must begin at a multiple of [`ALIGNMENT_BYTES`].
    pub(crate) is_aligned: bool,
}

impl MemberHead<'_> {
    /// Appends the head to `out`, as it is at `offset` in the archive.
    pub(crate) fn render<'a>(
        &self,
        offset: u64,
        attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        buffers: &mut HeadBuffers,
        out: &mut Vec<u8>,
    ) {
        let size = self.prepare(offset, attributes, buffers);
        let HeadBuffers { records, map, .. } = buffers;
        if !records.is_empty() {
            push_pax_header(self.base_name(), records, out);
        }
        let mut header = Header::new_ustar();
        if self.sparse.is_some() {
            // Readers that do not know the sparse format use this name.
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

    /// How many bytes [`render`](MemberHead::render) appends.
    pub(super) fn bytes<'a>(
        &self,
        offset: u64,
        attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        buffers: &mut HeadBuffers,
    ) -> u64 {
        self.prepare(offset, attributes, buffers);
        let pax_bytes = match buffers.records.len() as u64 {
            0 => 0,
            bytes => BLOCK_BYTES + bytes.next_multiple_of(BLOCK_BYTES),
        };
        pax_bytes + BLOCK_BYTES + buffers.map.len() as u64
    }

    /// Fills `buffers` with the records and the sparse map. Returns the size for
    /// the header.
    fn prepare<'a>(
        &self,
        offset: u64,
        attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        buffers: &mut HeadBuffers,
    ) -> u64 {
        let HeadBuffers { records, map, .. } = buffers;
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

    /// Fills `records` with everything that ustar cannot express, always in this
    /// order.
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
            // Without it, bsdtar complains about names that are not UTF-8 and
            // fails at the end. GNU tar warns that it does not know the keyword,
            // and succeeds.
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

    /// Fills in everything of `header` except the names. A number that does not
    /// fit in octal is in the records, and here in base 256, as GNU tar writes
    /// it, for readers that ignore records.
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

    /// Fills `map` with the map that precedes the data of a sparse file, padded
    /// to a block: the number of entries, then offset and length of each, one
    /// number a line (GNU tar manual, "PAX Format, Version 1.0"). If the file
    /// ends with a hole, an empty entry at the end holds its size, as in GNU tar.
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

    /// The last component of the path, cut to a length that leaves room for a
    /// prefix in the name field.
    fn base_name(&self) -> &[u8] {
        let path = self.path.strip_suffix(b"/").unwrap_or(self.path);
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        &name[..name.len().min(80)]
    }
}

/// Adds a `comment` to `records`, if one is needed for the data to begin at a
/// multiple of [`ALIGNMENT_BYTES`].
fn align(offset: u64, map_bytes: u64, records: &mut Vec<u8>) {
    let blocks = records.len().div_ceil(BLOCK_BYTES as usize) as u64;
    let has_records = u64::from(!records.is_empty());
    let data = offset + BLOCK_BYTES * (has_records + blocks + 1) + map_bytes;
    let mut missing_blocks = (data.next_multiple_of(ALIGNMENT_BYTES) - data) / BLOCK_BYTES;
    if missing_blocks == 0 {
        return;
    }
    if records.is_empty() {
        // The first record also needs an extended header.
        if missing_blocks == 1 {
            missing_blocks += ALIGNMENT_BYTES / BLOCK_BYTES;
        }
        missing_blocks -= 1;
    }
    let whole_blocks = (blocks + missing_blocks - 1) * BLOCK_BYTES;
    push_comment(records, whole_blocks as usize + 1);
}
