//! Secrets and configs of a throw-away project. Pure.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::copy::CopyLocation;
use super::resolved::text;
use crate::archive::Manifest;
use crate::restore::tree_of;

/// Where a throw-away project has its files from.
pub struct FileSource<'a> {
    /// Finds the copy of a path of the host in the archive.
    pub copy: &'a dyn Fn(&str) -> CopyLocation,
    /// Copies a file of this machine, if the configuration allows that.
    pub copy_host_file: &'a dyn Fn(&str) -> Result<PathBuf>,
}

/// Returns the secrets or configs (`kind`) by name. Each is a copy, or a text that
/// the archive holds. Adds notes on those that are missing.
pub fn files(
    manifest: &Manifest,
    kind: &str,
    source: &FileSource<'_>,
    notes: &mut Vec<String>,
) -> Map<String, Value> {
    let mut files = Map::new();
    let configured = manifest.compose.get(kind);
    for (name, config) in configured.and_then(Value::as_object).into_iter().flatten() {
        match file(manifest, config, source) {
            Ok((file, Origin::Archive)) => {
                files.insert(name.clone(), file);
            }
            Ok((file, Origin::Machine)) => {
                notes.push(format!(
                    "{kind}: {name} is a copy of the one of this machine"
                ));
                files.insert(name.clone(), file);
            }
            Err(why) => notes.push(format!("{kind}: without {name}, {why}")),
        }
    }
    files
}

enum Origin {
    Archive,
    Machine,
}

/// Returns one secret or config, or why there is none.
fn file(
    manifest: &Manifest,
    config: &Value,
    source: &FileSource<'_>,
) -> Result<(Value, Origin), String> {
    if let Some(content) = config.get("content").and_then(Value::as_str) {
        return Ok((json!({"content": content}), Origin::Archive));
    }
    // A variable would be one of whoever started this program.
    if config.get("environment").is_some() {
        return Err("which is a variable of Compose's environment".to_owned());
    }
    let path = match text(config, "file") {
        "" => return Err("which is external".to_owned()),
        path => path,
    };
    let (copy, origin) = match (source.copy)(path) {
        CopyLocation::Present(copy) => (copy, Origin::Archive),
        // A file that the system creates, as in /run/secrets, exists after a real
        // restore, too.
        CopyLocation::Outside(_) if tree_of(manifest, path).is_none() => {
            let copy = (source.copy_host_file)(path).map_err(|error| format!("{error:#}"))?;
            (copy, Origin::Machine)
        }
        CopyLocation::Outside(why) => return Err(why),
        CopyLocation::Absent(_) => return Err(format!("the archive does not hold {path}")),
    };
    Ok((json!({"file": copy.display().to_string()}), origin))
}
