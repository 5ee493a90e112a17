//! Images, as the Engine describes them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::container::CONFIG_HASH_LABEL;
use super::json::null_as_empty;

/// An image that the Engine has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    pub id: String,
    /// Names by which registries know it: `NAME@sha256:DIGEST`.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub repo_digests: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    config: ImageConfig,
}

/// What containers get that are made from the image.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageConfig {
    #[serde(default, deserialize_with = "null_as_empty")]
    labels: BTreeMap<String, String>,
}

impl Image {
    /// Whether containers get this label from the image.
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        self.config.labels.get(name).is_some_and(|own| own == value)
    }

    /// Compose's hash of a service that a container would get from the image. Compose
    /// gives each container its own; an image has one if it was made from a container.
    pub fn config_hash(&self) -> Option<&str> {
        self.config
            .labels
            .get(CONFIG_HASH_LABEL)
            .map(String::as_str)
    }
}
