//! Whether there is room for what a restore unpacks beside the present data.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{stat, statvfs};

use super::plan::RestorePlan;
use crate::sys::format::human_bytes;

impl RestorePlan<'_> {
    /// Fails if a file system has less room than what is unpacked there, as far as the sizes
    /// are known.
    ///
    /// # Errors
    /// Names the directory, and how much room is missing.
    pub fn check_room(&self) -> Result<()> {
        let mut needed: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();
        for target in &self.entry.targets {
            let Some(beside) = target.path.ancestors().skip(1).find(|path| path.exists()) else {
                continue;
            };
            let context = || format!("cannot look at {}", beside.display());
            let device = stat(beside).with_context(context)?.st_dev;
            let (_, bytes) = needed.entry(device).or_insert((beside, 0));
            *bytes += self.options.parts.stored_bytes(&target.prefix);
        }
        for (path, bytes) in needed.into_values() {
            let free = statvfs(path)
                .with_context(|| format!("cannot read the free space of {}", path.display()))?;
            let free = free.f_bavail.saturating_mul(free.f_frsize);
            if bytes > free {
                bail!(
                    "there is not enough room beside {}: {} are needed to unpack the archive, and {} \
                     are free",
                    path.display(),
                    human_bytes(bytes),
                    human_bytes(free)
                );
            }
        }
        Ok(())
    }
}
