//! Guards an update of a stack: after an archive was made, the command runs; if the stack
//! is not up as before then, images, data and containers are put back.
//!
//! The entry in the journal is on disk before the command begins. It says which way a
//! killed update ends: until it is confirmed, it is rolled back.

mod images;
mod journal;
mod look;
mod roll_back;
mod update;

pub use journal::{FoundGuard, GuardEntry, found, has};
pub use look::{GuardedStack, look};
pub use roll_back::recover;
pub use update::{GuardOptions, update};

use std::path::Path;

use anyhow::Result;

/// Forgets an update that was killed: the stack stays as it is. Images are let go, as far
/// as that is possible.
///
/// # Errors
/// When the entry cannot be removed.
pub fn forget(state_dir: &Path, stack: &str) -> Result<()> {
    let found = found(state_dir)?.into_iter();
    for found in found.filter(|found| found.stack == stack) {
        if let Ok(entry) = found.entry {
            for warning in images::release(&entry.before.compose.engine, &entry.images) {
                tracing::warn!("{warning}");
            }
        }
    }
    journal::remove(state_dir, stack)
}
