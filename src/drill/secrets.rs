//! Secrets and configs of a throw-away project. Pure.

use serde_json::{Map, Value};

use super::copy::CopyLocation;
use super::resolved::text;
use crate::archive::Manifest;
use crate::restore::tree_of;

/// Returns the secrets or configs (`kind`) by name, with paths in the copy. Adds
/// notes on those that are missing.
pub fn files(
    manifest: &Manifest,
    kind: &str,
    copy: &dyn Fn(&str) -> CopyLocation,
    notes: &mut Vec<String>,
) -> Map<String, Value> {
    let mut files = Map::new();
    let configured = manifest.compose.get(kind);
    for (name, config) in configured.and_then(Value::as_object).into_iter().flatten() {
        let mut file = Map::new();
        for key in ["file", "content", "environment"] {
            file.extend(config.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let mut note = |what: &str| notes.push(format!("{kind}: {what}"));
        if file.is_empty() {
            note(&format!("without {name}, which is external"));
            continue;
        }
        let host_path = text(config, "file");
        if file.contains_key("file") {
            match copy(host_path) {
                CopyLocation::Present(path) => {
                    file["file"] = path.display().to_string().into();
                }
                // Compose mounts it read-only. A file that the system creates, as
                // in /run/secrets, exists after a real restore, too.
                CopyLocation::Outside(why) if tree_of(manifest, host_path).is_none() => {
                    note(&format!("{name} is the one of this machine, {why}"));
                }
                CopyLocation::Outside(why) => {
                    note(&format!("without {name}, {why}"));
                    continue;
                }
                CopyLocation::Absent(_) => {
                    note(&format!(
                        "without {name}, the archive does not hold {host_path}"
                    ));
                    continue;
                }
            }
        }
        files.insert(name.clone(), file.into());
    }
    files
}
