//! Reading one directory: its names, and what each of them is.

use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, OFlags, RawDir, Statx, StatxFlags, makedev};
use rustix::io::Errno;

use super::PATH_BYTES_MAX;
use super::attributes::AttributeReader;
use super::exclude::{CACHEDIR_SIGNATURE, CACHEDIR_TAG};
use super::inventory::{Entry, NONE, Node};
use super::source::{Source, is_gone, open_beneath, open_regular_at, stat_handle};
use super::sparse::{Extent, extents};
use super::state::ScanState;
use crate::sys::progress;

const DIRENT_BUFFER_BYTES: usize = 32 * 1024;

/// The entries of one directory, sorted by name. Indexes (names, extents) count
/// from the start of this listing until the listings are assembled.
#[derive(Debug, Default)]
pub(crate) struct DirectoryListing {
    pub(crate) entries: Vec<Entry>,
    pub(crate) names: Vec<u8>,
    pub(crate) sparse: Vec<Box<[Extent]>>,
    /// Indexes of the entries that are directories.
    pub(crate) directories: Vec<u32>,
    /// The queue's slot for the first of these; the slots of the others follow.
    pub(crate) first_slot: usize,
    /// The directory vanished before it was read.
    pub(crate) is_gone: bool,
    pub(crate) socket_count: u64,
    pub(crate) excluded_count: u64,
}

impl DirectoryListing {
    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        let start = entry.name_start as usize;
        &self.names[start..start + usize::from(entry.name_len)]
    }
}

/// Reads directories. Each thread has its own.
pub(crate) struct DirectoryReader<'a> {
    state: &'a ScanState<'a>,
    cancel: &'a AtomicBool,
    attributes: AttributeReader<'a>,
    dirents: Box<[MaybeUninit<u8>]>,
    /// The directory that was listed last. The next one is often in it, and a deep one
    /// is found from here in a time that does not grow with its depth.
    last: Option<(PathBuf, Vec<u8>, OwnedFd)>,
    /// The device that was met last, and its index.
    device: Option<(u64, u16)>,
    began: SystemTime,
}

