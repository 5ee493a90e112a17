//! Which members are meant by the names on a command line.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::normalise;
use crate::archive::Manifest;

/// Names of members and all beneath them, or of volumes. None includes everything.
#[derive(Debug, Default)]
pub struct Selection {
    names: Vec<Vec<u8>>,
    /// Positions of the names that picked something.
    found: RefCell<BTreeSet<usize>>,
}

impl Selection {
    /// `names` may also be services, if there is a manifest to tell their
    /// volumes and binds.
    ///
    /// # Errors
    /// When a name can be none of a member, or a service has nothing that the
    /// archive holds.
    pub fn new(names: &[String], manifest: Option<&Manifest>) -> Result<Selection> {
        let mut all = Vec::new();
        for name in names {
            match manifest.and_then(|manifest| of_service(manifest, name)) {
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

    /// `path` is normalised.
    pub fn includes(&self, path: &[u8]) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let is_within = |name: &[u8], path: &[u8]| {
            let rest = path.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let slash = path.iter().position(|byte| *byte == b'/');
        let in_volumes = slash
            .filter(|at| path[..*at].ends_with(b".volumes"))
            .map(|at| &path[at + 1..]);
        let includes = |name: &Vec<u8>| {
            is_within(name, path) || in_volumes.is_some_and(|rest| is_within(name, rest))
        };
        let mut is_picked = false;
        // All of them: a name that another one holds, too, is found.
        for (at, name) in self.names.iter().enumerate() {
            if includes(name) {
                self.found.borrow_mut().insert(at);
                is_picked = true;
            }
        }
        is_picked
    }

    /// # Errors
    /// Names what picked nothing.
    pub fn check_all_found(&self) -> Result<()> {
        let found = self.found.borrow();
        match self
            .names
            .iter()
            .enumerate()
            .find(|(at, _)| !found.contains(at))
        {
            Some((_, name)) => bail!(
                "nothing in the archive is called {} (`list ARCHIVE` shows what is)",
                crate::sys::format::display_path(name)
            ),
            None => Ok(()),
        }
    }
}

/// Trees of the archive that a service mounts; `None` if there is no such
/// service.
fn of_service(manifest: &Manifest, service: &str) -> Option<Vec<String>> {
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
        let wanted = match mount.get("type").and_then(Value::as_str) {
            Some("volume") => format!("{}.volumes/{}", manifest.stack, volume.unwrap_or(source)),
            _ => {
                trees.extend(tree_of(manifest, source));
                continue;
            }
        };
        trees.extend(manifest.trees.contains_key(&wanted).then_some(wanted));
    }
    Some(trees.into_iter().collect())
}

/// Member path of what was at `path` on the host.
pub fn tree_of(manifest: &Manifest, path: &str) -> Option<String> {
    let trees = manifest.trees.iter().chain(&manifest.real_trees);
    let within = trees.filter_map(|(prefix, at)| {
        let rest = Path::new(path).strip_prefix(at).ok()?.to_str()?;
        let parts = [prefix.as_str(), rest].into_iter();
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        Some((at.len(), parts.join("/")))
    });
    let (_, member) = within.max()?;
    is_plain(&member).then_some(member)
}

/// # Errors
/// When what a manifest says could lead anywhere: its stack names files, and
/// its trees are paths in the archive.
pub fn check_manifest(manifest: &Manifest) -> Result<()> {
    let stack = &manifest.stack;
    crate::config::plan::check_name(stack).context("the manifest's stack")?;
    for tree in manifest.trees.keys().chain(manifest.real_trees.keys()) {
        let rest = tree.strip_prefix(stack.as_str());
        let is_ours = rest.is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(".volumes/") || rest.starts_with(".binds/")
        });
        ensure!(
            is_ours && is_plain(tree),
            "the manifest has a tree that is none of {stack}: {tree:?}"
        );
    }
    Ok(())
}

fn is_plain(member: &str) -> bool {
    normalise(member.as_bytes()).is_ok_and(|plain| plain == member.as_bytes())
}

#[cfg(test)]
pub fn frozen_manifest() -> Manifest {
    let file = include_bytes!("../../tests/archives/format-1.tar");
    let mut archive = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut archive, file).unwrap();
    let json = crate::archive::read_manifest(&archive).unwrap().unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_picks_a_member_what_is_beneath_it_and_a_volume() {
        let only = Selection::new(&["web/html".to_owned(), "web_data".to_owned()], None).unwrap();
        assert!(only.check_all_found().is_err());
        for path in [
            "web/html",
            "web/html/a",
            "web.volumes/web_data",
            "web.volumes/web_data/x",
        ] {
            assert!(only.includes(path.as_bytes()), "{path}");
        }
        for path in [
            "web",
            "web/html2",
            "web.volumes/web_data2",
            "web_dat",
            "other/web_data",
        ] {
            assert!(!only.includes(path.as_bytes()), "{path}");
        }
        only.check_all_found().unwrap();
        assert!(Selection::default().includes(b"anything"));
        // One name within another, and one twice.
        let names = ["web", "web/html", "web"].map(str::to_owned);
        let nested = Selection::new(&names, None).unwrap();
        assert!(nested.includes(b"web/html/a"));
        nested.check_all_found().unwrap();
    }

    #[test]
    fn a_manifest_that_leads_elsewhere_is_refused() {
        let good = frozen_manifest();
        check_manifest(&good).unwrap();
        for stack in ["", "..", "a/b", "../x"] {
            let manifest = Manifest {
                stack: stack.to_owned(),
                ..good.clone()
            };
            assert!(check_manifest(&manifest).is_err(), "{stack}");
        }
        for tree in [
            "/etc",
            "..",
            "frozen/../..",
            "frozen.volumes/../x",
            "other",
            "frozenx",
        ] {
            let mut manifest = good.clone();
            manifest.trees.insert(tree.to_owned(), "/etc".to_owned());
            assert!(check_manifest(&manifest).is_err(), "{tree}");
        }
        let within = good.trees.get("frozen").unwrap().clone();
        assert_eq!(
            tree_of(&good, &format!("{within}/dir")).as_deref(),
            Some("frozen/dir")
        );
        assert_eq!(tree_of(&good, &format!("{within}/../../etc")), None);
        assert_eq!(tree_of(&good, "/etc"), None);
        assert_eq!(tree_of(&good, &format!("{within}2")), None);
        // By what a symlink leads to, too.
        let mut linked = good.clone();
        assert_eq!(tree_of(&linked, "/data/frozen/dir"), None);
        let real = ("frozen".to_owned(), "/data/frozen".to_owned());
        linked.real_trees.extend([real]);
        check_manifest(&linked).unwrap();
        for path in ["/data/frozen/dir", &format!("{within}/dir")] {
            assert_eq!(tree_of(&linked, path).as_deref(), Some("frozen/dir"));
        }
    }
}
