//! How a stack's archives stand beyond the run that is reported: the last
//! drill, and damage that `verify` found.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::ZonedDateTime;

use crate::outcome::{DamagedArchive, LastDrill, StackOutcome};
use crate::store::Store;
use crate::store::checks::Checks;
use crate::sys::durable::write_durably;

/// A drill that is older proves little of today's archives. More than a month,
/// for those who drill monthly.
const STALE_DAYS: i64 = 35;

/// The last drill of each stack. Kept apart from what lies beside archives,
/// since it is to outlive them.
pub fn drills(state_dir: &Path) -> Result<BTreeMap<String, LastDrill>> {
    let path = drills_path(state_dir);
    let json = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        json => json.with_context(|| format!("read {}", path.display()))?,
    };
    serde_json::from_slice(&json).with_context(|| format!("understand {}", path.display()))
}

/// The lock must be held.
pub fn note_drill(state_dir: &Path, stack: &str, drill: LastDrill) -> Result<()> {
    let mut all = drills(state_dir).unwrap_or_else(|error| {
        tracing::warn!("{error:#}; it is made anew");
        BTreeMap::new()
    });
    all.insert(stack.to_owned(), drill);
    let path = drills_path(state_dir);
    write_durably(&path, &serde_json::to_vec_pretty(&all)?)
        .with_context(|| format!("write {}", path.display()))
}

fn drills_path(state_dir: &Path) -> PathBuf {
    state_dir.join("drills.json")
}

/// What of a stack's archives is marked as damaged, oldest first.
pub fn damaged(store: &Store, stack: &str) -> Result<Vec<DamagedArchive>> {
    let mut damaged = Vec::new();
    for archive in store.list(stack)? {
        if !archive.damaged {
            continue;
        }
        if let Some(check) = Checks::of(store, &archive.name)?.verified {
            damaged.push(DamagedArchive {
                path: archive.path,
                time: check.time,
                problems: check.problems,
            });
        }
    }
    Ok(damaged)
}

/// What of it is worth a warning. Pure.
pub fn warnings(stack: &StackOutcome, now: &ZonedDateTime) -> Vec<String> {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let mut warnings = Vec::new();
    for archive in &stack.damaged {
        let more = match archive.problems.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        warnings.push(format!(
            "{} is damaged, verify found on {}: {}{more}",
            name(&archive.path),
            archive.time.strftime("%F"),
            archive.problems.first().map_or("", String::as_str)
        ));
    }
    if let Some(drill) = &stack.drilled {
        let day = drill.time.strftime("%F");
        let days = now.duration_since(&drill.time).as_hours() / 24;
        if let Some(problem) = drill.problems.first() {
            let archive = name(&drill.archive);
            warnings.push(format!("the drill of {archive} on {day} failed: {problem}"));
        } else if days > STALE_DAYS {
            warnings.push(format!("the last drill was {days} days ago, on {day}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> ZonedDateTime {
        format!("{text}[UTC]").parse().unwrap()
    }

    fn drilled(on: &str, problems: &[&str]) -> StackOutcome {
        StackOutcome {
            drilled: Some(LastDrill {
                archive: "/b/web/web_20261001_030000.tar".into(),
                time: time(on),
                problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            }),
            ..StackOutcome::not_run("web")
        }
    }

    #[test]
    fn failed_and_stale_drills_and_damage_are_warned_of() {
        let now = time("2026-11-24T03:00:00Z");
        let of = |stack: &StackOutcome| warnings(stack, &now);
        assert_eq!(of(&StackOutcome::not_run("web")), [""; 0]);
        assert_eq!(of(&drilled("2026-10-20T03:00:00Z", &[])), [""; 0]);
        // A clock that was set back.
        assert_eq!(of(&drilled("2027-01-01T00:00:00Z", &[])), [""; 0]);
        assert_eq!(
            of(&drilled("2026-10-19T03:00:00Z", &[])),
            ["the last drill was 36 days ago, on 2026-10-19"]
        );
        assert_eq!(
            of(&drilled("2026-11-23T03:00:00Z", &["no such image"])),
            ["the drill of web_20261001_030000.tar on 2026-11-23 failed: no such image"]
        );
        let damaged = |problems: &[&str]| StackOutcome {
            damaged: vec![DamagedArchive {
                path: "/b/web/web_20261001_030000.tar".into(),
                time: time("2026-11-20T04:00:00Z"),
                problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            }],
            ..StackOutcome::not_run("web")
        };
        assert_eq!(
            of(&damaged(&["web/a: its data is damaged", "b", "c"])),
            [
                "web_20261001_030000.tar is damaged, verify found on 2026-11-20: web/a: its data \
                 is damaged and 2 more"
            ]
        );
    }

    #[test]
    fn the_last_drill_of_each_stack_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(drills(dir.path()).unwrap().is_empty());
        let drill = |on| drilled(on, &[]).drilled.unwrap();
        note_drill(dir.path(), "web", drill("2026-10-01T00:00:00Z")).unwrap();
        note_drill(dir.path(), "db", drill("2026-10-02T00:00:00Z")).unwrap();
        note_drill(dir.path(), "web", drill("2026-10-03T00:00:00Z")).unwrap();
        let kept = drills(dir.path()).unwrap();
        assert_eq!(kept.len(), 2);
        assert_eq!(kept["web"], drill("2026-10-03T00:00:00Z"));
        // Damage is told, and mended by the next drill.
        fs::write(drills_path(dir.path()), "{").unwrap();
        drills(dir.path()).unwrap_err();
        note_drill(dir.path(), "web", drill("2026-10-04T00:00:00Z")).unwrap();
        assert_eq!(drills(dir.path()).unwrap().len(), 1);
    }
}
