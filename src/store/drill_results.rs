//! The last drill of each stack, in the state directory. It is also noted in
//! the sidecar of the archive that was drilled, but must outlive that archive.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::outcome::LastDrill;
use crate::sys::durable::write_durably;

/// Returns the last drill of each stack, by the stack's name.
///
/// # Errors
/// When the file cannot be read or parsed.
pub fn last_drills(state_dir: &Path) -> Result<BTreeMap<String, LastDrill>> {
    let path = drills_path(state_dir);
    let json = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        json => json.with_context(|| format!("cannot read the drills {}", path.display()))?,
    };
    serde_json::from_slice(&json)
        .with_context(|| format!("cannot parse the drills {}", path.display()))
}

/// Saves a drill as the last one of a stack. The lock must be held.
///
/// # Errors
/// When the file cannot be written. A file that cannot be read is replaced, and
/// the drills of other stacks are forgotten.
pub fn record_drill(state_dir: &Path, stack: &str, drill: LastDrill) -> Result<()> {
    let mut all = last_drills(state_dir).unwrap_or_else(|error| {
        tracing::warn!("{error:#}; the file is replaced");
        BTreeMap::new()
    });
    all.insert(stack.to_owned(), drill);
    let path = drills_path(state_dir);
    write_durably(&path, &serde_json::to_vec_pretty(&all)?)
        .with_context(|| format!("cannot write the drills {}", path.display()))
}

fn drills_path(state_dir: &Path) -> PathBuf {
    state_dir.join("drills.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(time: &str) -> LastDrill {
        LastDrill {
            archive: "/b/web/web_20261001_030000.tar".into(),
            time: format!("{time}[UTC]").parse().unwrap(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_last_drill_of_each_stack_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(last_drills(dir.path()).unwrap().is_empty());
        record_drill(dir.path(), "web", drill("2026-10-01T00:00:00Z")).unwrap();
        record_drill(dir.path(), "db", drill("2026-10-02T00:00:00Z")).unwrap();
        record_drill(dir.path(), "web", drill("2026-10-03T00:00:00Z")).unwrap();
        let drills = last_drills(dir.path()).unwrap();
        assert_eq!(drills.len(), 2);
        assert_eq!(drills["web"], drill("2026-10-03T00:00:00Z"));
    }

    #[test]
    fn a_damaged_file_is_an_error_until_the_next_drill_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(drills_path(dir.path()), "{").unwrap();
        last_drills(dir.path()).unwrap_err();
        record_drill(dir.path(), "web", drill("2026-10-04T00:00:00Z")).unwrap();
        assert_eq!(last_drills(dir.path()).unwrap().len(), 1);
    }
}
