//! What changed between two archives.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{self, AtomicBool};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{ArchiveTree, FileData, NodeId, NodeKind, Totals, TreeNode};
use crate::archive::tar::is_manifest_path;
use crate::sys::format::{count, display_path, human_bytes, instant};
use crate::sys::progress;

const READ_BYTES: usize = 256 << 10;

/// A tree, and the archive that it was made from.
#[derive(Clone, Copy)]
pub struct OpenTree<'a> {
    pub tree: &'a ArchiveTree,
    pub file: &'a File,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveDiff {
    pub before: String,
    pub after: String,
    /// Bytes of all files below each tree of the stack, before and after.
    pub trees: BTreeMap<String, [u64; 2]>,
    /// Sorted by path.
    pub differences: Vec<MemberDifference>,
    /// Number of members that are the same in both.
    pub same_count: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberDifference {
    /// Member path; a directory's ends with a slash.
    pub path: String,
    pub change: MemberChange,
    /// Bytes of the file, or of all files below the directory; `null` where it is not.
    pub before_bytes: Option<u64>,
    pub after_bytes: Option<u64>,
    /// Number of members that were added or removed with it.
    pub member_count: u64,
    /// What is different about a member that is in both archives.
    pub aspects: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberChange {
    Added,
    Removed,
    Changed,
}

impl ArchiveDiff {
    /// Compares two archives. The manifests do not count, and neither do the times of
    /// directories, which change with each name in them. Data is compared by its hashes
    /// where both are known, and read otherwise.
    ///
    /// # Errors
    /// When an archive cannot be read.
    pub fn of(
        before: OpenTree<'_>,
        after: OpenTree<'_>,
        names: [String; 2],
        cancel: &AtomicBool,
    ) -> Result<ArchiveDiff> {
        let [before_name, after_name] = names;
        let mut comparison = TreeComparison {
            sides: [before, after],
            totals: [before.tree.totals(), after.tree.totals()],
            cancel,
            differences: Vec::new(),
            same_count: 0,
        };
        comparison.run()?;
        let trees = comparison.trees();
        Ok(ArchiveDiff {
            before: before_name,
            after: after_name,
            trees,
            differences: comparison.differences,
            same_count: comparison.same_count,
        })
    }

    /// Returns the growth of each tree, a line for each difference (`+` is only in the
    /// second archive, `-` only in the first, `~` differs), and a sum.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (path, [before, after]) in &self.trees {
            text.push_str(&format!("  {path}: {}\n", sizes(*before, *after)));
        }
        for difference in &self.differences {
            text.push_str(&difference.line());
        }
        let sum = |change| {
            let of_kind = self.differences.iter().filter(|d| d.change == change);
            of_kind.map(|d| d.member_count).sum::<u64>()
        };
        text + &format!(
            "{} added, {} removed, {} changed, {} the same\n",
            sum(MemberChange::Added),
            sum(MemberChange::Removed),
            sum(MemberChange::Changed),
            self.same_count
        )
    }
}

impl MemberDifference {
    fn line(&self) -> String {
        let (sign, bytes) = match self.change {
            MemberChange::Added => ('+', self.after_bytes),
            MemberChange::Removed => ('-', self.before_bytes),
            MemberChange::Changed => {
                return format!("~ {}: {}\n", self.path, self.aspects.join(", "));
            }
        };
        let bytes = human_bytes(bytes.unwrap_or_default());
        match self.member_count {
            1 => format!("{sign} {}: {bytes}\n", self.path),
            members => format!(
                "{sign} {}: {bytes} in {}\n",
                self.path,
                count(members, "member")
            ),
        }
    }
}

fn sizes(before: u64, after: u64) -> String {
    let growth = match before.cmp(&after) {
        Ordering::Less => format!(" (+{})", human_bytes(after - before)),
        Ordering::Equal => return human_bytes(after),
        Ordering::Greater => format!(" (-{})", human_bytes(before - after)),
    };
    format!("{} -> {}{growth}", human_bytes(before), human_bytes(after))
}

