//! What monitoring asks, as a file for the textfile collector of Prometheus'
//! node_exporter. See docs/monitoring.md.
//!
//! It is made from the state directory alone: a store that does not answer must not keep
//! anyone from being told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::config::OffsiteRepository;
use crate::config::plan::Plan;
use crate::guard;
use crate::handover::{HandoverState, RepositoryState};
use crate::history::History;
use crate::last_run;
use crate::notify;
use crate::outcome::{ChannelStatus, RunOutcome, StackOutcome, StackStatus};
use crate::stack::journal::{FoundEntry, Journal};
use crate::store::{drill_results, verify_results};
use crate::sys::durable::write_durably_with_mode;
use crate::sys::logging::Log;
use crate::sys::time::OffsetTime;

const PREFIX: &str = "docker_stack_backup_";
/// The collector runs as a user of its own.
const MODE: u32 = 0o644;

/// Concludes a run, and writes the file for it, if one is configured. That the file cannot
/// be written is in the news of the run.
pub fn conclude(plan: &Plan, log: &Log, outcome: &mut RunOutcome) {
    if let Err(error) = update(plan) {
        last_run::add_error(outcome, &error);
    }
    last_run::conclude(plan, log, outcome);
    // Now the end of the run and its news are known. An error was told already.
    if let Err(error) = update(plan) {
        tracing::warn!("{error:#}");
    }
}

/// Writes the file, if one is configured, in one step.
///
/// # Errors
/// When the state cannot be read, or the file cannot be written.
pub fn update(plan: &Plan) -> Result<()> {
    let Some(path) = &plan.metrics_file else {
        return Ok(());
    };
    let text = text(plan)?;
    write_durably_with_mode(path, text.as_bytes(), MODE)
        .context("cannot write the file of metrics (`metricsFile`)")
}

