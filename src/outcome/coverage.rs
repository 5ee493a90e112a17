//! Where a stack keeps data, and what of it an archive holds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::sys::format::list_names;

/// A place where a stack keeps data, and whether the archive holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountCoverage {
    pub kind: MountKind,
    /// Name of a volume, or path on the host.
    pub name: String,
    /// Services that mount it, as `service:/path/in/container`.
    pub used_by: Vec<String>,
    pub archived: bool,
    /// Why it is not archived, or what limits it.
    pub reason: Option<String>,
    /// Whether the configuration says that nobody wants to be told that it is not
    /// archived.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignored: bool,
    /// Whether it is a hole that was none when the stack's holes were last told.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    /// The stack's own directory, or a mount point that was crossed in a tree.
    Directory,
    Volume,
    Bind,
    /// A file that Compose reads.
    File,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl MountCoverage {
    /// Whether it is missing in the archive, and somebody wants to know that.
    pub fn is_hole(&self) -> bool {
        !self.archived && !self.ignored
    }

    /// Returns its kind and name.
    pub fn label(&self) -> String {
        let kind = match self.kind {
            MountKind::Directory => "directory",
            MountKind::Volume => "volume",
            MountKind::Bind => "bind mount",
            MountKind::File => "file",
        };
        format!("{kind} {}", self.name)
    }

    /// Returns what is said of a hole everywhere.
    pub fn hole(&self) -> String {
        let new = if self.is_new { "NEW: " } else { "" };
        let used_by = match self.used_by.as_slice() {
            [] => String::new(),
            used_by => format!(" (used by {})", list_names(used_by, 3)),
        };
        let reason = self.reason.as_deref().unwrap_or("no reason recorded");
        format!("{new}{}{used_by}: {reason}", self.label())
    }
}

/// The holes that were told of each stack, so that the next run knows which are new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ToldHoles(BTreeMap<String, BTreeSet<String>>);

impl ToldHoles {
    /// Marks the holes of a stack that are new, and puts them first. If no holes of
    /// the stack were ever looked for, none is new.
    pub fn mark_new(&self, stack: &str, coverage: &mut [MountCoverage]) {
        let Some(told) = self.0.get(stack) else {
            return;
        };
        for mount in coverage.iter_mut() {
            mount.is_new = mount.is_hole() && !told.contains(&mount.label());
        }
        coverage.sort_by_key(|mount| !mount.is_new);
    }

    /// Remembers the holes of a stack. An empty coverage is that of a stack which
    /// could not be looked at.
    pub fn remember(&mut self, stack: &str, coverage: &[MountCoverage]) {
        if coverage.is_empty() {
            return;
        }
        let holes = coverage.iter().filter(|mount| mount.is_hole());
        let labels = holes.map(MountCoverage::label).collect();
        self.0.insert(stack.to_owned(), labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(name: &str, archived: bool, ignored: bool) -> MountCoverage {
        MountCoverage {
            kind: MountKind::Bind,
            name: name.to_owned(),
            used_by: Vec::new(),
            archived,
            reason: None,
            ignored,
            is_new: false,
        }
    }

    #[test]
    fn holes_that_were_not_told_before_are_new_and_come_first() {
        let mut told = ToldHoles::default();
        let new = |told: &ToldHoles, coverage: &[MountCoverage]| -> Vec<String> {
            let mut coverage = coverage.to_vec();
            told.mark_new("web", &mut coverage);
            let new = coverage.into_iter().take_while(|mount| mount.is_new);
            new.map(|mount| mount.name).collect()
        };
        let first = [bind("/a", false, false), bind("/b", true, false)];
        assert_eq!(new(&told, &first), [""; 0], "nothing was told before");
        told.remember("web", &first);
        assert_eq!(new(&told, &first), [""; 0]);
        let second = [
            bind("/a", false, false),
            bind("/b", false, false),
            bind("/c", false, true),
            bind("/d", false, false),
        ];
        assert_eq!(new(&told, &second), ["/b", "/d"]);
        told.remember("other", &second);
        told.remember("web", &[]);
        assert_eq!(new(&told, &second), ["/b", "/d"], "it was not looked at");
        told.remember("web", &second);
        assert_eq!(new(&told, &second), [""; 0]);
    }
}