struct TreeComparison<'a> {
    sides: [OpenTree<'a>; 2],
    totals: [Vec<Totals>; 2],
    cancel: &'a AtomicBool,
    differences: Vec<MemberDifference>,
    same_count: u64,
}

/// A name, and its node on each side.
type Pair<'a> = (&'a [u8], [Option<NodeId>; 2]);

impl<'a> TreeComparison<'a> {
    fn run(&mut self) -> Result<()> {
        let mut path = Vec::new();
        let root = self.pairs([ArchiveTree::ROOT; 2]);
        let mut stack = vec![(root.into_iter(), 0)];
        while let Some((pairs, path_bytes)) = stack.last_mut() {
            ensure!(!self.cancel.load(atomic::Ordering::Relaxed), "interrupted");
            progress::step();
            path.truncate(*path_bytes);
            let Some((name, nodes)) = pairs.next() else {
                stack.pop();
                continue;
            };
            if stack.len() == 1 && is_manifest_path(name) {
                continue;
            }
            path.extend_from_slice(name);
            let [Some(before), Some(after)] = nodes else {
                self.add_one_sided(&path, nodes);
                continue;
            };
            let context = || format!("cannot compare {}", display_path(&path));
            let aspects = self.aspects(before, after).with_context(context)?;
            self.add(&path, [before, after], aspects);
            if self.is_directory(0, before) && self.is_directory(1, after) {
                path.push(b'/');
                let inner = self.pairs([before, after]);
                stack.push((inner.into_iter(), path.len()));
            }
        }
        Ok(())
    }

    fn is_directory(&self, side: usize, id: NodeId) -> bool {
        self.sides[side].tree.is_directory(id)
    }

