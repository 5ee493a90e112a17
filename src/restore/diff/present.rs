//! The files on the host that an archive is compared with.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use crate::archive::member_path::within;
use crate::scan::{Exclude, Inventory, Node, Source, scan};
use crate::sys::format::display_path;

/// A tree of the archive, and its path on the host.
pub struct HostTree {
    /// Member path of the tree; empty for the whole archive.
    pub prefix: Vec<u8>,
    /// `None` if the tree does not exist on the host.
    pub path: Option<PathBuf>,
}

/// All files of the trees, and an index of them by member path.
pub(super) struct PresentFiles<'a> {
    trees: &'a [HostTree],
    sources: Vec<Source>,
    /// Position in `trees` of each source.
    tree_of: Vec<usize>,
    pub(super) inventory: Inventory,
    by_path: HashMap<Vec<u8>, u32>,
}

impl<'a> PresentFiles<'a> {
    pub(super) fn scan(trees: &'a [HostTree], cancel: &AtomicBool) -> Result<PresentFiles<'a>> {
        let mut present = PresentFiles {
            trees,
            sources: Vec::new(),
            tree_of: Vec::new(),
            inventory: Inventory::default(),
            by_path: HashMap::new(),
        };
        for (index, tree) in trees.iter().enumerate() {
            let Some(path) = &tree.path else { continue };
            // A source needs a name, which the whole archive does not have. This
            // one is not used.
            let prefix = match tree.prefix.as_slice() {
                b"" => b"all",
                prefix => prefix,
            };
            present.sources.push(Source::open(prefix, path)?);
            present.tree_of.push(index);
        }
        present.inventory = scan(&present.sources, &Exclude::new(&[])?, false, cancel)?;
        for index in 0..present.inventory.entries.len() {
            present.by_path.insert(present.path(index), index as u32);
        }
        Ok(present)
    }

    /// Member path of an entry, without a slash at its end.
    pub(super) fn path(&self, index: usize) -> Vec<u8> {
        let mut rel = Vec::new();
        self.inventory.relative_path(index, &mut rel);
        let source = self.inventory.source_of(index);
        let prefix = &self.trees[self.tree_of[source]].prefix;
        let slash: &[u8] = match prefix.is_empty() || rel.is_empty() {
            true => b"",
            false => b"/",
        };
        [prefix, slash, &rel].concat()
    }

    /// The source of an entry, and the entry's path in it.
    pub(super) fn source(&self, index: usize) -> (&Source, Vec<u8>) {
        let mut rel = Vec::new();
        self.inventory.relative_path(index, &mut rel);
        (&self.sources[self.inventory.source_of(index)], rel)
    }

    pub(super) fn shown(&self, index: usize) -> String {
        let is_directory = self.inventory.entries[index].node == Node::Directory;
        shown(&self.path(index), is_directory)
    }

    /// The first of all hard links to the file of an entry.
    pub(super) fn first_link(&self, index: usize) -> usize {
        match self.inventory.entries[index].node {
            Node::HardLink { first } => first as usize,
            _ => index,
        }
    }

    pub(super) fn find(&self, path: &[u8]) -> Option<usize> {
        self.by_path.get(path).map(|index| *index as usize)
    }

    /// Whether a member path is in one of the trees.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        let mut trees = self.trees.iter();
        trees.any(|tree| within(path, &tree.prefix).is_some())
    }
}

/// A member path as it is printed.
pub(super) fn shown(path: &[u8], is_directory: bool) -> String {
    match (path, is_directory) {
        (b"", _) => "./".to_owned(),
        (path, true) => display_path(path) + "/",
        (path, false) => display_path(path),
    }
}
