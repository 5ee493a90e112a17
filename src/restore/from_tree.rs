//! A tree that was copied from a mounted archive, for example by restic: it is made into
//! an archive again, and checked.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};

use super::archive::Archive;
use super::trees::check_manifest;
use crate::archive::tar::is_manifest_path;
use crate::archive::tree::{ArchiveTree, FileData, NodeKind, SumsUse};
use crate::archive::{
    ContentHash, Input, Layout, Manifest, ManifestSlot, ReadOptions, Reader, Sums, write_manifest,
    write_members,
};
use crate::scan::{Exclude, Source, scan};
use crate::sys::format::list_names;
use crate::sys::paths::open_regular;

/// A longer manifest is not read.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
const READ_BYTES: usize = 1 << 20;
/// How many damaged files are named.
const NAMED_COUNT: usize = 3;

/// Makes an archive of the tree in `dir`, which has the manifest of `stack`, and compares
/// it with its manifest and its sums. The archive has no name, and is gone with this
/// process.
///
/// # Errors
/// When the tree is not of this stack, or, unless `allow_damaged`, lacks something or is
/// damaged.
pub fn archive_of_tree(
    dir: &Path,
    stack: &str,
    allow_damaged: bool,
    cancel: &AtomicBool,
) -> Result<Archive> {
    let tree = CopiedTree::find(dir, stack)?;
    let file = tree.pack(allow_damaged, cancel)?;
    let problems = tree
        .problems(&file, cancel)
        .with_context(|| format!("cannot check {}", tree.dir.display()))?;
    let named = list_names(&problems, NAMED_COUNT);
    ensure!(
        problems.is_empty() || allow_damaged,
        "{} is damaged, and nothing was done: {named} (--allow-damaged restores it anyway)",
        tree.dir.display()
    );
    if !problems.is_empty() {
        tracing::warn!("{} is damaged: {named}", tree.dir.display());
    }
    Ok(Archive::File {
        file,
        path: tree.manifest_path(),
    })
}

/// The directory with the manifest, and what that says.
struct CopiedTree {
    /// Without symlinks.
    dir: PathBuf,
    manifest: Manifest,
    /// The manifest's member as it was in the archive.
    manifest_data: Vec<u8>,
}

impl CopiedTree {
    /// `dir` is the directory of an archive, or the one above that of a view of several
    /// stacks.
    fn find(dir: &Path, stack: &str) -> Result<CopiedTree> {
        let context = || format!("cannot open {}", dir.display());
        let dir = fs::canonicalize(dir).with_context(context)?;
        let name = format!("{stack}.manifest.json");
        let candidates = [dir.clone(), dir.join(stack)];
        let mut found = candidates.iter().filter(|dir| dir.join(&name).is_file());
        let Some(dir) = found.next() else {
            bail!(
                "there is no {name} in {}: name the directory that has it",
                dir.display()
            );
        };
        let path = dir.join(&name);
        let context = || format!("cannot read {}", path.display());
        let mut manifest_data = Vec::new();
        open_regular(&path)
            .and_then(|file| {
                file.take(MANIFEST_BYTES_MAX)
                    .read_to_end(&mut manifest_data)
            })
            .with_context(context)?;
        let manifest: Manifest = serde_json::from_slice(&manifest_data).with_context(context)?;
        check_manifest(&manifest).with_context(context)?;
        ensure!(
            manifest.stack == stack,
            "{} is of the stack {}, not of {stack}",
            path.display(),
            manifest.stack
        );
        Ok(CopiedTree {
            dir: dir.clone(),
            manifest,
            manifest_data,
        })
    }

    fn manifest_path(&self) -> PathBuf {
        let name = format!("{}.manifest.json", self.manifest.stack);
        self.dir.join(name)
    }

