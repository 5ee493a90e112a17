//! Assembling the listings of all directories into one inventory.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::inventory::{NONE, Node};
use super::queue::Queue;
use super::{Entry, Inventory};

/// Takes the listings as they are finished, puts their entries in the order of
/// the archive, and finds the hard links.
pub(crate) fn assemble(queue: &Queue, source_count: usize) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    for source in 0..source_count {
        inventory.sources.push(inventory.entries.len() as u32);
        let mut first_links = HashMap::new();
        let mut open = vec![OpenDirectory::new(&mut inventory, queue, source, NONE)?];
        while let Some(directory) = open.last_mut() {
            let Some(mut entry) = directory.entries.next() else {
                open.pop();
                continue;
            };
            let index = inventory.entries.len();
            entry.parent = directory.index;
            entry.name_start += directory.name_base;
            match &mut entry.node {
                Node::Symlink { start, .. } => *start += directory.name_base,
                Node::File { sparse, .. } if *sparse != NONE => *sparse += directory.sparse_base,
                _ => {}
            }
            if entry.has_links {
                let first = *first_links.entry((entry.dev, entry.ino)).or_insert(index);
                if first != index {
                    entry.node = Node::HardLink {
                        first: first as u32,
                    };
                }
            }
            if let Node::File { bytes, .. } = entry.node {
                // Sparse files may have any size.
                inventory.content_bytes = inventory.content_bytes.saturating_add(bytes);
            }
            inventory.entries.push(entry);
            if entry.node == Node::Directory {
                let slot = directory.next_slot;
                directory.next_slot += 1;
                let child = OpenDirectory::new(&mut inventory, queue, slot, index as u32)?;
                inventory.entries[index].changed = child.is_gone;
                open.push(child);
            }
        }
    }
    Ok(inventory)
}

/// A directory whose entries are being moved to the inventory.
struct OpenDirectory {
    /// The directory's own entry; [`NONE`] above the root of a source.
    index: u32,
    entries: std::vec::IntoIter<Entry>,
    /// The slot of the next directory in it.
    next_slot: usize,
    is_gone: bool,
    /// Where its names and extent lists begin in the inventory.
    name_base: u32,
    sparse_base: u32,
}

impl OpenDirectory {
    fn new(
        inventory: &mut Inventory,
        queue: &Queue,
        slot: usize,
        index: u32,
    ) -> Result<OpenDirectory> {
        let listing = queue.take(slot).context("interrupted")?;
        let count = inventory.entries.len() + listing.entries.len();
        let name_base = inventory.names.len();
        let name_bytes = name_base + listing.names.len();
        if count >= NONE as usize || name_bytes >= NONE as usize {
            bail!(
                "there are too many files for one archive: at least {count}, with {name_bytes} \
                 bytes of names"
            );
        }
        let sparse_base = inventory.sparse.len() as u32;
        inventory.names.extend_from_slice(&listing.names);
        inventory.sparse.extend(listing.sparse);
        inventory.socket_count += listing.socket_count;
        inventory.excluded_count += listing.excluded_count;
        Ok(OpenDirectory {
            index,
            entries: listing.entries.into_iter(),
            next_slot: listing.first_slot,
            is_gone: listing.is_gone,
            name_base: name_base as u32,
            sparse_base,
        })
    }
}
