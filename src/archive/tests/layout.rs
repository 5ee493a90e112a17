//! Properties of headers and offsets, for inventories of any content.

use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::archive::tar::entry_head::{render_head, stored_bytes};
use crate::archive::tar::head::HeadBuffers;
use crate::archive::tar::pax::records;
use crate::scan::{Entry, Extent, Node};

const NONE: u32 = u32::MAX;

/// An entry in the root directory, and what it refers to.
#[derive(Clone, Debug)]
struct Child {
    name: Vec<u8>,
    entry: Entry,
    target: Vec<u8>,
    extents: Vec<(u64, u64)>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'z', 1 => 1..=255_u8];
    prop::collection::vec(byte.prop_filter("slash", |byte| *byte != b'/'), len)
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..2000_u64,
        65_000..66_000_u64,
        0..200_000_000_u64,
        (1_u64 << 33) - 2..(1 << 33) + 2,
        0..1_u64 << 45
    ]
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => size().prop_map(|bytes| Node::File { bytes, sparse: NONE }),
        1 => size().prop_map(|bytes| Node::File { bytes, sparse: 0 }),
        1 => Just(Node::Directory),
        1 => Just(Node::HardLink { first: 0 }),
        1 => Just(Node::Symlink { start: 0, len: 0 }),
        1 => Just(Node::Fifo),
        1 => (0..4096_u32, 0..1_u32 << 20).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
    ]
}

prop_compose! {
    fn child()(
        name in bytes(1..256),
        node in node(),
        mode in 0..0o10000_u16,
        uid in any::<u32>(),
        gid in prop_oneof![Just(0_u32), Just(2_097_151), Just(2_097_152), any::<u32>()],
        mtime_s in prop_oneof![1_500_000_000..1_800_000_000_i64, any::<i32>().prop_map(i64::from), 8_589_934_590..8_589_934_594_i64],
        mtime_ns in prop_oneof![Just(0), 0..1_000_000_000_u32],
        target in bytes(1..300),
        extents in prop::collection::vec((1..1_u64 << 30, 1..1_u64 << 20), 0..40),
        attributes in prop::collection::vec((bytes(1..50), prop::collection::vec(any::<u8>(), 0..1200)), 0..3),
    ) -> Child {
        let entry = Entry {
            parent: 0, name_start: 0, name_len: 0, mode, uid, gid, node, mtime_s, mtime_ns,
            ctime_ns: 0, ctime_s: 0, ino: 0, dev: 0, has_links: false, changed: false, attributes: NONE,
        };
        Child { name, entry, target, extents, attributes }
    }
}

fn inventory(prefix: &[u8], children: &[Child]) -> Inventory {
    let mut inventory = Inventory {
        sources: vec![0],
        devices: vec![0],
        ..Inventory::default()
    };
    let add_name = |inventory: &mut Inventory, name: &[u8]| {
        let start = inventory.names.len() as u32;
        inventory.names.extend_from_slice(name);
        (start, name.len() as u16)
    };
    let mut root = children[0].entry;
    (root.name_start, root.name_len) = add_name(&mut inventory, prefix);
    (root.parent, root.node) = (NONE, Node::Directory);
    inventory.entries.push(root);
    for child in children {
        let mut entry = child.entry;
        (entry.name_start, entry.name_len) = add_name(&mut inventory, &child.name);
        match &mut entry.node {
            Node::Symlink { start, len } => {
                (*start, *len) = add_name(&mut inventory, &child.target)
            }
            Node::File { bytes, sparse } if *sparse == 0 => {
                let (mut offset, mut stored) = (0, 0);
                let list = child.extents.iter().map(|(hole, data)| {
                    let extent = Extent {
                        offset: offset + hole,
                        bytes: *data,
                        stored,
                    };
                    offset += hole + data;
                    stored += data;
                    extent
                });
                let list: Box<[Extent]> = list.collect();
                *bytes = (*bytes).max(offset);
                *sparse = inventory.sparse.len() as u32;
                inventory.sparse.push(list);
            }
            _ => {}
        }
        if !child.attributes.is_empty() {
            let mut set = Vec::new();
            for (name, value) in &child.attributes {
                for field in [name, value] {
                    set.extend((field.len() as u32).to_le_bytes());
                    set.extend(field);
                }
            }
            entry.attributes = inventory.attributes.len() as u32;
            inventory.attributes.push(set.into());
        }
        inventory.entries.push(entry);
    }
    inventory
}

