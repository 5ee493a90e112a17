//! The tree as a list with sizes.

use anyhow::Result;
use serde::Serialize;

use super::{ArchiveTree, NodeId, NodeKind, Totals};
use crate::sys::format::{display_path, human_bytes};

/// Deeper members are indented no further: a hostile archive has thousands of levels.
const INDENT_MAX: usize = 32;

/// A member as a listing shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedMember<'a> {
    /// With a slash at its end if it is a directory.
    pub path: &'a str,
    pub kind: &'static str,
    /// Size of a file; of a directory, that of all files below it.
    pub bytes: u64,
    /// Number of members at and below it.
    pub member_count: u64,
    /// Target of a symlink.
    pub target: Option<String>,
    #[serde(skip)]
    depth: usize,
    /// Where the last component of the path begins.
    #[serde(skip)]
    name_at: usize,
}

impl ListedMember<'_> {
    /// Returns the member's line: its size, and its name indented by its depth.
    pub fn line(&self) -> String {
        let indent = "  ".repeat(self.depth.min(INDENT_MAX));
        let size = match self.kind {
            "file" | "directory" => human_bytes(self.bytes),
            _ => "-".to_owned(),
        };
        let target = self.target.as_ref().map(|target| format!(" -> {target}"));
        format!(
            "{size:>11}  {indent}{}{}\n",
            &self.path[self.name_at..],
            target.unwrap_or_default()
        )
    }
}

impl ArchiveTree {
    /// Lists what is below `top`, whose path is `path`, down to `depth_max` levels; if
    /// it is no directory, itself. A directory comes before its content.
    ///
    /// # Errors
    /// Those of `show`.
    pub fn list(
        &self,
        top: NodeId,
        path: &[u8],
        depth_max: usize,
        mut show: impl FnMut(&ListedMember<'_>) -> Result<()>,
    ) -> Result<()> {
        let totals = self.totals();
        let mut path = display_path(path);
        if !self.is_directory(top) {
            return show(&self.listed(top, &totals, &path, 0, 0));
        }
        if !path.is_empty() {
            path.push('/');
        }
        let mut stack = vec![(top, 0, path.len())];
        while let Some((id, next, path_bytes)) = stack.pop() {
            path.truncate(path_bytes);
            let Some((name, child)) = self.children(id).get(next) else {
                continue;
            };
            let depth = stack.len();
            stack.push((id, next + 1, path_bytes));
            path.push_str(&display_path(name));
            if self.is_directory(*child) {
                path.push('/');
                if depth + 1 < depth_max {
                    stack.push((*child, 0, path.len()));
                }
            }
            show(&self.listed(*child, &totals, &path, path_bytes, depth))?;
        }
        Ok(())
    }

    fn listed<'a>(
        &self,
        id: NodeId,
        totals: &[Totals],
        path: &'a str,
        name_at: usize,
        depth: usize,
    ) -> ListedMember<'a> {
        let kind = &self.node(id).kind;
        let target = match kind {
            NodeKind::Symlink(target) => Some(display_path(target)),
            _ => None,
        };
        ListedMember {
            path,
            kind: kind.name(),
            bytes: totals[id as usize].bytes,
            member_count: totals[id as usize].count,
            target,
            depth,
            name_at,
        }
    }
}