/// Returns the metrics in Prometheus' text format.
///
/// # Errors
/// When the state cannot be read.
fn text(plan: &Plan) -> Result<String> {
    let last = last_run::read(&plan.state_dir)?;
    let history = History::read(&plan.state_dir)?;
    let journal = Journal::of(&plan.state_dir).found()?;
    let journal: BTreeMap<&str, &FoundEntry> =
        journal.iter().map(|entry| (&*entry.stack, entry)).collect();
    let guarded = guard::found(&plan.state_dir)?;
    let is_half_updated = |stack: &str| {
        let mut guarded = guarded.iter();
        guarded.any(|found| found.stack == stack && found.is_pending())
    };
    let verifies = verify_results::last_verifies(&plan.state_dir)?;
    let drills = drill_results::last_drills(&plan.state_dir)?;
    let mut text = Text::default();

    let info = [("version", env!("CARGO_PKG_VERSION"))];
    text.family(
        "info",
        "Version of the program that wrote this file.",
        |add| {
            add(&info, 1.0);
        },
    );
    let runs = history.runs.iter().rev();
    let mut real_runs = runs.filter(|run| !run.stacks.is_empty());
    let last_start = match &last {
        // A recovery has no stacks, and is no run that was due.
        Some(last) if !last.stacks.is_empty() => Some(&last.started),
        _ => real_runs.next().map(|run| &run.started),
    };
    if let Some(start) = last_start {
        text.family(
            "last_run_start_timestamp_seconds",
            "When the last run began.",
            |add| add(&[], seconds(start)),
        );
    }
    if let Some(last) = &last {
        let undelivered = notify::undelivered(plan)?;
        of_run(&mut text, last, &undelivered);
    }

    // Every configured stack has its series from the first day.
    text.stacks = &plan.configured;
    text.of_stacks(
        "stack_down",
        "Whether the stack was stopped and not started again, or may be half updated.",
        |stack| {
            let found = journal.get(stack);
            let is_down = found.is_some_and(|found| found.is_down());
            Some(f64::from(is_down || is_half_updated(stack)))
        },
    );
    text.of_stacks(
        "stack_undo_pending",
        "Whether the effect of a hook on the stack is not taken back.",
        |stack| {
            let entry = journal
                .get(stack)
                .and_then(|found| found.entry.as_ref().ok());
            Some(f64::from(
                entry.is_some_and(|entry| !entry.undos.is_empty()),
            ))
        },
    );
    text.of_stacks(
        "stack_last_success_timestamp_seconds",
        "When the run of the last good backup began; 0 if there was none.",
        |stack| {
            let good = history.last_good.get(stack);
            Some(good.map_or(0.0, |good| seconds(&good.time)))
        },
    );
    let last_attempt = |stack: &str| history.of_stack(stack).pop();
    text.of_stacks(
        "stack_last_attempt_timestamp_seconds",
        "When the last run of the stack began; 0 if there was none.",
        |stack| Some(last_attempt(stack).map_or(0.0, |(run, _)| seconds(&run.started))),
    );
    text.of_stacks(
        "stack_last_attempt_success",
        "Whether the last run of the stack made a good backup.",
        |stack| {
            let (_, past) = last_attempt(stack)?;
            Some(f64::from(past.status == StackStatus::Ok))
        },
    );
    text.of_stacks(
        "stack_archive_bytes",
        "Size of the last good archive.",
        |stack| {
            let good = history.last_good.get(stack)?;
            Some(good.archive_bytes as f64)
        },
    );
    text.of_stacks(
        "stack_downtime_seconds",
        "How long the last run had the stack down.",
        |stack| {
            let (_, past) = last_attempt(stack)?;
            Some(past.downtime_ms? as f64 / 1000.0)
        },
    );
    text.of_stacks(
        "stack_down_written_bytes",
        "Bytes that the last run wrote while the stack was down.",
        |stack| {
            let (_, past) = last_attempt(stack)?;
            Some(past.down_bytes? as f64)
        },
    );
    text.of_stacks(
        "stack_last_drill_timestamp_seconds",
        "When the last drill of the stack ended; 0 if there was none.",
        |stack| {
            let drill = drills.get(stack).filter(|drill| drill.skipped.is_none());
            Some(drill.map_or(0.0, |drill| seconds(&drill.time)))
        },
    );
    text.of_stacks(
        "stack_last_drill_success",
        "Whether the last drill of the stack succeeded.",
        |stack| {
            let drill = drills.get(stack).filter(|drill| drill.skipped.is_none())?;
            Some(f64::from(drill.problems.is_empty()))
        },
    );
    text.of_stacks(
        "stack_last_verify_timestamp_seconds",
        "When archives of the stack were last verified; 0 if they never were.",
        |stack| {
            let verify = verifies.get(stack);
            Some(verify.map_or(0.0, |verify| seconds(&verify.time)))
        },
    );
    text.of_stacks(
        "stack_last_verify_success",
        "Whether no archive of the stack was marked as damaged after its last verify.",
        |stack| Some(f64::from(verifies.get(stack)?.damaged_count == 0)),
    );
    of_repositories(&mut text, plan, &HandoverState::read(&plan.state_dir)?);
    Ok(text.lines)
}

/// Every configured stack has its series for every repository from the first day.
fn of_repositories(text: &mut Text<'_>, plan: &Plan, state: &HandoverState) {
    let known = |config: &OffsiteRepository| state.of(config.name(), &config.repository);
    let last = |config: &OffsiteRepository, stack: &str| {
        let handed = known(config)?.stacks.get(stack)?;
        handed.last.as_ref().map(|last| seconds(&last.handed_over))
    };
    text.family(
        "handover_last_success_timestamp_seconds",
        "When an archive of the stack was last handed over to the repository; 0 if none was.",
        |add| {
            for config in &plan.handover {
                for stack in &plan.configured {
                    let labels = [("stack", &**stack), ("repository", config.name())];
                    add(&labels, last(config, stack).unwrap_or(0.0));
                }
            }
        },
    );
    text.family(
        "handover_waiting_archives",
        "Number of archives that are still to be handed over to the repository.",
        |add| {
            for config in &plan.handover {
                let waiting = known(config).map_or(0, RepositoryState::waiting_count);
                add(&[("repository", config.name())], waiting as f64);
            }
        },
    );
    text.family(
        "handover_last_check_timestamp_seconds",
        "When the repository was last checked and found good; 0 if it never was.",
        |add| {
            for config in &plan.handover {
                let checked = known(config).and_then(|known| known.checked.as_ref());
                add(
                    &[("repository", config.name())],
                    checked.map_or(0.0, seconds),
                );
            }
        },
    );
}