    /// Returns all names in two directories, sorted.
    fn pairs(&self, directories: [NodeId; 2]) -> Vec<Pair<'a>> {
        let [before, after] = self.sides;
        let mut pairs: BTreeMap<&[u8], [Option<NodeId>; 2]> = BTreeMap::new();
        for (side, tree) in [before.tree, after.tree].into_iter().enumerate() {
            for (name, id) in tree.children(directories[side]) {
                pairs.entry(name).or_default()[side] = Some(*id);
            }
        }
        pairs.into_iter().collect()
    }

    fn shown(&self, path: &[u8], side: usize, id: NodeId) -> String {
        let slash = if self.is_directory(side, id) { "/" } else { "" };
        display_path(path) + slash
    }

    fn add_one_sided(&mut self, path: &[u8], nodes: [Option<NodeId>; 2]) {
        let side = usize::from(nodes[0].is_none());
        let Some(id) = nodes[side] else { return };
        let total = self.totals[side][id as usize];
        let mut bytes = [None, None];
        bytes[side] = Some(total.bytes);
        self.differences.push(MemberDifference {
            path: self.shown(path, side, id),
            change: match side {
                0 => MemberChange::Removed,
                _ => MemberChange::Added,
            },
            before_bytes: bytes[0],
            after_bytes: bytes[1],
            member_count: total.count,
            aspects: Vec::new(),
        });
    }

    fn add(&mut self, path: &[u8], [before, after]: [NodeId; 2], aspects: Vec<String>) {
        if aspects.is_empty() {
            self.same_count += 1;
            return;
        }
        self.differences.push(MemberDifference {
            path: self.shown(path, 1, after),
            change: MemberChange::Changed,
            before_bytes: Some(self.totals[0][before as usize].bytes),
            after_bytes: Some(self.totals[1][after as usize].bytes),
            member_count: 1,
            aspects,
        });
    }

    /// Returns what is different about a member that both archives have.
    fn aspects(&self, before: NodeId, after: NodeId) -> Result<Vec<String>> {
        let [was, is] = [before, after];
        let (was, is) = (self.sides[0].tree.node(was), self.sides[1].tree.node(is));
        let mut aspects = Vec::new();
        let mut compare = |what: &str, was: String, is: String| {
            if was != is {
                aspects.push(format!("{what} {was} -> {is}"));
            }
        };
        let kinds = (was.kind.name(), is.kind.name());
        compare("type", kinds.0.to_owned(), kinds.1.to_owned());
        match (&was.kind, &is.kind) {
            (NodeKind::Symlink(was), NodeKind::Symlink(is)) => {
                compare("target", display_path(was), display_path(is));
            }
            (NodeKind::CharDevice(was_major, was_minor), NodeKind::CharDevice(major, minor))
            | (NodeKind::BlockDevice(was_major, was_minor), NodeKind::BlockDevice(major, minor)) => {
                compare(
                    "device",
                    format!("{was_major}:{was_minor}"),
                    format!("{major}:{minor}"),
                );
            }
            _ => {}
        }
        if kinds.0 == kinds.1 && kinds.0 != "symlink" {
            compare(
                "mode",
                format!("{:04o}", was.mode),
                format!("{:04o}", is.mode),
            );
        }
        let owner = |node: &TreeNode| format!("{}:{}", node.uid, node.gid);
        compare("owner", owner(was), owner(is));
        if !matches!(is.kind, NodeKind::Directory(_)) {
            compare(
                "mtime",
                instant(was.mtime_s, was.mtime_ns),
                instant(is.mtime_s, is.mtime_ns),
            );
            compare(
                "names",
                was.link_count.to_string(),
                is.link_count.to_string(),
            );
        }
        if was.attributes != is.attributes {
            aspects.push("attributes".to_owned());
        }
        if let (NodeKind::File(was), NodeKind::File(is)) = (&was.kind, &is.kind) {
            if was.file_bytes != is.file_bytes {
                aspects.insert(0, format!("size {}", sizes(was.file_bytes, is.file_bytes)));
            } else if !self.is_same_content(was, is)? {
                let size = human_bytes(is.file_bytes);
                aspects.insert(0, format!("content ({size})"));
            }
        }
        Ok(aspects)
    }

    fn is_same_content(&self, was: &FileData, is: &FileData) -> Result<bool> {
        if was.has_layout_of(is)
            && let (Some(was), Some(is)) = (&was.hash, &is.hash)
            && let Some(is_same) = was.is_same(is)
        {
            return Ok(is_same);
        }
        let mut buffers = [vec![0; READ_BYTES], vec![0; READ_BYTES]];
        let mut offset = 0;
        while offset < is.file_bytes {
            ensure!(!self.cancel.load(atomic::Ordering::Relaxed), "interrupted");
            progress::step();
            // Where both have a hole, there is nothing to be read.
            let data = [was.next_data(offset), is.next_data(offset)];
            let Some(next) = data.into_iter().flatten().min() else {
                break;
            };
            let [was_buffer, is_buffer] = &mut buffers;
            let got = was.read_at(self.sides[0].file, was_buffer, next)?;
            is.read_at(self.sides[1].file, is_buffer, next)?;
            if was_buffer[..got] != is_buffer[..got] {
                return Ok(false);
            }
            offset = next + got as u64;
        }
        Ok(true)
    }

    /// Sums up the stack's directory, each volume, and all binds and files.
    fn trees(&self) -> BTreeMap<String, [u64; 2]> {
        let mut trees: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        for (side, OpenTree { tree, .. }) in self.sides.into_iter().enumerate() {
            let mut add = |path: String, id: NodeId| {
                let bytes = self.totals[side][id as usize].bytes;
                trees.entry(path).or_default()[side] = bytes;
            };
            for (name, id) in tree.children(ArchiveTree::ROOT) {
                if is_manifest_path(name) {
                    continue;
                }
                if !name.ends_with(b".volumes") {
                    add(display_path(name), *id);
                    continue;
                }
                for (volume, id) in tree.children(*id) {
                    add(
                        format!("{}/{}", display_path(name), display_path(volume)),
                        *id,
                    );
                }
            }
        }
        trees
    }
}