/// Parses the head of a member with the `tar` crate and compares it with the
/// inventory.
fn check_parses_back(inventory: &Inventory, index: usize, header: &[u8]) {
    let entry = inventory.entries[index];
    let mut path = Vec::new();
    inventory.member_path(index, &mut path);
    let mut rest = header;
    let mut block = || {
        let (block, after) = rest.split_at(512);
        rest = after;
        let header = tar::Header::from_byte_slice(block);
        let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let field = block[148..156]
            .iter()
            .map(|byte| u32::from(*byte))
            .sum::<u32>();
        assert_eq!(header.cksum().unwrap(), sum - field + 8 * 32);
        (header, after)
    };
    // The `tar` crate's `pax_extensions` splits values at newlines.
    let (mut header, after) = block();
    let mut body = &b""[..];
    if header.entry_type().is_pax_local_extensions() {
        let size = header.entry_size().unwrap() as usize;
        body = &after[..size];
        rest = &after[size.next_multiple_of(512)..];
        (header, rest) = (tar::Header::from_byte_slice(&rest[..512]), &rest[512..]);
    }
    assert_eq!(header.mode().unwrap(), u32::from(entry.mode));
    let records: Vec<_> = records(body).map(|record| record.unwrap()).collect();
    let record = |key: &[u8]| {
        records
            .iter()
            .find(|record| record.0 == key)
            .map(|record| record.1)
    };
    let number = |key: &[u8]| {
        record(key).map(|value| std::str::from_utf8(value).unwrap().parse::<u64>().unwrap())
    };
    assert_eq!(
        number(b"uid").unwrap_or_else(|| header.uid().unwrap()),
        u64::from(entry.uid)
    );
    assert_eq!(
        number(b"gid").unwrap_or_else(|| header.gid().unwrap()),
        u64::from(entry.gid)
    );
    assert_eq!(number(b"uid").is_some(), entry.uid > 2_097_151);
    if entry.mtime_ns == 0 && (0..1 << 33).contains(&entry.mtime_s) {
        assert_eq!(header.mtime().unwrap(), entry.mtime_s as u64);
        assert_eq!(record(b"mtime"), None);
    } else {
        let value = std::str::from_utf8(record(b"mtime").unwrap()).unwrap();
        let (s, fraction) = value.split_once('.').unwrap_or((value, "0"));
        let ns = format!("{fraction:0<9}").parse::<i128>().unwrap();
        let sign = if value.starts_with('-') { -1 } else { 1 };
        let total = s.parse::<i128>().unwrap() * 1_000_000_000 + sign * ns;
        assert_eq!(
            total,
            i128::from(entry.mtime_s) * 1_000_000_000 + i128::from(entry.mtime_ns)
        );
    }
    let stored = stored_bytes(inventory, entry.node);
    match entry.node {
        Node::File { bytes, sparse } if sparse != NONE => {
            assert_eq!(record(b"GNU.sparse.name"), Some(&path[..]));
            assert_eq!(number(b"GNU.sparse.realsize"), Some(bytes));
            check_map(inventory, entry.node, bytes, stored, &mut rest);
            assert!(rest.is_empty());
        }
        _ => {
            let short = header.path_bytes();
            assert_eq!(record(b"path").unwrap_or(&short), &path[..]);
            assert_eq!(header.entry_size().unwrap(), stored);
            assert_eq!(number(b"size"), (stored >= 1 << 33).then_some(stored));
        }
    }
    if let Node::Symlink { .. } = entry.node {
        let short = header.link_name_bytes().unwrap();
        let target = record(b"linkpath").unwrap_or(&short);
        assert_eq!(target, inventory.symlink_target(entry.node));
    }
}