    /// Opens the trees that the manifest lists. One that the archive had no member for is
    /// not there either.
    fn sources(&self) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for prefix in self.manifest.trees.keys() {
            let path = self.dir.join(prefix);
            if path.symlink_metadata().is_err() {
                continue;
            }
            // An archive has no symlink there, so neither has a copy of it.
            let real = fs::canonicalize(&path);
            ensure!(
                real.is_ok_and(|real| real == path),
                "{} is reached through a symlink",
                path.display()
            );
            sources.push(Source::open(prefix.as_str(), path)?);
        }
        Ok(sources)
    }

    /// Writes the tree as an archive without a name.
    fn pack(&self, allow_damaged: bool, cancel: &AtomicBool) -> Result<File> {
        let sources = self.sources()?;
        let inventory = scan(&sources, &Exclude::new(&[])?, false, cancel)?;
        let manifest = &self.manifest;
        let (found, expected) = (
            (inventory.member_count(), inventory.content_bytes()),
            (manifest.member_count, manifest.content_bytes),
        );
        ensure!(
            found == expected || allow_damaged,
            "{} is not whole, and nothing was done: it has {} members with {} bytes, and the archive \
             had {} with {} (--allow-damaged restores it anyway)",
            self.dir.display(),
            found.0,
            found.1,
            expected.0,
            expected.1
        );
        let mut manifest = manifest.clone();
        let slot = ManifestSlot {
            name: format!("{}.manifest.json", manifest.stack),
            reserved_bytes: serde_json::to_vec(&manifest)?.len() as u64 + 64,
            mtime_s: manifest.captured.timestamp().as_second(),
        };
        let layout = Layout::new(&inventory, &slot);
        manifest.archive_bytes = layout.archive_bytes();
        let file = self.unnamed_file()?;
        let reading = ReadOptions {
            sources: &sources,
            cancel,
            is_live: false,
            hash: false,
            share: None,
        };
        let (summary, _) = write_members(&layout, &inventory, reading, &file)
            .with_context(|| format!("cannot copy {}", self.dir.display()))?;
        ensure!(
            summary.changed_count == 0,
            "files of {} changed while they were read: {}",
            self.dir.display(),
            summary.changed.join(", ")
        );
        write_manifest(&layout, &file, &serde_json::to_vec(&manifest)?)?;
        Ok(file)
    }

    /// Creates the file beside the tree, or, if nothing can be written there, in the
    /// directory for temporary files.
    fn unnamed_file(&self) -> Result<File> {
        let beside = self.dir.parent().map(tempfile::tempfile_in);
        match beside {
            Some(Ok(file)) => Ok(file),
            _ => tempfile::tempfile().context("cannot create a temporary file ($TMPDIR)"),
        }
    }

    /// Compares what was packed with the sums. Returns a phrase for each file that is
    /// missing or damaged.
    fn problems(&self, packed: &File, cancel: &AtomicBool) -> Result<Vec<String>> {
        let archive = self.dir.join(format!("{}.tar", self.manifest.stack));
        let packed_bytes = packed.metadata()?.len();
        let Some(sums) = Sums::read_sidecar(&archive, packed_bytes) else {
            tracing::warn!("there is no sums file in the tree: damage goes unnoticed");
            return Ok(Vec::new());
        };
        let sums = sums.context("cannot use the sums file")?;
        let mut reader = Reader::new(Input::File(packed))?;
        let tree = ArchiveTree::read(&mut reader, SumsUse::None, cancel)?;
        let by_path = tree.files_by_shown_path();
        let mut comparison = CopyComparison {
            packed,
            cancel,
            buffer: vec![0; READ_BYTES],
        };
        let mut problems = Vec::new();
        let mut not_compared = 0;
        for (path, data_bytes, hash) in sums.contents() {
            if is_manifest_path(path.as_bytes()) {
                let mut checker = hash.checker();
                checker.update(&self.manifest_data);
                if !checker.is_sound() {
                    problems.push(format!("{path}: it is not what was archived"));
                }
                continue;
            }
            let candidates = by_path.get(path).map_or(&[][..], Vec::as_slice);
            let mut verdict = Verdict::Missing;
            for id in candidates {
                if let NodeKind::File(data) = &tree.node(*id).kind {
                    verdict = verdict.max(comparison.compare(data, data_bytes, hash)?);
                }
            }
            match verdict {
                Verdict::Sound => {}
                Verdict::Unknown => not_compared += 1,
                Verdict::Damaged => problems.push(format!("{path}: its data is damaged")),
                Verdict::Missing => problems.push(format!("{path}: it is missing")),
            }
        }
        if not_compared > 0 {
            tracing::warn!(
                count = not_compared,
                "sparse files have other holes than in the archive, so their data was not compared \
                 with the sums"
            );
        }
        Ok(problems)
    }
}

/// What is known of a file. Of several files whose names look the same, the best counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Missing,
    Damaged,
    Unknown,
    Sound,
}

struct CopyComparison<'a> {
    packed: &'a File,
    cancel: &'a AtomicBool,
    buffer: Vec<u8>,
}

