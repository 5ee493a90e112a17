//! The heads of an inventory's entries.

use tar::EntryType;

use crate::archive::tar::ALIGNED_FROM_BYTES;
use crate::archive::tar::head::{HeadBuffers, MemberHead};
use crate::scan::{Inventory, Node};

/// Bytes of file data that the archive stores for an entry.
pub(crate) fn stored_bytes(inventory: &Inventory, node: Node) -> u64 {
    match node {
        Node::File { bytes, .. } => inventory.extents(node).map_or(bytes, |extents| {
            extents.last().map_or(0, |last| last.stored + last.bytes)
        }),
        _ => 0,
    }
}

/// Appends the head of an entry's member to `out`, as it is at `offset` in the
/// archive.
pub(crate) fn render_head(
    inventory: &Inventory,
    index: usize,
    offset: u64,
    buffers: &mut HeadBuffers,
    out: &mut Vec<u8>,
) {
    with_head(inventory, index, buffers, |head, attributes, buffers| {
        head.render(offset, attributes, buffers, out);
    });
}

/// How many bytes [`render_head`] appends. Much cheaper than rendering them.
pub(crate) fn head_bytes(
    inventory: &Inventory,
    index: usize,
    offset: u64,
    buffers: &mut HeadBuffers,
) -> u64 {
    with_head(inventory, index, buffers, |head, attributes, buffers| {
        head.bytes(offset, attributes, buffers)
    })
}

/// Calls `act` with the head of an entry's member, and its attributes.
fn with_head<'a, T>(
    inventory: &'a Inventory,
    index: usize,
    buffers: &mut HeadBuffers,
    act: impl FnOnce(
        &MemberHead<'_>,
        &mut dyn Iterator<Item = (&'a [u8], &'a [u8])>,
        &mut HeadBuffers,
    ) -> T,
) -> T {
    let entry = inventory.entries[index];
    let mut path = std::mem::take(&mut buffers.path);
    let mut link = std::mem::take(&mut buffers.link);
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
    let head = MemberHead {
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
    // The attributes are stored with the first link only.
    let done = match kind {
        EntryType::Link => act(&head, &mut std::iter::empty(), buffers),
        _ => act(&head, &mut inventory.attributes(&entry), buffers),
    };
    buffers.path = path;
    buffers.link = link;
    done
}
