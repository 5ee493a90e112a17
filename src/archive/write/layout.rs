//! The layout of an archive: where everything is in it.

use std::ops::Range;

use tar::EntryType;

use crate::archive::tar::entry_head::{head_bytes, stored_bytes};
use crate::archive::tar::head::{HeadBuffers, MemberHead};
use crate::archive::tar::{ALIGNMENT_BYTES, BLOCK_BYTES};
use crate::scan::Inventory;

/// The space reserved at the front of the archive for the manifest, which is only
/// known when everything else is written.
#[derive(Clone, Debug)]
pub struct ManifestSlot {
    /// Member name: `<stack>.manifest.json`.
    pub name: String,
    /// Expected length of the JSON. The reserved space is rounded up.
    pub reserved_bytes: u64,
    /// Modification time in seconds since 1970.
    pub mtime_s: i64,
}

/// Where everything is in an archive. A pure function of an [`Inventory`] and a
/// [`ManifestSlot`].
#[derive(Debug)]
pub struct Layout {
    /// Offset of each entry's member, and at last the end of the last member.
    pub(crate) offsets: Vec<u64>,
    /// The head of the manifest's member.
    pub(crate) manifest_header: Vec<u8>,
    /// Size of the manifest's data, padding included.
    pub(crate) manifest_bytes: u64,
}

impl Layout {
    pub fn new(inventory: &Inventory, manifest: &ManifestSlot) -> Layout {
        let mut buffers = HeadBuffers::default();
        let (manifest_header, manifest_bytes) = manifest.render(&mut buffers);
        let mut offset = manifest_header.len() as u64 + manifest_bytes;
        debug_assert_eq!(offset % ALIGNMENT_BYTES, 0);
        let mut offsets = Vec::with_capacity(inventory.entries.len() + 1);
        for (index, entry) in inventory.entries.iter().enumerate() {
            offsets.push(offset);
            let stored = stored_bytes(inventory, entry.node);
            offset += head_bytes(inventory, index, offset, &mut buffers)
                + stored.next_multiple_of(BLOCK_BYTES);
        }
        offsets.push(offset);
        Layout {
            offsets,
            manifest_header,
            manifest_bytes,
        }
    }

    /// Length of the archive file.
    pub fn archive_bytes(&self) -> u64 {
        // An archive ends with two blocks of zeros.
        (self.end() + 2 * BLOCK_BYTES).next_multiple_of(ALIGNMENT_BYTES)
    }

    /// Greatest possible length of the manifest's JSON.
    pub fn manifest_bytes_max(&self) -> u64 {
        self.manifest_bytes - 1
    }

    /// Offset of the first member after the manifest.
    pub(crate) fn start(&self) -> u64 {
        self.manifest_header.len() as u64 + self.manifest_bytes
    }

    /// Where the stored data of an entry's member and its padding are.
    pub(crate) fn data(&self, inventory: &Inventory, index: usize) -> Range<u64> {
        let end = self.offsets[index + 1];
        let stored = stored_bytes(inventory, inventory.entries[index].node);
        end - stored.next_multiple_of(BLOCK_BYTES)..end
    }

    /// Offset of the end of the last member.
    pub(crate) fn end(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_else(|| self.start())
    }

    /// The entry whose member holds the byte at `offset`. Behind the last member
    /// it is the number of entries.
    pub(crate) fn entry_at(&self, offset: u64) -> usize {
        self.offsets.partition_point(|start| *start <= offset) - 1
    }
}

impl ManifestSlot {
    /// The head and the size of the data, which together are a multiple of
    /// [`ALIGNMENT_BYTES`].
    fn render(&self, buffers: &mut HeadBuffers) -> (Vec<u8>, u64) {
        let mut header = self.header(0, buffers);
        // One byte more for the newline at the end.
        let region_bytes =
            (header.len() as u64 + self.reserved_bytes + 1).next_multiple_of(ALIGNMENT_BYTES);
        let data_bytes = region_bytes - header.len() as u64;
        header = self.header(data_bytes, buffers);
        (header, data_bytes)
    }

    fn header(&self, data_bytes: u64, buffers: &mut HeadBuffers) -> Vec<u8> {
        let mut header = Vec::new();
        let head = MemberHead {
            path: self.name.as_bytes(),
            kind: EntryType::Regular,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime_s: self.mtime_s,
            mtime_ns: 0,
            link: b"",
            device: (0, 0),
            stored_bytes: data_bytes,
            sparse: None,
            is_aligned: false,
        };
        head.render(0, std::iter::empty(), buffers, &mut header);
        header
    }
}
