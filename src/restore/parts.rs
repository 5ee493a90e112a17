//! Parts of an archive that are restored in place by themselves, and their sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::archive::Archive;
use super::selection::Selection;
use super::target::Target;
use crate::archive::member_path::{encloses_any, enclosing, normalise, within};
use crate::archive::{Kind, Member};
use crate::sys::format::{count, display_path, human_bytes};

/// The members that are restored, and how much they are.
#[derive(Debug, Default)]
pub struct Parts {
    /// `None` for the whole archive.
    roots: Option<Vec<Vec<u8>>>,
    /// Sizes of the members of each tree or part, by its member path. Empty if the archive
    /// can be read only once.
    sizes: BTreeMap<Vec<u8>, PartSize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PartSize {
    file_bytes: u64,
    /// Without holes.
    stored_bytes: u64,
    member_count: u64,
}

impl Parts {
    /// Reads the headers of an archive. `trees` are the member paths of its trees.
    ///
    /// # Errors
    /// When it cannot be read, when a selected name is not in it, has several meanings or is a
    /// link, or when something is selected in an archive that can be read only once.
    pub fn find(archive: &Archive, selection: &Selection, trees: &[Vec<u8>]) -> Result<Parts> {
        let Archive::File { .. } = archive else {
            if selection.is_whole() {
                return Ok(Parts::default());
            }
            bail!(
                "a part is restored in place from a file only, because the archive is read twice: \
                 save it to a file first"
            )
        };
        if selection.is_whole() {
            // What cannot be read is an error when it is unpacked, and undone.
            let sizes = sizes_of(archive, trees, |_| Ok(())).unwrap_or_else(|error| {
                tracing::warn!("the sizes are not known: {error:#}");
                BTreeMap::new()
            });
            return Ok(Parts { roots: None, sizes });
        }
        for_each_member(archive, |path, _| {
            selection.includes(path);
            Ok(())
        })?;
        let roots = selection.roots()?;
        let sizes = sizes_of(archive, &roots, |root| {
            let is_link = matches!(root.kind, Kind::Symlink | Kind::HardLink);
            ensure!(
                !is_link,
                "{} is a symlink, or a further name of another file: name the directory that it is \
                 in",
                root.name()
            );
            Ok(())
        })?;
        Ok(Parts {
            roots: Some(roots),
            sizes,
        })
    }

    /// Whether the whole archive is restored.
    pub fn is_whole(&self) -> bool {
        self.roots.is_none()
    }

    /// Whether a member is restored: it is in a part, or a directory above one. Only what is
    /// missing on the host is made of such directories.
    pub(super) fn includes(&self, path: &[u8]) -> bool {
        let Some(roots) = &self.roots else {
            return true;
        };
        root_of(roots, path).is_some() || encloses_any(path, roots)
    }

    /// Whether something of a tree is restored.
    pub(super) fn touches(&self, tree: &str) -> bool {
        self.includes(tree.as_bytes())
    }

    /// Returns the sum of the sizes of what is in `prefix`, for people; `None` if it is not
    /// known.
    pub(super) fn size_in(&self, prefix: &str) -> Option<String> {
        let sum = self.sum_in(prefix)?;
        Some(format!(
            "{} in {}",
            human_bytes(sum.file_bytes),
            count(sum.member_count, "member")
        ))
    }

    /// Returns how much data is unpacked for `prefix`; 0 if that is not known.
    pub(super) fn stored_bytes(&self, prefix: &str) -> u64 {
        self.sum_in(prefix).unwrap_or_default().stored_bytes
    }

    fn sum_in(&self, prefix: &str) -> Option<PartSize> {
        let prefix = prefix.as_bytes();
        let mut found = self
            .sizes
            .iter()
            .filter(|(root, _)| within(root, prefix).is_some() || within(prefix, root).is_some());
        let first = found.next()?.1;
        Some(found.fold(*first, |sum, (_, size)| PartSize {
            file_bytes: sum.file_bytes.saturating_add(size.file_bytes),
            stored_bytes: sum.stored_bytes.saturating_add(size.stored_bytes),
            member_count: sum.member_count + size.member_count,
        }))
    }

    /// Returns what is exchanged on this host: whole trees, or what is at the paths of the
    /// parts in them. Where the directory of a part is missing, it is the outermost missing
    /// one.
    ///
    /// # Errors
    /// When a part is in none of the trees, or has a name that is no text.
    pub(super) fn targets(&self, trees: &[Target]) -> Result<Vec<Target>> {
        let Some(roots) = &self.roots else {
            return Ok(trees.to_vec());
        };
        let mut targets: Vec<Target> = Vec::new();
        let mut paths = BTreeSet::new();
        for root in roots {
            let inside = trees
                .iter()
                .filter(|tree| within(tree.prefix.as_bytes(), root).is_some());
            let mut found: Vec<Target> = inside.cloned().collect();
            if found.is_empty() {
                found.push(target_in(root, trees)?);
            }
            for target in found {
                if paths.insert(target.path.clone()) {
                    targets.push(target);
                }
            }
        }
        Ok(targets)
    }
}

/// Returns the one of the sorted `roots` that a member is within. There may be very many.
fn root_of<'r>(roots: &'r [Vec<u8>], path: &[u8]) -> Option<&'r Vec<u8>> {
    let whole = roots.first().filter(|root| root.is_empty());
    whole.or_else(|| enclosing(roots, path))
}

