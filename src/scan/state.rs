//! State that the threads of a scan share.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::Exclude;
use super::attributes::AttributeSets;

pub(crate) struct ScanState<'a> {
    pub(crate) exclude: &'a Exclude,
    pub(crate) exclude_caches: bool,
    pub(crate) attributes: AttributeSets,
    /// `st_dev` of the file systems met so far.
    pub(crate) devices: Mutex<Vec<u64>>,
}

impl ScanState<'_> {
    /// The index of a device, which is added if it is new.
    pub(crate) fn device_index(&self, device: u64) -> Result<u16> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let known = devices.iter().position(|known| *known == device);
        let index = known.unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        });
        u16::try_from(index).context("there are more than 65536 file systems in the trees")
    }
}
