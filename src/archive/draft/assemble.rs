//! Assembles the parts of a draft into one file.

use std::fs::File;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use crate::archive::draft::copy::Copier;
use crate::archive::draft::file_segment::{FileSegment, bytes_in};
use crate::archive::draft::moves::move_segments;
use crate::archive::write::segment::Segment;

/// How an archive was assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// Number of the file that is the archive now.
    pub file: usize,
    pub copied_bytes: u64,
}

/// Assembles `parts` in one of the `files`: in `newest` if the others can share
/// their blocks with it, otherwise in the one for which least has to be copied.
/// `room_bytes` are free on their file system.
pub(super) fn assemble(
    parts: &[FileSegment],
    (files, newest): (&[&File], usize),
    archive_bytes: u64,
    room_bytes: u64,
    cancel: &AtomicBool,
) -> Result<Assembled> {
    let can_share = can_share(parts, (files, newest), cancel)?;
    let file = if can_share {
        newest
    } else {
        fullest(parts, files.len(), room_bytes)
    };
    let target = files[file];
    let (own, others): (Vec<FileSegment>, Vec<FileSegment>) =
        parts.iter().partition(|part| part.file == file);
    let own: Vec<Segment> = own.iter().map(|part| part.segment).collect();
    let mut copied_bytes = move_segments(target, &own, cancel)?;
    let mut copier = Copier::new(target, cancel);
    for FileSegment { file, segment } in others {
        if !(can_share && copier.share(files[file], &segment)?) {
            copier.copy(files[file], &segment)?;
            copied_bytes += segment.bytes;
        }
    }
    rustix::fs::ftruncate(target, archive_bytes)?;
    Ok(Assembled { file, copied_bytes })
}

/// Tries to share the longest segment of the other files with `newest`.
fn can_share(
    parts: &[FileSegment],
    (files, newest): (&[&File], usize),
    cancel: &AtomicBool,
) -> Result<bool> {
    let others = parts.iter().filter(|part| part.file != newest);
    let shareable = others.filter(|part| part.segment.blocks().is_some());
    match shareable.max_by_key(|part| part.segment.bytes) {
        Some(longest) => {
            let mut copier = Copier::new(files[newest], cancel);
            copier.share(files[longest.file], &longest.segment)
        }
        None => Ok(false),
    }
}

/// The file that holds most of the archive. Any but the first is chosen only if
/// there is room for the parts of the others.
fn fullest(parts: &[FileSegment], file_count: usize, room_bytes: u64) -> usize {
    let all_bytes: u64 = (0..file_count).map(|file| bytes_in(parts, file)).sum();
    let has_room = |file: &usize| *file == 0 || all_bytes - bytes_in(parts, *file) < room_bytes;
    let files = (0..file_count).filter(has_room);
    files.max_by_key(|file| bytes_in(parts, *file)).unwrap_or(0)
}
