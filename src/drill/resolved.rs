//! Reads the resolved compose configuration that a manifest holds.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::archive::Manifest;

/// # Errors
/// When the manifest has no configuration, or that has no such service.
pub fn service_of<'m>(manifest: &'m Manifest, name: &str) -> Result<&'m Map<String, Value>> {
    let services = manifest.compose.get("services").context(
        "the manifest does not hold the resolved compose configuration: it cannot be drilled",
    )?;
    let service = services.get(name).and_then(Value::as_object);
    service.with_context(|| format!("the compose configuration has no service {name}"))
}

/// Returns a field that is a string, or an empty string.
pub fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the Engine's name of a volume. `key` is its name in the compose file.
pub fn engine_volume<'m>(manifest: &'m Manifest, key: &'m str) -> &'m str {
    let volumes = manifest.compose.get("volumes");
    let config = volumes.and_then(|volumes| volumes.get(key));
    let name = config.and_then(|config| config.get("name")?.as_str());
    name.unwrap_or(key)
}

/// Returns the member path of a volume's tree.
pub fn volume_tree(manifest: &Manifest, key: &str) -> String {
    format!(
        "{}.volumes/{}",
        manifest.stack,
        engine_volume(manifest, key)
    )
}
