//! Renders what a run did. Pure: the same outcome gives the same text.

mod details;
mod format;
mod headline;
#[cfg(test)]
mod tests;
mod text;

use anyhow::{Context, Result};

use crate::outcome::RunOutcome;
pub use format::{ascii, human_bytes, human_duration};
pub use headline::subject;
pub use text::text;

/// The outcome as JSON, as in `last-run.json`; ends in a newline.
///
/// # Errors
/// A path that is not UTF-8 has no JSON.
pub fn json(run: &RunOutcome) -> Result<String> {
    let mut json = serde_json::to_string_pretty(run).context("write outcome as JSON")?;
    json.push('\n');
    Ok(json)
}
