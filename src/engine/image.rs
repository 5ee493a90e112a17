//! Images, as the Engine describes them.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Deserialize;

use super::command::inspect;
use super::json::null_as_empty;

/// An image that the Engine has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    pub id: String,
    /// Names by which registries know it: `NAME@sha256:DIGEST`.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub repo_digests: Vec<String>,
}

/// Returns the images of these ids or references; what does not exist is left
/// out.
pub fn images(ids: &BTreeSet<String>) -> Result<Vec<Image>> {
    inspect("image", ids.iter().cloned().collect())
}