/// `undelivered` has the channels whose news are waiting, or were given up.
fn of_run(text: &mut Text<'_>, last: &RunOutcome, undelivered: &BTreeSet<String>) {
    text.family(
        "last_run_end_timestamp_seconds",
        "When the last run ended, or a recovery concluded it; 0 if neither is so.",
        |add| add(&[], last.finished.as_ref().map_or(0.0, seconds)),
    );
    text.family(
        "last_run_exit_status",
        "Exit status of the last run; 0 is good.",
        |add| add(&[], f64::from(last.exit_status() as u8)),
    );
    text.family(
        "last_run_warnings",
        "Number of warnings of the last run.",
        |add| add(&[], last.warnings().len() as f64),
    );
    text.family(
        "stack_warnings",
        "Number of warnings of the last run about the stack.",
        |add| {
            for stack in &last.stacks {
                add(&[("stack", &stack.stack)], stack.warnings.len() as f64);
            }
        },
    );
    text.family(
        "project_not_backed_up",
        "1 for a Compose project that ran although no stack is its backup.",
        |add| {
            for found in last.unconfigured.iter().flatten() {
                add(&[("project", &found.project)], 1.0);
            }
        },
    );
    text.family(
        "channel_failed",
        "Whether the news of the last run did not reach the channel.",
        |add| {
            for channel in &last.channels {
                let is_failed = match channel.status {
                    // A later command may have sent it.
                    ChannelStatus::Waiting => undelivered.contains(&channel.channel),
                    ChannelStatus::Sent | ChannelStatus::Lost => channel.error.is_some(),
                };
                let is_failed = f64::from(is_failed);
                add(&[("channel", &channel.channel)], is_failed);
            }
        },
    );
    if let Some(store) = &last.store {
        text.family(
            "store_archives",
            "Number of archives in the store.",
            |add| {
                add(&[], store.archive_count as f64);
            },
        );
        text.family(
            "store_archive_bytes",
            "Size of all archives in the store.",
            |add| {
                add(&[], store.archive_bytes as f64);
            },
        );
        text.family(
            "store_free_bytes",
            "Free room on the store's file system.",
            |add| {
                add(&[], store.file_system_available_bytes as f64);
            },
        );
    }
    text.family(
        "stack_archives",
        "Number of archives of the stack that the last run kept.",
        |add| {
            for pruned in &last.pruned {
                add(&[("stack", &pruned.stack)], pruned.kept_count as f64);
            }
        },
    );
    text.family(
        "stack_uncovered_mounts",
        "Number of mounts of the stack that no archive holds.",
        |add| {
            for stack in last.stacks.iter().filter(|stack| was_surveyed(stack)) {
                let holes = stack.coverage.iter().filter(|mount| mount.is_hole());
                add(&[("stack", &stack.stack)], holes.count() as f64);
            }
        },
    );
    text.family(
        "stack_phase_seconds",
        "How long the phases of the stack's last backup took.",
        |add| {
            for stack in &last.stacks {
                for time in &stack.phases {
                    let labels = [("stack", &*stack.stack), ("phase", time.phase.name())];
                    add(&labels, time.duration_ms as f64 / 1000.0);
                }
            }
        },
    );
}

fn was_surveyed(stack: &StackOutcome) -> bool {
    !stack.coverage.is_empty()
}

fn seconds(time: &OffsetTime) -> f64 {
    time.timestamp().as_second() as f64
}

/// Prometheus' text format (its documentation, "Exposition formats").
#[derive(Default)]
struct Text<'a> {
    lines: String,
    stacks: &'a [String],
}

