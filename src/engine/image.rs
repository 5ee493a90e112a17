//! Images, as the Engine describes them.

use serde::Deserialize;

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