fn check_map(inventory: &Inventory, node: Node, bytes: u64, stored: u64, parsed: &mut impl Read) {
    let mut text = vec![0; 512];
    parsed.read_exact(&mut text).unwrap();
    let mut number = || {
        loop {
            if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let rest = text.split_off(end + 1);
                let line = std::mem::replace(&mut text, rest);
                return std::str::from_utf8(&line[..end])
                    .unwrap()
                    .parse::<u64>()
                    .unwrap();
            }
            let len = text.len();
            text.resize(len + 512, 0);
            parsed.read_exact(&mut text[len..]).unwrap();
        }
    };
    let count = number();
    let map: Vec<(u64, u64)> = (0..count).map(|_| (number(), number())).collect();
    let mut expected: Vec<_> = inventory
        .extents(node)
        .unwrap()
        .iter()
        .map(|extent| (extent.offset, extent.bytes))
        .collect();
    if expected.last().is_none_or(|last| last.0 + last.1 < bytes) {
        expected.push((bytes, 0));
    }
    assert_eq!(map, expected);
    assert_eq!(map.iter().map(|(_, len)| len).sum::<u64>(), stored);
    assert!(text.iter().all(|byte| *byte == 0));
}

proptest! {
    #[test]
    fn members_follow_each_other_and_parse_back(
        prefix in bytes(1..120),
        children in prop::collection::vec(child(), 1..12),
        reserved_bytes in 0..20_000_u64,
    ) {
        let inventory = inventory(&prefix, &children);
        let slot = ManifestSlot { reserved_bytes, ..slot() };
        let layout = Layout::new(&inventory, &slot);
        prop_assert_eq!(layout.start() % 4096, 0);
        prop_assert!(layout.manifest_bytes_max() >= reserved_bytes);
        prop_assert_eq!(layout.offsets[0], layout.start());
        let (mut buffers, mut header) = (HeadBuffers::default(), Vec::new());
        for (index, entry) in inventory.entries.iter().enumerate() {
            let offset = layout.offsets[index];
            header.clear();
            render_head(&inventory, index, offset, &mut buffers, &mut header);
            let stored = stored_bytes(&inventory, entry.node);
            let data = offset + header.len() as u64;
            prop_assert_eq!(offset % 512, 0);
            prop_assert_eq!(layout.offsets[index + 1], data + stored.next_multiple_of(512));
            if stored >= 65_536 {
                prop_assert_eq!(data % 4096, 0);
            }
            for at in [offset, data, layout.offsets[index + 1] - 1] {
                if at < layout.offsets[index + 1] {
                    prop_assert_eq!(layout.entry_at(at), index);
                }
            }
            check_parses_back(&inventory, index, &header);
        }
        let end = *layout.offsets.last().unwrap();
        prop_assert_eq!(layout.archive_bytes(), (end + 1024).next_multiple_of(4096));
        prop_assert_eq!(layout.entry_at(layout.archive_bytes() - 1), inventory.entries.len());
    }

    #[test]
    fn alignment_adds_as_few_blocks_as_possible(
        child in child(),
        size in 65_536..1_000_000_u64,
        blocks in 0..8_u64,
    ) {
        let mut child = child;
        child.entry.node = Node::File { bytes: size, sparse: NONE };
        let aligned = inventory(b"p", std::slice::from_ref(&child));
        child.entry.node = Node::File { bytes: 1, sparse: NONE };
        let plain = inventory(b"p", std::slice::from_ref(&child));
        let (mut buffers, offset) = (HeadBuffers::default(), blocks * 512);
        let mut length = |inventory| {
            let mut header = Vec::new();
            render_head(inventory, 1, offset, &mut buffers, &mut header);
            header.len() as u64
        };
        let (aligned, plain) = (length(&aligned), length(&plain));
        // The head grows by less than one alignment. It grows by more only if one
        // block is missing and there are no records that a block can be added to.
        let limit = if plain == 512 { 4096 + 512 } else { 4096 };
        prop_assert!(aligned - plain < limit + 1 && (aligned - plain != 4096), "{aligned} {plain}");
    }
}
