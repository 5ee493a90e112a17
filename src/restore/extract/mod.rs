//! Unpacks members of an archive beneath directories, and nowhere else.
//!
//! Every path is resolved by `openat2` beneath the handle of a directory that
//! was empty, so everything found there was created by this program. No symlink
//! is followed and nothing is replaced. Directories, symlinks and device nodes
//! are created in the order of the archive. Several threads write the files.
//! Hard links follow when all files exist, and the metadata of directories comes
//! last, the deepest directory first.

mod content;
mod files;
mod metadata;
mod options;
mod tree;

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use anyhow::Result;

use crate::archive::Reader;
use crate::sys::threads::spawn_some;
pub(super) use content::data_extents;
use files::{FileWriter, write_batches};
use metadata::Privilege;
pub use options::{Destination, ExtractOptions, ExtractSummary};
use tree::TreeBuilder;

/// Batches that wait for a writer thread, at most.
const QUEUE_LENGTH: usize = 4;

/// Extracts the wanted ones of the members that `reader` has left. If the reader
/// reads from a file, `file` is that file, and the kernel copies large data, or
/// shares its blocks.
///
/// # Errors
/// Names the member. What was extracted before it stays where it is, and is complete:
/// with its hard links, and the attributes of its directories.
pub fn extract(
    reader: &mut Reader<'_>,
    file: Option<&File>,
    destinations: &[Destination],
    options: &ExtractOptions<'_>,
) -> Result<ExtractSummary> {
    let writer = FileWriter::new(file, options);
    let (sender, receiver) = sync_channel(QUEUE_LENGTH);
    let receiver = Mutex::new(receiver);
    let (result, mut builder) = std::thread::scope(|scope| {
        let spawned = spawn_some(scope, thread_count(), || write_batches(&writer, &receiver));
        // The builder owns the sender. If it panics in here, both are dropped,
        // and the threads end.
        let mut builder = TreeBuilder::new(destinations, options, &writer, sender);
        let result = spawned.and_then(|()| builder.members(reader));
        builder.end_files();
        (result, builder)
    });
    // If writing a file failed, that is the cause of any other error.
    if let Some(error) = writer.take_error() {
        return Err(error);
    }
    let is_interrupted = result.is_err() && options.cancel.load(Ordering::Relaxed);
    let finished = match is_interrupted {
        true => Ok(()),
        false => builder.link().and_then(|()| builder.finish_directories()),
    };
    result.and(finished)?;
    let mut summary = builder.into_summary();
    summary.unrestored = writer.unrestored.messages();
    if writer.privilege == Privilege::User {
        summary
            .unrestored
            .push("owners, set-user-id and set-group-id: only root may set them".to_owned());
    }
    Ok(summary)
}

fn thread_count() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8)
}
