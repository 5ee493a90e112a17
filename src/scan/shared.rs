use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::Exclude;
use super::attributes::AttributeSets;

/// What the threads of a scan share.
pub(crate) struct Shared<'a> {
    pub(crate) exclude: &'a Exclude,
    pub(crate) exclude_caches: bool,
    pub(crate) attributes: AttributeSets,
    pub(crate) devices: Mutex<Vec<u64>>,
}

impl Shared<'_> {
    pub(crate) fn device_index(&self, device: u64) -> Result<u16> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let known = devices.iter().position(|known| *known == device);
        let index = known.unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        });
        u16::try_from(index).context("too many file systems")
    }
}
