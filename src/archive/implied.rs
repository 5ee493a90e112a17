//! Directories that an archive has no member for, but members in them. Each of them costs
//! memory and a directory on the disk, and a name of a few kilobytes has thousands of them.

use anyhow::{Result, ensure};

/// How deep such a directory may be. Programs that write archives leave out a few at most.
const DEPTH_MAX: usize = 4096;
/// Length of the paths of all of them that any archive may have. Beyond that, they may have
/// as much as the archive has up to there.
const PATH_BYTES: u64 = 32 << 20;

/// Counts them, by one rule for all that read archives.
#[derive(Debug, Default)]
pub struct ImpliedDirectories {
    path_bytes: u64,
}

impl ImpliedDirectories {
    /// Adds the directory at `path`, which is needed by the member that begins at `position`
    /// in the archive.
    ///
    /// # Errors
    /// When it is too deep, or they are too many.
    pub fn add(&mut self, path: &[u8], position: u64) -> Result<()> {
        self.path_bytes += path.len() as u64;
        ensure!(
            self.path_bytes <= PATH_BYTES.saturating_add(position),
            "the members up to here are in far more directories than the archive has"
        );
        let depth = 1 + path.iter().filter(|byte| **byte == b'/').count();
        ensure!(
            depth <= DEPTH_MAX,
            "it is in {depth} directories, one in the other, that the archive does not have"
        );
        Ok(())
    }
}
