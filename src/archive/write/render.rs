//! Renders any part of an archive.

use std::collections::BTreeSet;
use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::{Advice, FileType, OFlags, Statx, makedev};
use rustix::io::Errno;

use crate::archive::tar::ALIGNMENT_BYTES;
use crate::archive::tar::entry_head::{render_head, stored_bytes};
use crate::archive::tar::head::HeadBuffers;
use crate::archive::write::layout::Layout;
use crate::archive::write::options::ReadOptions;
use crate::archive::write::share::share_blocks;
#[cfg(test)]
use crate::scan::mutation::Mutation;
use crate::scan::{
    Entry, Extent, Inventory, await_write, is_gone, open_file_at, open_regular_at, stat_handle,
    tracks_changes,
};

/// How far ahead a large file is read.
const READ_AHEAD_BYTES: Option<NonZeroU64> = NonZeroU64::new(6 * 1024 * 1024);

/// Indexes of the entries that changed between the scan and the reading.
pub(crate) type ChangedEntries = Mutex<BTreeSet<usize>>;

/// Renders any part of an archive from its layout and the sources. Each thread
/// has its own.
pub(crate) struct Renderer<'a> {
    pub(super) layout: &'a Layout,
    pub(super) inventory: &'a Inventory,
    pub(super) options: ReadOptions<'a>,
    changed: &'a ChangedEntries,
    buffers: HeadBuffers,
    header: Vec<u8>,
    path: Vec<u8>,
    /// The directory of the last file, and the index of its entry.
    directory: Option<(u32, OwnedFd)>,
    /// The last file and the index of its entry, if it continues in a later
    /// window.
    file: Option<(usize, File)>,
}