impl<'a> DirectoryReader<'a> {
    pub(crate) fn new(state: &'a ScanState<'a>, cancel: &'a AtomicBool) -> DirectoryReader<'a> {
        DirectoryReader {
            state,
            cancel,
            attributes: AttributeReader::new(&state.attributes),
            dirents: Box::new_uninit_slice(DIRENT_BUFFER_BYTES),
            last: None,
            device: None,
            began: SystemTime::now(),
        }
    }

    /// Makes reading faster, in a thread that ends with the scan. See
    /// [`AttributeReader::unshare_working_directory`].
    pub(crate) fn unshare_working_directory(&mut self) {
        self.attributes.unshare_working_directory();
    }

    /// Returns a listing that holds only a source's root, under the source's
    /// prefix; it is empty if the root is a socket.
    pub(crate) fn root(&mut self, source: &Source) -> Result<DirectoryListing> {
        let mut listing = DirectoryListing::default();
        let name_len = source.prefix.len() as u16; // Source::open checked it
        listing.names.extend_from_slice(&source.prefix);
        let mut add_root = || {
            let stat = stat_handle(source.root())?;
            let Some(mut entry) = self.new_entry(&mut listing, (0, name_len), &stat)? else {
                return Ok(());
            };
            entry.attributes = self.attributes.read_handle(source.root())?.unwrap_or(NONE);
            add(&mut listing, entry, &stat, source.root(), b"", || {
                source.open_regular(b"")
            })
        };
        add_root().with_context(|| cannot_read(source, b""))?;
        Ok(listing)
    }

    /// Lists the directory at `rel` in `source`.
    pub(crate) fn list(&mut self, source: &Source, rel: &[u8]) -> Result<DirectoryListing> {
        let mut listing = DirectoryListing::default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let open = |flags| match &self.last {
            Some((of, path, last)) if *of == source.path => match within(rel, path) {
                Some(rest) => open_beneath(last.as_fd(), rest, flags),
                None => source.open_beneath(rel, flags),
            },
            _ => source.open_beneath(rel, flags),
        };
        let opened = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            opened => opened,
        };
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) if is_gone(error) => {
                listing.is_gone = true;
                return Ok(listing);
            }
            Err(error) => {
                return Err(error).with_context(|| cannot_read(source, rel));
            }
        };
        let names = self
            .names(&directory, &mut listing.names)
            .with_context(|| cannot_read(source, rel))?;
        let is_cache = self.state.exclude_caches && has_cache_tag(&directory, &listing, &names);
        self.attributes.enter(directory.as_fd());
        listing.entries.reserve_exact(names.len());
        let mut name = Vec::new();
        for span in names {
            if self.cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            name.clear();
            name.extend_from_slice(span_of(&listing.names, span));
            if is_cache && name != CACHEDIR_TAG {
                listing.excluded_count += 1;
                continue;
            }
            let bytes = source.prefix.len() + rel.len() + name.len() + 2;
            if bytes > PATH_BYTES_MAX {
                let start = String::from_utf8_lossy(&rel[..rel.len().min(100)]).into_owned();
                bail!(
                    "a path that begins with {} is longer than the {PATH_BYTES_MAX} bytes that an \
                     archive can hold: leave it out by `exclude`",
                    source.display(start.as_bytes())
                );
            }
            self.entry(&mut listing, &directory, span, &name, rel)
                .with_context(|| cannot_read(source, &joined(rel, &name)))?;
        }
        self.last = Some((source.path.clone(), rel.to_vec(), directory));
        Ok(listing)
    }

    /// Appends the names in `directory` to `names`. Returns their spans in it,
    /// sorted by name.
    fn names(&mut self, directory: &OwnedFd, names: &mut Vec<u8>) -> Result<Vec<(u32, u16)>> {
        let mut spans = Vec::new();
        let mut dirents = RawDir::new(directory, &mut self.dirents);
        while let Some(dirent) = dirents.next() {
            let dirent = match dirent {
                Ok(dirent) => dirent,
                Err(Errno::NOENT) => break, // removed while being read
                Err(error) => return Err(error.into()),
            };
            let name = dirent.file_name().to_bytes();
            if name != b"." && name != b".." {
                let start = u32::try_from(names.len())
                    .context("the names of one directory are longer than 4 GiB")?;
                spans.push((start, name.len() as u16)); // at most NAME_MAX
                names.extend_from_slice(name);
            }
        }
        spans.sort_unstable_by(|a, b| span_of(names, *a).cmp(span_of(names, *b)));
        Ok(spans)
    }

    /// Adds the entry `name` of the directory that was entered.
    fn entry(
        &mut self,
        listing: &mut DirectoryListing,
        directory: &OwnedFd,
        span: (u32, u16),
        name: &[u8],
        rel: &[u8],
    ) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()), // vanished since it was listed
            Err(error) => return Err(error.into()),
        };
        if !self.state.exclude.is_empty() {
            let is_dir = u32::from(stat.stx_mode) & 0o170_000 == 0o040_000;
            let path = joined(rel, name);
            let path = Path::new(OsStr::from_bytes(&path));
            if self.state.exclude.is_excluded(path, is_dir) {
                listing.excluded_count += 1;
                return Ok(());
            }
        }
        let Some(mut entry) = self.new_entry(listing, span, &stat)? else {
            return Ok(());
        };
        // What is made as fast as it is read is no progress.
        if entry.is_older(self.began) {
            progress::step();
        }
        let at = directory.as_fd();
        let mut add_entry = || {
            entry.attributes = self.attributes.read(name)?.unwrap_or(NONE);
            add(listing, entry, &stat, at, name, || {
                open_regular_at(at, name)
            })
        };
        match add_entry() {
            Err(error) if error.downcast_ref().is_some_and(|errno| is_gone(*errno)) => Ok(()),
            result => result,
        }
    }

    /// Counts a socket and returns `None` for it.
    fn new_entry(
        &mut self,
        listing: &mut DirectoryListing,
        (name_start, name_len): (u32, u16),
        stat: &Statx,
    ) -> Result<Option<Entry>> {
        let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let dev = match self.device {
            Some((known, dev)) if known == device => dev,
            _ => self.state.device_index(device)?,
        };
        self.device = Some((device, dev));
        let Some(entry) = Entry::new(stat, dev) else {
            listing.socket_count += 1;
            return Ok(None);
        };
        Ok(Some(Entry {
            name_start,
            name_len,
            ..entry
        }))
    }
}

