//! One archive of a view.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};

use super::inodes::Inodes;
use crate::archive::tree::{ArchiveTree, FileData, NodeId, NodeKind, SumsUse, TreeNode};
use crate::archive::{Input, Manifest, Reader, Sums, read_manifest};
use crate::restore::check_manifest;
use crate::sys::paths::open_regular_linked;

/// An archive that is shown as a directory. The file stays open, so it can be read even
/// if the archive is removed meanwhile; its room is free when the view is unmounted.
#[derive(Debug)]
pub struct ViewedArchive {
    path: PathBuf,
    file: File,
    /// Modification time of the archive, for files whose content no sums tell.
    changed: (i64, u32),
    members: OnceLock<Option<ViewedMembers>>,
    has_failed: AtomicBool,
}

/// The members of an archive that was indexed.
#[derive(Debug)]
pub(super) struct ViewedMembers {
    pub(super) tree: ArchiveTree,
    pub(super) inodes: Inodes,
    sums: Option<SumsFile>,
}

/// The sums beside an archive, which are shown as a file of its directory.
#[derive(Debug)]
struct SumsFile {
    file: File,
    node: NodeId,
}

impl ViewedArchive {
    /// Opens an archive. Its headers are read when they are asked for.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<ViewedArchive> {
        let context = || format!("cannot open {}", path.display());
        let file = open_regular_linked(path).with_context(context)?;
        let metadata = file.metadata().with_context(context)?;
        Ok(ViewedArchive {
            path: path.to_owned(),
            file,
            changed: (metadata.mtime(), metadata.mtime_nsec() as u32),
            members: OnceLock::new(),
            has_failed: AtomicBool::new(false),
        })
    }

    /// Returns the stack that the archive is of. `None` if it has no manifest that this
    /// program understands.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn stack(&self) -> Result<Option<String>> {
        let json = read_manifest(&self.file)?;
        let manifest = json.and_then(|json| serde_json::from_slice::<Manifest>(&json).ok());
        // The name of a forged one might be none that a directory can show.
        let manifest = manifest.filter(|manifest| check_manifest(manifest).is_ok());
        Ok(manifest.map(|manifest| manifest.stack))
    }

    /// Reads the headers now.
    ///
    /// # Errors
    /// When the archive is damaged.
    pub fn read(&self, cancel: &AtomicBool) -> Result<()> {
        let members = ViewedMembers::read(self, cancel)
            .with_context(|| format!("cannot show {}", self.path.display()))?;
        let _ = self.members.set(Some(members));
        Ok(())
    }

    /// Returns the members, and reads them the first time. `None` if the archive is
    /// damaged, which is logged.
    pub(super) fn members(&self) -> Option<&ViewedMembers> {
        let read = || match ViewedMembers::read(self, &AtomicBool::new(false)) {
            Ok(members) => Some(members),
            Err(error) => {
                tracing::error!("cannot show {}: {error:#}", self.path.display());
                None
            }
        };
        self.members.get_or_init(read).as_ref()
    }

    pub(super) fn changed(&self) -> (i64, u32) {
        self.changed
    }

    /// Reads the content of a file of this archive.
    pub(super) fn read_file(
        &self,
        members: &ViewedMembers,
        id: NodeId,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        let NodeKind::File(data) = &members.tree.node(id).kind else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let read = match &members.sums {
            Some(sums) if sums.node == id => sums.file.read_at(buffer, offset),
            _ => data.read_at(&self.file, buffer, offset),
        };
        if let Err(error) = &read
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::error!("cannot read {}: {error}", self.path.display());
        }
        read
    }
}

impl ViewedMembers {
    fn read(archive: &ViewedArchive, cancel: &AtomicBool) -> Result<ViewedMembers> {
        let sums = usable_sums(archive)?;
        let uses = match &sums {
            Some((sums, _)) => SumsUse::Beside(sums),
            None => SumsUse::None,
        };
        let mut reader = Reader::new(Input::File(&archive.file))?;
        let mut tree = ArchiveTree::read(&mut reader, uses, cancel)?;
        let sums = match (sums, archive.stack()?) {
            (Some((_, file)), Some(stack)) => add_sums(&mut tree, &stack, file)?,
            _ => None,
        };
        Ok(ViewedMembers {
            inodes: Inodes::of(&tree),
            tree,
            sums,
        })
    }
}

/// Returns the sums beside an archive and their file, if they are sound and of this
/// archive. Without them, all files count as changed.
fn usable_sums(archive: &ViewedArchive) -> Result<Option<(Sums, File)>> {
    let path = archive.path.with_extension("sums");
    let archive_bytes = archive.file.metadata()?.len();
    let Some(opened) = Sums::open_sidecar(&archive.path, archive_bytes) else {
        return Ok(None);
    };
    match opened {
        Ok((sums, file)) if sums.archive_bytes == archive_bytes => Ok(Some((sums, file))),
        Ok(_) => {
            tracing::warn!(path = %path.display(), "these sums are of another archive");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), "cannot use the sums: {error:#}");
            Ok(None)
        }
    }
}

/// Shows the sums as `<stack>.sums` beside the manifest, so that a copy of the view can
/// be checked.
fn add_sums(tree: &mut ArchiveTree, stack: &str, file: File) -> Result<Option<SumsFile>> {
    let metadata = file.metadata()?;
    let node = TreeNode {
        kind: NodeKind::File(FileData {
            file_bytes: metadata.len(),
            stored_bytes: metadata.len(),
            offset: 0,
            extents: None,
            hash: None,
        }),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime_s: metadata.mtime(),
        mtime_ns: metadata.mtime_nsec() as u32,
        attributes: Arc::new([]),
        link_count: 1,
    };
    let added = tree.add_beside(&format!("{stack}.sums"), node);
    Ok(added.map(|node| SumsFile { file, node }))
}