impl<'a> Renderer<'a> {
    pub(crate) fn new(
        layout: &'a Layout,
        inventory: &'a Inventory,
        options: ReadOptions<'a>,
        changed: &'a ChangedEntries,
    ) -> Renderer<'a> {
        Renderer {
            layout,
            inventory,
            options,
            changed,
            buffers: HeadBuffers::default(),
            header: Vec::new(),
            path: Vec::new(),
            directory: None,
            file: None,
        }
    }

    /// Fills `window` with the bytes of the archive from offset `start` on, which
    /// must not lie in the manifest.
    pub(crate) fn render(&mut self, start: u64, window: &mut [u8]) -> Result<()> {
        let end = start + window.len() as u64;
        let mut index = self.layout.entry_at(start);
        let mut position = start;
        while position < end && index < self.inventory.entries.len() {
            let member_end = self.layout.offsets[index + 1];
            let until = member_end.min(end);
            let part = &mut window[(position - start) as usize..(until - start) as usize];
            self.member(index, position, part)?;
            position = until;
            index += 1;
        }
        window[(position - start) as usize..].fill(0);
        Ok(())
    }

    /// Fills `part` with bytes of one member. `position` is their offset in the
    /// archive.
    fn member(&mut self, index: usize, position: u64, part: &mut [u8]) -> Result<()> {
        let member_start = self.layout.offsets[index];
        let stored = stored_bytes(self.inventory, self.inventory.entries[index].node);
        let data_start = self.layout.data(self.inventory, index).start;
        let mut filled = 0;
        if position < data_start {
            self.header.clear();
            render_head(
                self.inventory,
                index,
                member_start,
                &mut self.buffers,
                &mut self.header,
            );
            debug_assert_eq!(self.header.len() as u64, data_start - member_start);
            let header = &self.header[(position - member_start) as usize..];
            filled = header.len().min(part.len());
            part[..filled].copy_from_slice(&header[..filled]);
        }
        let rest = &mut part[filled..];
        let data_position = (position + filled as u64).saturating_sub(data_start);
        let data_bytes = stored.saturating_sub(data_position).min(rest.len() as u64) as usize;
        let (data, padding) = rest.split_at_mut(data_bytes);
        padding.fill(0);
        if !data.is_empty() {
            let is_last = data_position + data_bytes as u64 == stored;
            self.data(index, data_position, data, is_last)?;
        }
        Ok(())
    }

    /// Fills `data` with stored data of a regular file. `position` is its offset in
    /// the stored data.
    fn data(&mut self, index: usize, position: u64, data: &mut [u8], is_last: bool) -> Result<()> {
        let entry = self.inventory.entries[index];
        let file = match self.file.take() {
            Some((open, file)) if open == index => Some(file),
            _ => self.open(index).with_context(|| self.context(index))?,
        };
        let Some(file) = file else {
            data.fill(0);
            self.mark_changed(index);
            return Ok(());
        };
        let mut is_whole = true;
        let mut read = |offset, part: &mut [u8]| -> Result<()> {
            let got = read_at(&file, offset, part).with_context(|| self.context(index))?;
            part[got..].fill(0);
            is_whole &= got == part.len();
            Ok(())
        };
        match self.inventory.extents(entry.node) {
            None => {
                if !is_last {
                    read_ahead(&file, position);
                }
                read(position, data)?;
            }
            Some(extents) => {
                let first = extents.partition_point(|extent| extent.stored <= position) - 1;
                let mut filled = 0;
                for extent in &extents[first..] {
                    let skip = position + filled as u64 - extent.stored;
                    let len = (extent.bytes - skip).min((data.len() - filled) as u64) as usize;
                    read(extent.offset + skip, &mut data[filled..filled + len])?;
                    filled += len;
                    if filled == data.len() {
                        break;
                    }
                }
            }
        }
        // Looking after the read finds changes before it and during it.
        let stat = stat_handle(&file).with_context(|| self.context(index))?;
        if !is_whole || !entry.is_unchanged(&stat) {
            self.mark_changed(index);
        }
        if !is_last {
            self.file = Some((index, file));
        }
        Ok(())
    }

    /// Shares the whole blocks of a regular file's data with `out`. Returns their
    /// ranges in the archive; the rest of the file is left to be written. If the
    /// file `is_deferred`, only the first block is shared, as a trial, and the file
    /// counts as changed.
    ///
    /// The inner error is the file system's refusal to share the first range.
    pub(crate) fn share_data(
        &mut self,
        index: usize,
        out: &File,
        is_deferred: bool,
    ) -> Result<rustix::io::Result<Vec<Range<u64>>>> {
        let entry = self.inventory.entries[index];
        let stored = stored_bytes(self.inventory, entry.node);
        let data_start = self.layout.data(self.inventory, index).start;
        let file = self.open(index).with_context(|| self.context(index))?;
        // A file that is gone is marked as changed when its member is written.
        let Some(file) = file else {
            return Ok(Ok(Vec::new()));
        };
        let whole = [Extent {
            offset: 0,
            bytes: stored,
            stored: 0,
        }];
        let mut shared = Vec::new();
        for extent in self.inventory.extents(entry.node).unwrap_or(&whole) {
            let at = data_start + extent.stored;
            let bytes = extent.bytes / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
            if bytes == 0 || !(at | extent.offset).is_multiple_of(ALIGNMENT_BYTES) {
                continue;
            }
            if is_deferred && !shared.is_empty() {
                shared.push(at..at + bytes);
                continue;
            }
            let now = if is_deferred { ALIGNMENT_BYTES } else { bytes };
            match share_blocks(&file, extent.offset, out, at, now) {
                Ok(()) => shared.push(at..at + bytes),
                Err(error) if shared.is_empty() => return Ok(Err(error)),
                Err(_) => break,
            }
        }
        let stat = stat_handle(&file).with_context(|| self.context(index))?;
        let is_missing = is_deferred && !shared.is_empty();
        #[cfg(test)]
        let is_missing = is_missing && !Mutation::Later.is_on();
        if is_missing || !entry.is_unchanged(&stat) {
            self.mark_changed(index);
        }
        Ok(Ok(shared))
    }

    /// Opens the file of an entry. `None` if it is gone, or another file is there.
    fn open(&mut self, index: usize) -> rustix::io::Result<Option<File>> {
        let entry = self.inventory.entries[index];
        let opened = self.open_path(index, &entry);
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_gone(error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.options.is_live {
            await_write(&file);
        }
        let stat = stat_handle(&file)?;
        Ok(self.is_same_file(&entry, &file, &stat).then_some(file))
    }

    fn open_path(&mut self, index: usize, entry: &Entry) -> rustix::io::Result<File> {
        let source = &self.options.sources[self.inventory.source_of(index)];
        let is_live = self.options.is_live;
        if !entry.has_parent() {
            return match is_live {
                true => source.open_regular(b""),
                false => source.open_file(b""),
            };
        }
        let directory = match self.directory.take() {
            Some((parent, directory)) if parent == entry.parent => directory,
            _ => {
                let parent = entry.parent as usize;
                self.inventory.relative_path(parent, &mut self.path);
                source.open_beneath(&self.path, OFlags::PATH | OFlags::DIRECTORY)?
            }
        };
        let name = self.inventory.name(entry);
        let opened = match is_live {
            true => open_regular_at(directory.as_fd(), name),
            false => open_file_at(directory.as_fd(), name),
        };
        self.directory = Some((entry.parent, directory));
        opened
    }

    fn is_same_file(&self, entry: &Entry, file: &File, stat: &Statx) -> bool {
        FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
            && makedev(stat.stx_dev_major, stat.stx_dev_minor)
                == self.inventory.devices[usize::from(entry.dev)]
            && (stat.stx_ino == entry.ino || self.is_renumbered(entry, file, stat))
    }

    /// Whether it is the same file with another inode number: exFAT, vfat and some
    /// network file systems assign a number each time they load an inode. While
    /// nothing writes to the sources, equal times identify the file.
    fn is_renumbered(&self, entry: &Entry, file: &File, stat: &Statx) -> bool {
        let mtime = (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
        !self.options.is_live
            && entry.is_unchanged(stat)
            && mtime == (entry.mtime_s, entry.mtime_ns)
            && !tracks_changes(file)
    }

    fn mark_changed(&self, index: usize) {
        self.changed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(index);
    }

    fn context(&self, index: usize) -> String {
        let mut path = Vec::new();
        self.inventory.relative_path(index, &mut path);
        let source = &self.options.sources[self.inventory.source_of(index)];
        format!("cannot read {}", source.display(&path))
    }
}

/// Asks the kernel for the part of a large file that this thread and the others
/// read next. Each thread reads with gaps, so the kernel does not read ahead by
/// itself, and a file that is not in the page cache would take twice as long.
fn read_ahead(file: &File, position: u64) {
    // If the kernel ignores the advice, only time is lost.
    let _ = rustix::fs::fadvise(file, position, READ_AHEAD_BYTES, Advice::WillNeed);
}

/// Reads until `part` is full or the file ends. Returns how many bytes were read.
pub(crate) fn read_at(file: &File, offset: u64, part: &mut [u8]) -> rustix::io::Result<usize> {
    let mut got = 0;
    while got < part.len() {
        match rustix::io::pread(file, &mut part[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