/// Appends the entry `name` of the directory `at` (`at` itself if `name` is
/// empty) with what `stat` does not have: a symlink's target, a file's holes.
fn add(
    listing: &mut DirectoryListing,
    mut entry: Entry,
    stat: &Statx,
    at: BorrowedFd<'_>,
    name: &[u8],
    open: impl Fn() -> rustix::io::Result<File>,
) -> Result<()> {
    match entry.node {
        Node::Directory => listing.directories.push(listing.entries.len() as u32),
        Node::Symlink { .. } => {
            let target = match rustix::fs::readlinkat(at, name, Vec::new()) {
                Err(Errno::INVAL) => return Err(Errno::NOENT.into()), // replaced
                target => target?.into_bytes(),
            };
            entry.node = Node::Symlink {
                start: u32::try_from(listing.names.len())
                    .context("the names of one directory are longer than 4 GiB")?,
                len: target.len() as u16, // less than PATH_MAX
            };
            listing.names.extend_from_slice(&target);
        }
        Node::File { bytes, .. } if stat.stx_blocks.saturating_mul(512) < bytes => {
            let file = open()?;
            let opened = stat_handle(&file)?;
            // If the name leads to another file by now, the writer finds that out.
            if opened.stx_ino == stat.stx_ino
                && opened.stx_size == bytes
                && let Some(list) = extents(&file, bytes)?
            {
                let sparse = listing.sparse.len() as u32;
                listing.sparse.push(list);
                entry.node = Node::File { bytes, sparse };
            }
        }
        _ => {}
    }
    listing.entries.push(entry);
    Ok(())
}

fn cannot_read(source: &Source, rel: &[u8]) -> String {
    format!("cannot read {}", source.display(rel))
}

fn span_of(names: &[u8], (start, len): (u32, u16)) -> &[u8] {
    &names[start as usize..start as usize + usize::from(len)]
}

/// Whether the directory holds a valid `CACHEDIR.TAG`.
fn has_cache_tag(directory: &OwnedFd, listing: &DirectoryListing, names: &[(u32, u16)]) -> bool {
    let has_tag = names
        .binary_search_by(|span| span_of(&listing.names, *span).cmp(CACHEDIR_TAG))
        .is_ok();
    let is_signed = || {
        let file = open_regular_at(directory.as_fd(), CACHEDIR_TAG).ok()?;
        let mut start = [0; CACHEDIR_SIGNATURE.len()];
        file.read_exact_at(&mut start, 0).ok()?;
        Some(start == *CACHEDIR_SIGNATURE)
    };
    has_tag && is_signed() == Some(true)
}

/// Returns the rest of `rel` below the directory `path`; `None` if it is not in there.
fn within<'a>(rel: &'a [u8], path: &[u8]) -> Option<&'a [u8]> {
    match path {
        [] => None,
        path => rel.strip_prefix(path)?.strip_prefix(b"/"),
    }
}

pub(crate) fn joined(rel: &[u8], name: &[u8]) -> Vec<u8> {
    if rel.is_empty() {
        return name.to_vec();
    }
    [rel, b"/", name].concat()
}
