//! The trees that a manifest lists: member paths, and their paths on the host.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::archive::Manifest;
use crate::archive::member_path::normalise;

/// Returns the member path of the file that had the path `path` on the host.
pub fn tree_of(manifest: &Manifest, path: &str) -> Option<String> {
    let trees = manifest.trees.iter().chain(&manifest.real_trees);
    let within = trees.filter_map(|(prefix, at)| {
        let rest = Path::new(path).strip_prefix(at).ok()?.to_str()?;
        let parts = [prefix.as_str(), rest].into_iter();
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        Some((at.len(), parts.join("/")))
    });
    let (_, member) = within.max()?;
    is_normalised(&member).then_some(member)
}

/// Checks that the stack's name and the member paths of a manifest are safe to
/// use. Paths of files are made from them, so a forged manifest could name any
/// file of the host otherwise.
///
/// # Errors
/// Names the first bad one.
pub fn check_manifest(manifest: &Manifest) -> Result<()> {
    let stack = &manifest.stack;
    crate::config::plan::check_name(stack).context("the manifest's stack")?;
    for tree in manifest.trees.keys().chain(manifest.real_trees.keys()) {
        let rest = tree.strip_prefix(stack.as_str());
        let is_of_stack = rest.is_some_and(|rest| {
            let kinds = [".volumes/", ".binds/", ".files/"];
            rest.is_empty() || kinds.iter().any(|kind| rest.starts_with(kind))
        });
        ensure!(
            is_of_stack && is_normalised(tree),
            "the manifest has a tree that is not part of {stack}: {tree:?}"
        );
    }
    Ok(())
}

fn is_normalised(member: &str) -> bool {
    normalise(member.as_bytes()).is_ok_and(|normalised| normalised == member.as_bytes())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The manifest of an archive of format 1 that is kept in the repository.
    pub fn frozen_manifest() -> Manifest {
        let file = include_bytes!("../../tests/archives/format-1.tar");
        let mut archive = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut archive, file).unwrap();
        let json = crate::archive::read_manifest(&archive).unwrap().unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn a_manifest_that_names_other_paths_is_refused() {
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
    }

    #[test]
    fn a_path_on_the_host_has_a_member_path_if_it_is_in_a_tree() {
        let good = frozen_manifest();
        let within = good.trees.get("frozen").unwrap().clone();
        assert_eq!(
            tree_of(&good, &format!("{within}/dir")).as_deref(),
            Some("frozen/dir")
        );
        assert_eq!(tree_of(&good, &format!("{within}/../../etc")), None);
        assert_eq!(tree_of(&good, "/etc"), None);
        assert_eq!(tree_of(&good, &format!("{within}2")), None);
        // The path without symlinks leads to the same member.
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