/// Returns the target of a part that is within a tree.
fn target_in(root: &[u8], trees: &[Target]) -> Result<Target> {
    let of = |tree: &Target| within(root, tree.prefix.as_bytes()).map(<[u8]>::to_vec);
    let tree = trees.iter().filter(|tree| of(tree).is_some());
    let tree = tree.max_by_key(|tree| tree.prefix.len()).with_context(|| {
        format!(
            "{} is in none of the directories and volumes of the archive: unpack it with --to",
            display_path(root)
        )
    })?;
    let rest = of(tree).unwrap_or_default();
    let rest = Path::new(OsStr::from_bytes(&rest));
    let is_missing = |path: &Path| fs::symlink_metadata(path).is_err();
    let mut inside = Path::new("").to_owned();
    // Nothing of the tree is there, or all that is above the part.
    for component in rest.components() {
        if is_missing(&tree.path.join(&inside)) {
            break;
        }
        inside.push(component);
    }
    let inside = inside.to_str().with_context(|| {
        format!(
            "the name of {} is not UTF-8: unpack it with --to",
            display_path(root)
        )
    })?;
    if inside.is_empty() {
        return Ok(tree.clone());
    }
    // The whole archive is the tree of `tar -C DIR .`, which has no name.
    let above = [tree.prefix.as_str(), inside].into_iter();
    let above: Vec<&str> = above.filter(|part| !part.is_empty()).collect();
    let mut part = Target::new(&above.join("/"), &tree.path.join(inside));
    part.is_in_tree = true;
    Ok(part)
}

/// Returns the size of what is in each of `roots`, and checks the member that each of them is.
fn sizes_of(
    archive: &Archive,
    roots: &[Vec<u8>],
    check_root: impl Fn(&Member) -> Result<()>,
) -> Result<BTreeMap<Vec<u8>, PartSize>> {
    let mut sizes: BTreeMap<Vec<u8>, PartSize> = BTreeMap::new();
    for_each_member(archive, |path, member| {
        let Some(root) = root_of(roots, path) else {
            return Ok(());
        };
        if path == root {
            check_root(member)?;
        }
        let size = sizes.entry(root.clone()).or_default();
        size.file_bytes = size.file_bytes.saturating_add(member.file_bytes);
        size.stored_bytes = size.stored_bytes.saturating_add(member.stored_bytes);
        size.member_count += 1;
        Ok(())
    })?;
    Ok(sizes)
}

fn for_each_member(
    archive: &Archive,
    mut look: impl FnMut(&[u8], &Member) -> Result<()>,
) -> Result<()> {
    let mut reader = archive.reader()?;
    while let Some(member) = reader.next_member().with_context(|| archive.name())? {
        let path = normalise(&member.path).with_context(|| member.name())?;
        look(&path, &member)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(roots: &[&str]) -> Parts {
        Parts {
            roots: Some(roots.iter().map(|root| root.as_bytes().to_vec()).collect()),
            ..Parts::default()
        }
    }

    #[test]
    fn a_part_is_exchanged_where_its_directory_exists() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("web");
        fs::create_dir_all(there.join("conf")).unwrap();
        let trees = [
            Target::new("web", &there),
            Target::new("web.volumes/data", &dir.path().join("none/_data")),
        ];
        let found = |roots: &[&str]| -> Vec<(String, bool)> {
            let targets = parts(roots).targets(&trees).unwrap().into_iter();
            targets
                .map(|target| (target.prefix, target.is_in_tree))
                .collect()
        };
        let of = |prefix: &str, is_in_tree| (prefix.to_owned(), is_in_tree);
        assert_eq!(found(&["web/conf/a"]), [of("web/conf/a", true)]);
        assert_eq!(found(&["web/x/y/z", "web/x/w"]), [of("web/x", true)]);
        assert_eq!(found(&["web"]), [of("web", false)]);
        // What is missing as a whole is made as a whole.
        assert_eq!(
            found(&["web.volumes/data/x"]),
            [of("web.volumes/data", false)]
        );
        assert_eq!(found(&["web.volumes"]), [of("web.volumes/data", false)]);
        assert!(parts(&["other/x"]).targets(&trees).is_err());
        let nameless = parts(&["conf/a"])
            .targets(&[Target::new("", &there)])
            .unwrap();
        assert_eq!(nameless[0].prefix, "conf/a");
        // Only the part, and the directories above it, are unpacked.
        let part = parts(&["web/x/y"]);
        for (path, expected) in [
            ("web", true),
            ("web/x", true),
            ("web/x/y/z", true),
            ("web/x/z", false),
        ] {
            assert_eq!(part.includes(path.as_bytes()), expected, "{path}");
        }
        assert!(!parts(&["web"]).includes(b"web2"));
    }
}
