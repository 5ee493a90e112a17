//! Compares an archive with the data on the host. Changes nothing.
//!
//! The data is listed by the same scan that archives are made from, so that
//! nothing counts as a difference that an archive does not hold. File contents
//! are compared byte by byte; no sums file is needed.

mod compare;
mod content;
mod metadata;
mod present;
mod report;

use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::selection::Selection;
use compare::Comparison;
pub use present::HostTree;
use present::PresentFiles;
pub use report::{Aspect, Change, Diff, Difference};

/// Compares the selected members with `trees`. Sockets are ignored, because no
/// archive holds them.
///
/// # Errors
/// When the archive or the data on the host cannot be read, or a selected name
/// is not in the archive.
pub fn diff(
    archive: &Archive,
    trees: &[HostTree],
    selection: &Selection,
    cancel: &AtomicBool,
) -> Result<Diff> {
    let present = PresentFiles::scan(trees, cancel)?;
    let mut comparison = Comparison::new(present, selection, cancel);
    let mut reader = archive.reader()?;
    comparison
        .members(&mut reader)
        .with_context(|| archive.name())?;
    let diff = comparison.finish(archive.name());
    selection.check_all_found()?;
    Ok(diff)
}
