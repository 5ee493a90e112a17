//! The last drill of each stack, in the state directory. It is also noted in
//! the sidecar of the archive that was drilled, but must outlive that archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::outcome::LastDrill;
use crate::sys::state_file::{self, State};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DrillResults {
    format_version: u32,
    stacks: BTreeMap<String, LastDrill>,
}

impl State for DrillResults {
    const NAME: &'static str = "the drills";
    const FORMAT_VERSION: u32 = 2;

    /// The first version was the map alone.
    fn upgrade(version: u32, json: Value) -> Option<Value> {
        match version {
            1 => Some(json!({ "formatVersion": 2, "stacks": json })),
            2 => Some(json),
            _ => None,
        }
    }
}

/// Returns the last drill of each stack, by the stack's name.
///
/// # Errors
/// When the file cannot be read or parsed.
pub fn last_drills(state_dir: &Path) -> Result<BTreeMap<String, LastDrill>> {
    let results: Option<DrillResults> = state_file::read(&drills_path(state_dir))?;
    Ok(results.map(|results| results.stacks).unwrap_or_default())
}

/// Saves a drill as the last one of a stack. The lock must be held.
///
/// # Errors
/// When the file cannot be written. A file that cannot be read is replaced, and
/// the drills of other stacks are forgotten.
pub fn record_drill(state_dir: &Path, stack: &str, drill: LastDrill) -> Result<()> {
    let mut stacks = last_drills(state_dir).unwrap_or_else(|error| {
        tracing::warn!("{error:#}; the file is replaced");
        BTreeMap::new()
    });
    let drill = match stacks.remove(stack) {
        Some(before) => before.followed_by(drill),
        None => drill,
    };
    stacks.insert(stack.to_owned(), drill);
    let results = DrillResults {
        format_version: DrillResults::FORMAT_VERSION,
        stacks,
    };
    state_file::write(&drills_path(state_dir), &results)
}

fn drills_path(state_dir: &Path) -> PathBuf {
    state_file::path(state_dir, "drills")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn drill(time: &str) -> LastDrill {
        LastDrill {
            archive: "/b/web/web_20261001_030000.tar".into(),
            time: time.parse().unwrap(),
            time_zone: None,
            problems: Vec::new(),
            skipped: None,
            skipped_later: None,
        }
    }

    #[test]
    fn a_drill_that_was_skipped_does_not_replace_one_that_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let skipped = |time: &str| LastDrill {
            skipped: Some("nothing ran".to_owned()),
            ..drill(time)
        };
        let record = |drill: LastDrill| {
            record_drill(dir.path(), "web", drill).unwrap();
            last_drills(dir.path()).unwrap().remove("web").unwrap()
        };
        let first = record(skipped("2026-10-01T00:00:00Z"));
        assert_eq!(first, skipped("2026-10-01T00:00:00Z"));
        // The control: a real one replaces one that was skipped.
        let real = drill("2026-10-02T00:00:00Z");
        assert_eq!(record(real.clone()), real);
        let later = record(skipped("2026-10-03T00:00:00Z"));
        assert_eq!((&later.time, &later.skipped), (&real.time, &None));
        assert_eq!(later.last_tried().to_string(), "2026-10-03T00:00:00+00:00");
        let newest = drill("2026-10-04T00:00:00Z");
        assert_eq!(record(newest.clone()), newest);
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

    #[test]
    fn the_first_format_is_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let old = BTreeMap::from([("web", drill("2026-10-01T00:00:00Z"))]);
        fs::write(drills_path(dir.path()), serde_json::to_vec(&old).unwrap()).unwrap();
        let drills = last_drills(dir.path()).unwrap();
        assert_eq!(drills["web"], drill("2026-10-01T00:00:00Z"));
    }
}
