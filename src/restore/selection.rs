//! The members that the names on a command line select.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::Value;

use super::trees::tree_of;
use crate::archive::Manifest;
use crate::archive::member_path::{normalise, within};
use crate::sys::format::display_path;

/// Selects members by name, each with everything beneath it, and volumes by
/// name. Without names, everything is selected.
#[derive(Debug, Default)]
pub struct Selection {
    names: Vec<Vec<u8>>,
    /// Positions of the names that a member matched.
    found: RefCell<BTreeSet<usize>>,
}

impl Selection {
    /// With a manifest, `names` may also be services, which select their
    /// volumes and binds.
    ///
    /// # Errors
    /// When a name cannot be a member's, or the archive holds nothing of a
    /// service.
    pub fn new(names: &[String], manifest: Option<&Manifest>) -> Result<Selection> {
        let mut all = Vec::new();
        for name in names {
            match manifest.and_then(|manifest| trees_of_service(manifest, name)) {
                Some(trees) if trees.is_empty() => {
                    bail!("service {name} has no volume or bind that the archive holds")
                }
                Some(trees) => all.extend(trees.into_iter().map(String::into_bytes)),
                None => all.push(normalise(name.as_bytes())?),
            }
        }
        Ok(Selection {
            names: all,
            found: RefCell::default(),
        })
    }

    /// Whether the member with the normalised path `path` is selected.
    pub fn includes(&self, path: &[u8]) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let slash = path.iter().position(|byte| *byte == b'/');
        let in_volumes = slash
            .filter(|at| path[..*at].ends_with(b".volumes"))
            .map(|at| &path[at + 1..]);
        let matches = |name: &[u8]| {
            is_within(path, name) || in_volumes.is_some_and(|path| is_within(path, name))
        };
        let mut is_included = false;
        // All names are tried, because each of them must be found.
        for (at, name) in self.names.iter().enumerate() {
            if matches(name) {
                self.found.borrow_mut().insert(at);
                is_included = true;
            }
        }
        is_included
    }

    /// Checks that every name matched a member.
    ///
    /// # Errors
    /// Names the first one that matched none.
    pub fn check_all_found(&self) -> Result<()> {
        let found = self.found.borrow();
        let mut names = self.names.iter().enumerate();
        match names.find(|(at, _)| !found.contains(at)) {
            Some((_, name)) => bail!(
                "nothing in the archive is called {} (`list ARCHIVE` shows all names)",
                display_path(name)
            ),
            None => Ok(()),
        }
    }
}

/// Unlike [`within`], the empty name contains nothing but itself.
fn is_within(path: &[u8], name: &[u8]) -> bool {
    within(path, name).is_some_and(|rest| !name.is_empty() || rest.is_empty())
}

/// Returns the member paths of the trees that a service mounts, or `None` if
/// the manifest has no such service.
fn trees_of_service(manifest: &Manifest, service: &str) -> Option<Vec<String>> {
    let config = manifest.compose.get("services")?.get(service)?;
    let mounts = config.get("volumes").and_then(Value::as_array);
    let mut trees = BTreeSet::new();
    for mount in mounts.into_iter().flatten() {
        let source = mount
            .get("source")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let volume = manifest
            .compose
            .get("volumes")
            .and_then(|volumes| volumes.get(source)?.get("name")?.as_str());
        let tree = match mount.get("type").and_then(Value::as_str) {
            Some("volume") => format!("{}.volumes/{}", manifest.stack, volume.unwrap_or(source)),
            _ => {
                trees.extend(tree_of(manifest, source));
                continue;
            }
        };
        trees.extend(manifest.trees.contains_key(&tree).then_some(tree));
    }
    Some(trees.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_selects_a_member_everything_beneath_it_and_a_volume() {
        let names = ["web/html", "web_data"].map(str::to_owned);
        let selection = Selection::new(&names, None).unwrap();
        assert!(selection.check_all_found().is_err());
        for path in [
            "web/html",
            "web/html/a",
            "web.volumes/web_data",
            "web.volumes/web_data/x",
        ] {
            assert!(selection.includes(path.as_bytes()), "{path}");
        }
        for path in [
            "web",
            "web/html2",
            "web.volumes/web_data2",
            "web_dat",
            "other/web_data",
        ] {
            assert!(!selection.includes(path.as_bytes()), "{path}");
        }
        selection.check_all_found().unwrap();
        assert!(Selection::default().includes(b"anything"));
    }

    #[test]
    fn names_that_overlap_are_all_found() {
        let names = ["web", "web/html", "web"].map(str::to_owned);
        let selection = Selection::new(&names, None).unwrap();
        assert!(selection.includes(b"web/html/a"));
        selection.check_all_found().unwrap();
    }
}