impl Text<'_> {
    /// Adds a metric with a sample for each stack that has a value.
    fn of_stacks(&mut self, name: &str, help: &str, value: impl Fn(&str) -> Option<f64>) {
        let stacks = self.stacks;
        self.family(name, help, |add| {
            for stack in stacks {
                if let Some(value) = value(stack) {
                    add(&[("stack", stack)], value);
                }
            }
        });
    }

    /// Adds a metric, if it has samples. `samples` gets what adds one.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        samples: impl FnOnce(&mut dyn FnMut(&[(&str, &str)], f64)),
    ) {
        let mut lines = String::new();
        samples(&mut |labels, value| {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            // Writing to a `String` cannot fail.
            let _ = writeln!(lines, "{PREFIX}{name}{labels} {value}");
        });
        if !lines.is_empty() {
            let _ = writeln!(self.lines, "# HELP {PREFIX}{name} {help}");
            let _ = writeln!(self.lines, "# TYPE {PREFIX}{name} gauge");
            self.lines += &lines;
        }
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::history;
    use crate::outcome::ChannelOutcome;
    use crate::outcome::tests::example_run;

    fn plan(dir: &Path) -> Plan {
        let config = serde_json::json!({
            "stacks": ["web", "db"], "stateDir": dir, "metricsFile": dir.join("backup.prom"),
        });
        Plan::new(Config::parse(config.to_string().as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn every_stack_has_its_series_from_the_first_day() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path());
        // Not those that are selected are shown, but all.
        plan.select(&["web".to_owned()]).unwrap();
        update(&plan).unwrap();
        let text = std::fs::read_to_string(dir.path().join("backup.prom")).unwrap();
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn what_runs_did_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let good = example_run("2026-11-01T03:15:00+01:00", StackStatus::Ok);
        let bad = example_run("2026-11-02T03:15:00+01:00", StackStatus::Failed);
        for mut run in [good, bad] {
            history::add(dir.path(), &run).unwrap();
            last_run::save(&plan, &mut run);
        }
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        // An entry that cannot be parsed may be that of a stack that is down.
        std::fs::write(dir.path().join("journal/db.json"), "{").unwrap();
        let text = text(&plan).unwrap();
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    /// Returns the samples of a metric.
    fn samples(plan: &Plan, name: &str) -> Vec<String> {
        let text = text(plan).unwrap();
        let prefix = format!("{PREFIX}{name}");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines.map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn a_recovery_is_not_taken_for_the_run_that_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let start = || samples(&plan, "last_run_start_timestamp_seconds");
        let conclude = |run: &mut RunOutcome| {
            history::add(dir.path(), run).unwrap();
            last_run::save(&plan, run);
        };
        let mut recovery = example_run("2026-11-03T12:00:00Z", StackStatus::Ok);
        recovery.stacks.clear();
        conclude(&mut recovery);
        assert_eq!(start(), [""; 0], "there was no run yet");
        conclude(&mut example_run("2026-11-01T03:00:00Z", StackStatus::Ok));
        conclude(&mut recovery);
        let expected = "2026-11-01T03:00:00Z".parse::<OffsetTime>().unwrap();
        assert_eq!(start(), [seconds(&expected).to_string()]);
        // The control: the next run counts.
        conclude(&mut example_run("2026-11-04T03:00:00Z", StackStatus::Ok));
        assert_ne!(start(), [seconds(&expected).to_string()]);
    }

    #[test]
    fn a_channel_whose_news_was_sent_later_has_not_failed() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let mut run = example_run("2026-11-01T03:00:00Z", StackStatus::Ok);
        let channel = |status| ChannelOutcome {
            channel: "ntfy".to_owned(),
            status,
            error: Some("no answer".to_owned()),
        };
        let mut failed = |status| {
            run.channels = vec![channel(status)];
            last_run::save(&plan, &mut run);
            samples(&plan, "channel_failed")
        };
        assert_eq!(failed(ChannelStatus::Waiting), [r#"{channel="ntfy"} 0"#]);
        // The controls: it was not kept, or was given up later.
        assert_eq!(failed(ChannelStatus::Lost), [r#"{channel="ntfy"} 1"#]);
        let lost = serde_json::json!({"formatVersion": 1, "channels": {"ntfy": {
            "run": null, "drills": null,
            "lost": {"count": 1, "since": "2026-11-01T03:00:00Z", "error": "x"},
        }}});
        std::fs::write(dir.path().join("news.json"), lost.to_string()).unwrap();
        assert_eq!(failed(ChannelStatus::Waiting), [r#"{channel="ntfy"} 1"#]);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.family("x", "X.", |add| add(&[("a", "b\"\\\n")], 0.5));
        let last = text.lines.lines().last().unwrap();
        assert_eq!(last, r#"docker_stack_backup_x{a="b\"\\\n"} 0.5"#);
    }
}
