//! Whether what an archive holds can be unpacked: the rules by which `restore`
//! refuses members, as far as the members decide them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use anyhow::{Context, Result, bail, ensure};

use super::implied::ImpliedDirectories;
use super::member_path::{normalise, split};
use super::tar::{Kind, Member};

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    Other,
}

/// Looks at the members of one archive. It keeps a hash of each path.
#[derive(Default)]
pub(super) struct Soundness {
    hasher: RandomState,
    nodes: HashMap<u64, Node>,
    /// The names of hard links, and the hashes of their targets.
    links: Vec<(String, u64)>,
    implied: ImpliedDirectories,
}

impl Soundness {
    /// # Errors
    /// When the member cannot be unpacked after those before it.
    pub(super) fn add(&mut self, member: &Member) -> Result<()> {
        let path = normalise(&member.path)?;
        if path.is_empty() {
            ensure!(
                member.kind == Kind::Directory,
                "it takes the place of the target directory"
            );
            return Ok(());
        }
        self.add_parents(&path, member.start)?;
        let node = match member.kind {
            Kind::Directory => Node::Directory,
            _ => Node::Other,
        };
        let before = self.nodes.insert(self.hash(&path), node);
        let is_repeated = before.is_some_and(|before| before != node || node == Node::Other);
        ensure!(!is_repeated, "the archive has it twice");
        if member.kind == Kind::HardLink {
            let target = normalise(&member.link).context("the target of the hard link")?;
            self.links.push((member.name(), self.hash(&target)));
        }
        Ok(())
    }

    /// Adds the directories above a path that have no member.
    fn add_parents(&mut self, path: &[u8], position: u64) -> Result<()> {
        let mut parent = split(path).0;
        while !parent.is_empty() {
            match self.nodes.insert(self.hash(parent), Node::Directory) {
                Some(Node::Directory) => break,
                Some(Node::Other) => bail!("its name leads through a symlink or a file"),
                None => {
                    self.implied.add(parent, position)?;
                    parent = split(parent).0;
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// When a hard link has no target in the archive.
    pub(super) fn check_links(&self) -> Result<()> {
        for (name, target) in &self.links {
            ensure!(
                self.nodes.get(target) == Some(&Node::Other),
                "{name} cannot be unpacked: the target of the hard link is not in the archive"
            );
        }
        Ok(())
    }

    fn hash(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path)
    }
}
