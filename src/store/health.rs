//! The health of a stack's archives, as a run reports it: archives that
//! `verify` found damaged, and the result and age of the last drill.

use std::path::Path;

use anyhow::Result;

use super::checks::Checks;
use super::directory::Store;
use crate::outcome::{DamagedArchive, StackOutcome};
use crate::sys::time::OffsetTime;

/// Age in days after which the report warns that the last drill is stale. It is
/// more than a month, so that monthly drills cause no warning.
const STALE_DRILL_DAYS: i64 = 35;

/// Returns the archives of a stack that are marked as damaged, oldest first.
///
/// # Errors
/// When the archives or their checks cannot be read.
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

/// Returns a warning for each archive that cannot pass for the newest of its
/// stack, although it is whole: it is dated in the future, or is of another
/// stack.
///
/// # Errors
/// When the archives cannot be read.
pub fn misplaced(store: &Store, stack: &str, now: &OffsetTime) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for archive in store.list(stack)? {
        let is_misplaced = archive.other_stack().is_some() || archive.time > *now;
        if let Some(objection) = archive.objection(now).filter(|_| is_misplaced) {
            warnings.push(format!(
                "{} {objection}: restores pass it over, and it is never pruned; move it away or \
                 remove it",
                archive.name
            ));
        }
    }
    Ok(warnings)
}

/// Returns the warnings that follow from a stack's damaged archives and its
/// last drill. `is_drilled` says whether drills of all stacks are to drill this
/// one. Pure.
pub fn warnings(stack: &StackOutcome, is_drilled: bool, now: &OffsetTime) -> Vec<String> {
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
            "verify found {} damaged on {}: {}{more}",
            name(&archive.path),
            archive.time.strftime("%F"),
            archive.problems.first().map_or("", String::as_str)
        ));
    }
    if let Some(drill) = stack.drilled.as_ref().filter(|_| is_drilled) {
        let day = drill.time.strftime("%F");
        let days = now.duration_since(drill.last_tried()).as_hours() / 24;
        if let Some(problem) = drill.problems.first() {
            let archive = name(&drill.archive);
            warnings.push(format!("the drill of {archive} on {day} failed: {problem}"));
        } else if days > STALE_DRILL_DAYS {
            warnings.push(format!("the last drill was {days} days ago, on {day}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::LastDrill;

    const ARCHIVE: &str = "/b/web/web_20261001_030000.tar";

    fn time(text: &str) -> OffsetTime {
        text.parse().unwrap()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn drilled(on: &str, problems: &[&str]) -> StackOutcome {
        StackOutcome {
            drilled: Some(LastDrill {
                archive: ARCHIVE.into(),
                time: time(on),
                time_zone: None,
                problems: texts(problems),
                skipped: None,
                skipped_later: None,
            }),
            ..StackOutcome::not_run("web")
        }
    }

    fn warnings_now(stack: &StackOutcome) -> Vec<String> {
        warnings(stack, true, &time("2026-11-24T03:00:00Z"))
    }

    #[test]
    fn failed_and_stale_drills_cause_a_warning() {
        assert_eq!(warnings_now(&StackOutcome::not_run("web")), [""; 0]);
        let recent = drilled("2026-10-20T03:00:00Z", &[]);
        assert_eq!(warnings_now(&recent), [""; 0]);
        // The clock was set back after the drill.
        let future = drilled("2027-01-01T00:00:00Z", &[]);
        assert_eq!(warnings_now(&future), [""; 0]);
        assert_eq!(
            warnings_now(&drilled("2026-10-19T03:00:00Z", &[])),
            ["the last drill was 36 days ago, on 2026-10-19"]
        );
        assert_eq!(
            warnings_now(&drilled("2026-11-23T03:00:00Z", &["no such image"])),
            ["the drill of web_20261001_030000.tar on 2026-11-23 failed: no such image"]
        );
        // A stack that is not to be drilled needs no drill.
        let stale = drilled("2026-10-19T03:00:00Z", &[]);
        let now = time("2026-11-24T03:00:00Z");
        assert_eq!(warnings(&stale, false, &now), [""; 0]);
    }

    #[test]
    fn a_damaged_archive_causes_a_warning_with_its_first_problem() {
        let stack = StackOutcome {
            damaged: vec![DamagedArchive {
                path: ARCHIVE.into(),
                time: time("2026-11-20T04:00:00Z"),
                problems: texts(&["web/a: its data is damaged", "b", "c"]),
            }],
            ..StackOutcome::not_run("web")
        };
        assert_eq!(
            warnings_now(&stack),
            [
                "verify found web_20261001_030000.tar damaged on 2026-11-20: web/a: its data is \
                 damaged and 2 more"
            ]
        );
    }
}