impl CopyComparison<'_> {
    /// Compares a file with the hash of the data that the archive had stored of it. That
    /// is its whole content, or, of a sparse file, the content without holes.
    fn compare(&mut self, data: &FileData, data_bytes: u64, hash: ContentHash) -> Result<Verdict> {
        if data.file_bytes < data_bytes {
            return Ok(Verdict::Damaged);
        }
        let is_whole = data.file_bytes == data_bytes;
        if !is_whole && data.stored_bytes != data_bytes {
            return Ok(Verdict::Unknown);
        }
        let mut checker = hash.checker();
        let ranges: Vec<(u64, u64)> = match is_whole {
            true => vec![(0, data.file_bytes)],
            false => {
                let extents = data.data_extents();
                extents
                    .map(|extent| (extent.offset, extent.bytes))
                    .collect()
            }
        };
        for (mut offset, bytes) in ranges {
            let end = offset + bytes;
            while offset < end {
                ensure!(!self.cancel.load(Ordering::Relaxed), "interrupted");
                let wanted = (end - offset).min(READ_BYTES as u64) as usize;
                let part = &mut self.buffer[..wanted];
                data.read_at(self.packed, part, offset)?;
                checker.update(part);
                offset += wanted as u64;
            }
        }
        Ok(match (checker.is_sound(), is_whole) {
            (true, _) => Verdict::Sound,
            (false, true) => Verdict::Damaged,
            // The holes may be others of the same length.
            (false, false) => Verdict::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::archive::tests::GO_ON;
    use crate::restore::selection::Selection;
    use crate::restore::to_directory;

    /// The frozen archive as a copy of its mounted directory.
    fn copy(to: &Path) {
        let archives = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives");
        let archive = Archive::open(&archives.join("format-1.tar")).unwrap();
        to_directory(&archive, to, &Selection::default(), false, &GO_ON).unwrap();
        fs::copy(archives.join("format-1.sums-2"), to.join("frozen.sums")).unwrap();
    }

    fn opened(dir: &Path, allow_damaged: bool) -> Result<Archive> {
        archive_of_tree(dir, "frozen", allow_damaged, &GO_ON)
    }

    #[track_caller]
    fn refused(dir: &Path) -> String {
        format!("{:#}", opened(dir, false).map(|_| ()).unwrap_err())
    }

    #[test]
    fn a_copy_of_a_mounted_archive_is_an_archive_again() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        copy(&tree);
        let archive = opened(&tree, false).unwrap();
        let json = archive.manifest().unwrap().unwrap();
        let manifest: Manifest = serde_json::from_slice(&json).unwrap();
        assert_eq!(manifest.stack, "frozen");
        let length = archive.file().unwrap().metadata().unwrap().len();
        assert_eq!(manifest.archive_bytes, length);
        let again = dir.path().join("again");
        to_directory(&archive, &again, &Selection::default(), false, &GO_ON).unwrap();
        for name in ["dir/large", "dir/sparse", "dir/hardlink", "compose.yaml"] {
            let read = |dir: &Path| fs::read(dir.join("frozen").join(name)).unwrap();
            assert_eq!(read(&again), read(&tree), "{name}");
        }
        // The directory above is found, too, as in a view of several stacks.
        let above = dir.path().join("above");
        fs::create_dir(&above).unwrap();
        fs::rename(&tree, above.join("frozen")).unwrap();
        opened(&above, false).unwrap();
    }

    #[test]
    fn what_a_copy_lacks_or_has_wrong_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let tree = |name: &str| {
            let tree = dir.path().join(name);
            copy(&tree);
            tree
        };
        let damaged = tree("damaged");
        let mut large = fs::read(damaged.join("frozen/dir/large")).unwrap();
        large[5] ^= 1;
        fs::write(damaged.join("frozen/dir/large"), large).unwrap();
        let error = refused(&damaged);
        assert!(
            error.contains("frozen/dir/large: its data is damaged"),
            "{error}"
        );
        opened(&damaged, true).unwrap();
        let short = tree("short");
        fs::remove_file(short.join("frozen/compose.yaml")).unwrap();
        let error = refused(&short);
        assert!(error.contains("it has 11 members"), "{error}");
        let moved = tree("moved");
        fs::rename(
            moved.join("frozen/compose.yaml"),
            moved.join("frozen/other.yaml"),
        )
        .unwrap();
        let error = refused(&moved);
        assert!(
            error.contains("frozen/compose.yaml: it is missing"),
            "{error}"
        );
        let manifest = tree("manifest");
        let path = manifest.join("frozen.manifest.json");
        let json = fs::read_to_string(&path).unwrap();
        fs::write(&path, json.replace("\"offline\"", "\"precopy\"")).unwrap();
        let error = refused(&manifest);
        assert!(error.contains("is not what was archived"), "{error}");
        let linked = tree("linked");
        fs::rename(linked.join("frozen"), linked.join("elsewhere")).unwrap();
        symlink("elsewhere", linked.join("frozen")).unwrap();
        let error = refused(&linked);
        assert!(error.contains("is reached through a symlink"), "{error}");
        let error = refused(dir.path());
        assert!(
            error.contains("there is no frozen.manifest.json in"),
            "{error}"
        );
    }
}
