//! Makes the tree from the members, by the rules by which a restore unpacks them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};

use super::{ArchiveTree, Attributes, FileData, NodeId, NodeKind, TreeNode};
use crate::archive::implied::ImpliedDirectories;
use crate::archive::member_path::{normalise, split, split_first};
use crate::archive::sums::Sums;
use crate::archive::tar::{Kind, Member, Reader};
use crate::scan::Extent;
use crate::sys::progress;

/// Memory that any tree may take. Beyond that, its members may take as much as they
/// take in the archive: headers can be made that need far more.
const MEMORY_BYTES: u64 = 64 << 20;
/// What a node needs without its name and what belongs to its kind.
const NODE_BYTES: u64 = 160;

/// Which hashes of members are known.
#[derive(Clone, Copy)]
pub enum SumsUse<'a> {
    None,
    /// Those of the sums that lie beside the archive.
    Beside(&'a Sums),
}

impl ArchiveTree {
    /// Reads the headers of all members that `reader` has left.
    ///
    /// # Errors
    /// Names the member that is damaged, or cannot be unpacked after those before it.
    pub fn read(
        reader: &mut Reader<'_>,
        sums: SumsUse<'_>,
        cancel: &AtomicBool,
    ) -> Result<ArchiveTree> {
        let mut builder = Builder::new();
        for at in 0.. {
            let Some(member) = reader.next_member()? else {
                break;
            };
            ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
            progress::step();
            let hash = match sums {
                SumsUse::Beside(sums) => sums.content(at, &member),
                SumsUse::None => None,
            };
            let (name, end) = (member.name(), member.end());
            builder
                .add(member, hash)
                .and_then(|()| builder.check_memory(end))
                .with_context(|| name)?;
        }
        builder.link()?;
        Ok(builder.finish())
    }
}

type Children = BTreeMap<Box<[u8]>, NodeId>;

struct Link {
    path: Vec<u8>,
    target: Vec<u8>,
}

struct Builder {
    nodes: Vec<TreeNode>,
    /// What is in each node that is a directory.
    children: BTreeMap<NodeId, Children>,
    /// Hard links, whose targets may come later.
    links: Vec<Link>,
    /// Attributes of the last member, which many members have in common.
    attributes: Attributes,
    /// Estimate of the memory that all of it takes.
    memory_bytes: u64,
    implied: ImpliedDirectories,
    /// Where the last member begins in the archive.
    position: u64,
}

impl Builder {
    fn new() -> Builder {
        let mut builder = Builder {
            nodes: Vec::new(),
            children: BTreeMap::new(),
            links: Vec::new(),
            attributes: Arc::new([]),
            memory_bytes: 0,
            implied: ImpliedDirectories::default(),
            position: 0,
        };
        builder.push(implied_directory());
        builder
    }

    fn add(&mut self, member: Member, hash: Option<crate::archive::ContentHash>) -> Result<()> {
        self.position = member.start;
        let path = normalise(&member.path)?;
        if path.is_empty() {
            ensure!(
                member.kind == Kind::Directory,
                "it takes the place of the root"
            );
            let node = self.node(member, hash)?;
            self.nodes[ArchiveTree::ROOT as usize] = node;
            return Ok(());
        }
        if member.kind == Kind::HardLink {
            let target = normalise(&member.link).context("the target of the hard link")?;
            self.memory_bytes += (path.len() + target.len()) as u64;
            self.links.push(Link { path, target });
            return Ok(());
        }
        let (parent, name) = split(&path);
        let parent = self.directory(parent)?;
        let existing = self.children_of(parent)?.get(name).copied();
        let Some(existing) = existing else {
            let node = self.node(member, hash)?;
            let id = self.push(node);
            return self.name(parent, name, id);
        };
        // The last member of a directory counts, as with tar.
        let is_directory = self.children.contains_key(&existing);
        ensure!(
            is_directory && member.kind == Kind::Directory,
            "the archive has it twice"
        );
        self.nodes[existing as usize] = self.node(member, None)?;
        Ok(())
    }

    /// Returns the directory at `path`. It is made if no member has made it.
    fn directory(&mut self, path: &[u8]) -> Result<NodeId> {
        let (mut at, mut rest) = (ArchiveTree::ROOT, path);
        while !rest.is_empty() {
            let (name, more) = split_first(rest);
            at = match self.children_of(at)?.get(name) {
                Some(child) => *child,
                None => {
                    let above = path.len() - rest.len() + name.len();
                    self.implied.add(&path[..above], self.position)?;
                    let id = self.push(implied_directory());
                    self.name(at, name, id)?;
                    id
                }
            };
            rest = more;
        }
        self.children_of(at)?;
        Ok(at)
    }

