//! An archive that a command looks into, as a tree.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};

use super::find_archive::{open_archive, read_manifest};
use crate::archive::member_path::normalise;
use crate::archive::tree::{ArchiveTree, NodeId, OpenTree, SumsUse};
use crate::archive::{Manifest, Sums};
use crate::cli::Global;
use crate::restore::{Archive, tree_of};

/// Commands that change nothing handle no signals, so each of these ends them at once, even
/// while a mount does not answer.
pub static NEVER: AtomicBool = AtomicBool::new(false);

/// An open archive and all its headers.
pub struct LookedInto {
    archive: Archive,
    pub manifest: Option<Manifest>,
    pub tree: ArchiveTree,
}

impl LookedInto {
    /// Opens the archive that `what` means, and reads its headers and its sums.
    ///
    /// # Errors
    /// When there is none, or it is damaged, or an older archive than the newest would
    /// be used although `pass_over` does not allow that.
    pub fn open(global: &Global, what: &str, pass_over: bool) -> Result<LookedInto> {
        if what == "-" {
            bail!("an archive on standard input can be read only once: save it to a file first");
        }
        let (archive, passed_over) = open_archive(global, what)?;
        passed_over.check(pass_over)?;
        let manifest = read_manifest(&archive)?;
        let sums = sums_of(&archive)?;
        let sums = sums.as_ref().map_or(SumsUse::None, SumsUse::Beside);
        let tree = archive
            .reader()
            .and_then(|mut reader| ArchiveTree::read(&mut reader, sums, &NEVER))
            .with_context(|| archive.name())?;
        Ok(LookedInto {
            archive,
            manifest,
            tree,
        })
    }

    pub fn name(&self) -> String {
        self.archive.name()
    }

    pub fn file(&self) -> Result<&File> {
        self.archive.file().context("the archive is not a file")
    }

    pub fn open_tree(&self) -> Result<OpenTree<'_>> {
        Ok(OpenTree {
            tree: &self.tree,
            file: self.file()?,
        })
    }

    /// Finds a member by a path as people write it: that in the archive, that on the
    /// host, or one that begins in the stack's directory, or with the name of a volume.
    /// Returns it with its path in the archive.
    ///
    /// # Errors
    /// When there is no such member, or a symlink leads to it.
    pub fn find(&self, path: &Path) -> Result<(NodeId, Vec<u8>)> {
        let bytes = path.as_os_str().as_bytes();
        let mut candidates = Vec::new();
        if bytes.starts_with(b"/") {
            let member = self.manifest.as_ref().zip(path.to_str());
            let member = member.and_then(|(manifest, path)| tree_of(manifest, path));
            let context = || format!("{} is in no tree of the archive", path.display());
            candidates.push(member.with_context(context)?.into_bytes());
        } else {
            let path = normalise(bytes)?;
            candidates.push(path.clone());
            if let Some(manifest) = &self.manifest {
                let stack = manifest.stack.as_bytes();
                candidates.push([stack, b"/", &path].concat());
                candidates.push([stack, b".volumes/", &path].concat());
            }
        }
        let mut symlink = None;
        for candidate in candidates {
            match self.tree.find(&candidate) {
                Ok(Some(id)) => return Ok((id, candidate)),
                Ok(None) => {}
                Err(error) => symlink = symlink.or(Some(error)),
            }
        }
        Err(symlink.unwrap_or_else(|| {
            anyhow::anyhow!(
                "there is no {} in {} (`list --tree ARCHIVE` shows all names)",
                path.display(),
                self.name()
            )
        }))
    }
}

/// Reads the sums beside an archive; `None` if there are none that can be used.
fn sums_of(archive: &Archive) -> Result<Option<Sums>> {
    let (Some(sums), Some(file)) = (archive.sums(), archive.file()) else {
        return Ok(None);
    };
    let path = archive.name();
    match sums {
        Ok(sums) if sums.archive_bytes == file.metadata()?.len() => Ok(Some(sums)),
        Ok(_) => {
            tracing::warn!(path, "the sums beside the archive are of another one");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(path, "cannot use the sums beside the archive: {error:#}");
            Ok(None)
        }
    }
}
