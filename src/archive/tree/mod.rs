//! The members of an archive as a tree of directories, for looking into it without
//! unpacking it. Only headers are read; data is found by its offset.

mod build;
mod data;
mod diff;
mod listing;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::member_path::split_first;
use super::sums::ContentHash;
use super::tar::Kind;
use crate::scan::Extent;
use crate::sys::format::display_path;

pub use build::SumsUse;
pub use diff::{ArchiveDiff, MemberChange, MemberDifference, OpenTree};
pub use listing::ListedMember;

/// The number of a node in its tree.
pub type NodeId = u32;

/// Extended attributes by the kernel's names.
pub type Attributes = Arc<[(Vec<u8>, Vec<u8>)]>;

/// All members of an archive.
#[derive(Debug)]
pub struct ArchiveTree {
    /// The first one is the root.
    nodes: Vec<TreeNode>,
}

/// A file, directory or other inode. Hard links are several names of one node.
#[derive(Debug)]
pub struct TreeNode {
    pub kind: NodeKind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub attributes: Attributes,
    /// Number of names; of a directory, 1.
    pub link_count: u32,
}

#[derive(Debug)]
pub enum NodeKind {
    /// Names, sorted bytewise, and their nodes.
    Directory(Vec<(Box<[u8]>, NodeId)>),
    File(FileData),
    /// The target.
    Symlink(Box<[u8]>),
    Fifo,
    /// Major and minor number.
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// Where the data of a regular file is.
#[derive(Debug)]
pub struct FileData {
    /// Size of the file, holes included.
    pub file_bytes: u64,
    /// Bytes of data in the archive.
    pub stored_bytes: u64,
    /// Offset of the stored data in the archive.
    pub offset: u64,
    /// Where the stored data belongs, if the file is sparse.
    pub extents: Option<Box<[Extent]>>,
    /// Hash of the stored data. `None` if no sums tell it.
    pub hash: Option<ContentHash>,
}

impl ArchiveTree {
    pub const ROOT: NodeId = 0;

    pub fn node(&self, id: NodeId) -> &TreeNode {
        &self.nodes[id as usize]
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns what is in a directory; nothing if `id` is none.
    pub fn children(&self, id: NodeId) -> &[(Box<[u8]>, NodeId)] {
        match &self.node(id).kind {
            NodeKind::Directory(children) => children,
            _ => &[],
        }
    }

    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let children = self.children(directory);
        let at = children.binary_search_by(|(child, _)| (**child).cmp(name));
        at.ok().map(|at| children[at].1)
    }

    /// Finds the node at a normalised path; `None` if there is none.
    ///
    /// # Errors
    /// When the path leads through a symlink, which is not followed.
    pub fn find(&self, path: &[u8]) -> Result<Option<NodeId>> {
        let (mut at, mut rest) = (ArchiveTree::ROOT, path);
        while !rest.is_empty() {
            if let NodeKind::Symlink(target) = &self.node(at).kind {
                let symlink = &path[..path.len() - rest.len() - 1];
                bail!(
                    "{} is a symlink to {}, which is not followed: name what it leads to",
                    display_path(symlink),
                    display_path(target)
                );
            }
            let (name, more) = split_first(rest);
            let Some(child) = self.child(at, name) else {
                return Ok(None);
            };
            (at, rest) = (child, more);
        }
        Ok(Some(at))
    }

    /// Adds a regular file without data to the root, unless its name is taken.
    /// Its data is not in the archive.
    pub fn add_beside(&mut self, name: &str, node: TreeNode) -> Option<NodeId> {
        let id = NodeId::try_from(self.nodes.len()).ok()?;
        let NodeKind::Directory(children) = &mut self.nodes[0].kind else {
            return None;
        };
        let at = children.binary_search_by(|(child, _)| (**child).cmp(name.as_bytes()));
        let at = at.err()?;
        children.insert(at, (name.as_bytes().into(), id));
        self.nodes.push(node);
        Some(id)
    }

    /// Returns all regular files by their paths, as [`display_path`] shows them. Several
    /// names may look the same.
    pub fn files_by_shown_path(&self) -> HashMap<String, Vec<NodeId>> {
        let mut files: HashMap<String, Vec<NodeId>> = HashMap::new();
        let mut path = String::new();
        let mut stack = vec![(ArchiveTree::ROOT, 0, 0)];
        while let Some((directory, next, path_bytes)) = stack.pop() {
            path.truncate(path_bytes);
            let Some((name, child)) = self.children(directory).get(next) else {
                continue;
            };
            stack.push((directory, next + 1, path_bytes));
            path.push_str(&display_path(name));
            if self.is_directory(*child) {
                path.push('/');
                stack.push((*child, 0, path.len()));
            } else if let NodeKind::File(_) = self.node(*child).kind {
                files.entry(path.clone()).or_default().push(*child);
            }
        }
        files
    }

    /// Returns the bytes and the number of all that is at and below each node.
    /// A file with several names counts at the first one.
    fn totals(&self) -> Vec<Totals> {
        let mut totals = vec![Totals::default(); self.nodes.len()];
        let mut is_counted = vec![false; self.nodes.len()];
        let mut stack = vec![(ArchiveTree::ROOT, 0)];
        while let Some((id, next)) = stack.pop() {
            let Some((_, child)) = self.children(id).get(next) else {
                if let Some((parent, _)) = stack.last() {
                    let below = totals[id as usize];
                    totals[*parent as usize].add(below);
                }
                continue;
            };
            stack.push((id, next + 1));
            if self.is_directory(*child) {
                totals[*child as usize].count += 1;
                stack.push((*child, 0));
                continue;
            }
            let is_first = !std::mem::replace(&mut is_counted[*child as usize], true);
            let own = Totals {
                bytes: self.file_bytes(*child),
                count: 1,
            };
            totals[*child as usize] = own;
            let bytes = if is_first { own.bytes } else { 0 };
            totals[id as usize].add(Totals { bytes, ..own });
        }
        totals
    }

    pub fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.node(id).kind, NodeKind::Directory(_))
    }

    /// Size of a regular file, 0 of everything else.
    pub fn file_bytes(&self, id: NodeId) -> u64 {
        match &self.node(id).kind {
            NodeKind::File(data) => data.file_bytes,
            _ => 0,
        }
    }
}

/// Sum of what is below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    bytes: u64,
    count: u64,
}

impl Totals {
    fn add(&mut self, other: Totals) {
        // A hostile archive may have sizes whose sum is too large.
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.count += other.count;
    }
}

impl NodeKind {
    /// What it is called in messages and in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            NodeKind::Directory(_) => Kind::Directory,
            NodeKind::File(_) => Kind::File,
            NodeKind::Symlink(_) => Kind::Symlink,
            NodeKind::Fifo => Kind::Fifo,
            NodeKind::CharDevice(..) => Kind::CharDevice,
            NodeKind::BlockDevice(..) => Kind::BlockDevice,
        }
        .name()
    }
}