    fn children_of(&mut self, directory: NodeId) -> Result<&mut Children> {
        match self.children.get_mut(&directory) {
            Some(children) => Ok(children),
            None => bail!("its name leads through a symlink or a file"),
        }
    }

    fn name(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<()> {
        self.memory_bytes += name.len() as u64;
        let taken = self.children_of(parent)?.insert(name.into(), id);
        ensure!(taken.is_none(), "the archive has it twice");
        Ok(())
    }

    fn push(&mut self, node: TreeNode) -> NodeId {
        // More nodes than this do not fit into the memory that a tree may take.
        let id = self.nodes.len() as NodeId;
        if matches!(node.kind, NodeKind::Directory(_)) {
            self.children.insert(id, Children::new());
        }
        self.memory_bytes += NODE_BYTES;
        self.nodes.push(node);
        id
    }

    fn node(
        &mut self,
        member: Member,
        hash: Option<crate::archive::ContentHash>,
    ) -> Result<TreeNode> {
        if *self.attributes != member.attributes[..] {
            let bytes = member
                .attributes
                .iter()
                .map(|(name, value)| name.len() + value.len());
            self.memory_bytes += bytes.sum::<usize>() as u64;
            self.attributes = member.attributes.into();
        }
        let (major, minor) = member.device;
        let kind = match member.kind {
            Kind::Directory => NodeKind::Directory(Vec::new()),
            Kind::File => {
                let extents = member.extents.map(Vec::into_boxed_slice);
                let count = extents.as_ref().map_or(0, |extents| extents.len());
                self.memory_bytes += (count * size_of::<Extent>()) as u64;
                NodeKind::File(FileData {
                    file_bytes: member.file_bytes,
                    stored_bytes: member.stored_bytes,
                    offset: member.data,
                    extents,
                    hash,
                })
            }
            Kind::Symlink => {
                self.memory_bytes += member.link.len() as u64;
                NodeKind::Symlink(member.link.into())
            }
            Kind::Fifo => NodeKind::Fifo,
            Kind::CharDevice => NodeKind::CharDevice(major, minor),
            Kind::BlockDevice => NodeKind::BlockDevice(major, minor),
            Kind::HardLink => bail!("a hard link has no node of its own"),
        };
        Ok(TreeNode {
            kind,
            mode: member.mode & 0o7777,
            uid: member.uid,
            gid: member.gid,
            mtime_s: member.mtime_s,
            mtime_ns: member.mtime_ns,
            attributes: self.attributes.clone(),
            link_count: 1,
        })
    }

    fn check_memory(&self, archive_bytes: u64) -> Result<()> {
        ensure!(
            self.memory_bytes <= MEMORY_BYTES + archive_bytes,
            "the members up to here take more memory than room in the archive"
        );
        Ok(())
    }

    /// Names the hard links, when all members are known.
    fn link(&mut self) -> Result<()> {
        for Link { path, target } in std::mem::take(&mut self.links) {
            self.add_link(&path, &target)
                .with_context(|| crate::sys::format::display_path(&path))?;
        }
        Ok(())
    }

    fn add_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let (mut at, mut rest) = (Some(ArchiveTree::ROOT), target);
        while let Some(directory) = at.filter(|_| !rest.is_empty()) {
            let (name, more) = split_first(rest);
            let children = self.children.get(&directory);
            at = children.and_then(|children| children.get(name)).copied();
            rest = more;
        }
        let found = at.filter(|id| !self.children.contains_key(id));
        let id = found.context("the target of the hard link is not in the archive")?;
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        self.name(parent, name, id)?;
        self.nodes[id as usize].link_count += 1;
        Ok(())
    }

    fn finish(self) -> ArchiveTree {
        let mut nodes = self.nodes;
        for (id, children) in self.children {
            nodes[id as usize].kind = NodeKind::Directory(children.into_iter().collect());
        }
        ArchiveTree { nodes }
    }
}

/// A directory that has no member, but members in it.
fn implied_directory() -> TreeNode {
    TreeNode {
        kind: NodeKind::Directory(Vec::new()),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime_s: 0,
        mtime_ns: 0,
        attributes: Arc::new([]),
        link_count: 1,
    }
}
