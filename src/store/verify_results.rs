//! When the archives of each stack were verified last, in the state directory: whoever
//! asks must not need the store for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::sys::state_file::{self, State};
use crate::sys::time::OffsetTime;

/// The last `verify` of a stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastVerify {
    pub time: OffsetTime,
    /// Archives of the stack that are marked as damaged, by this or an earlier `verify`.
    pub damaged_count: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerifyResults {
    format_version: u32,
    stacks: BTreeMap<String, LastVerify>,
}

impl State for VerifyResults {
    const NAME: &'static str = "the results of verify";
    const FORMAT_VERSION: u32 = 1;
}

/// Returns the last `verify` of each stack, by the stack's name.
///
/// # Errors
/// When the file cannot be read or parsed.
pub fn last_verifies(state_dir: &Path) -> Result<BTreeMap<String, LastVerify>> {
    let results: Option<VerifyResults> = state_file::read(&verifies_path(state_dir))?;
    Ok(results.unwrap_or_default().stacks)
}

/// Saves the results of a `verify`, by the stack's name. The lock must be held.
///
/// # Errors
/// When the file cannot be written. One that cannot be read is replaced.
pub fn record_verifies(state_dir: &Path, new: BTreeMap<String, LastVerify>) -> Result<()> {
    let mut stacks = last_verifies(state_dir).unwrap_or_else(|error| {
        tracing::warn!("{error:#}; the file is replaced");
        BTreeMap::new()
    });
    stacks.extend(new);
    let results = VerifyResults {
        format_version: VerifyResults::FORMAT_VERSION,
        stacks,
    };
    state_file::write(&verifies_path(state_dir), &results)
}

fn verifies_path(state_dir: &Path) -> PathBuf {
    state_file::path(state_dir, "verifies")
}
