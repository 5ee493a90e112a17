//! Decides which channel is told of a run or of drills. Pure functions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::When;
use crate::outcome::{DrillOutcome, ExitStatus, RunOutcome, StackOutcome, StackStatus};
use crate::sys::time::OffsetTime;

const HOUR_SECS: i64 = 3600;
/// A reminder that is due in less than half a day comes now: runs do not begin at the
/// same second every night.
const REMINDER_SLACK_SECS: i64 = 12 * HOUR_SECS;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    Ok,
    Warning,
    Failure,
    /// A stack that ran before is down.
    Down,
}

/// One thing that is wrong, without what differs from night to night.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// `None` if it belongs to no single stack.
    stack: Option<String>,
    what: String,
}

/// The state of things after a run, or after drills.
#[derive(Debug)]
pub struct Condition {
    pub level: Level,
    /// The stacks of which it tells. A run may be one of a single stack.
    stacks: BTreeSet<String>,
    /// Whether it tells of all stacks and projects there are.
    is_whole: bool,
    failures: BTreeSet<Fault>,
    warnings: BTreeSet<Fault>,
    /// Whether something happened that does not last, such as a recovery.
    has_event: bool,
}

/// What a channel was told last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    failures: BTreeSet<Fault>,
    warnings: BTreeSet<Fault>,
    /// Since when the failures are these.
    since: OffsetTime,
    told: OffsetTime,
}

/// Why a channel is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It is told of every run like this one, or something has changed.
    News,
    /// Nothing has changed, but the failure lasts.
    Reminder { since: OffsetTime },
}

impl Condition {
    pub fn of_run(run: &RunOutcome) -> Condition {
        let mut condition = Condition {
            level: run_level(run),
            stacks: BTreeSet::new(),
            is_whole: run.unconfigured.is_some(),
            failures: BTreeSet::new(),
            warnings: BTreeSet::new(),
            has_event: !run.recovered.is_empty()
                || run.stacks.iter().any(StackOutcome::has_new_holes),
        };
        for stack in &run.stacks {
            let what = match stack.status {
                StackStatus::Ok => None,
                StackStatus::Failed => Some("failed"),
                StackStatus::Down => Some("down"),
                StackStatus::NotRun => Some("not run"),
            };
            condition.add_stack(&stack.stack, what);
            let not_undone = stack.not_undone.first();
            condition.add_stack(&stack.stack, not_undone.map(|_| "not undone"));
        }
        for stack in &run.recovered {
            condition.add_stack(&stack.stack, stack.error.as_ref().map(|_| "down"));
            let not_undone = stack.not_undone.first();
            condition.add_stack(&stack.stack, not_undone.map(|_| "not undone"));
        }
        for stack in &run.pruned {
            condition.add_stack(&stack.stack, stack.error.as_ref().map(|_| "not pruned"));
        }
        for handover in &run.handovers {
            let what = format!("not handed over to {}", handover.repository);
            for step in handover.failed_steps() {
                match &step.stack {
                    Some(stack) => condition.add_stack(stack, Some(&what)),
                    None => condition.failures.extend([fault(None, &what)]),
                }
            }
            let whole = handover.error.as_ref().map(|_| fault(None, &what));
            condition.failures.extend(whole);
        }
        let errors = run.errors.iter().map(String::as_str);
        let errors = errors.chain(run.interrupted.as_ref().map(|_| "interrupted"));
        condition
            .failures
            .extend(errors.map(|error| fault(None, error)));
        condition.warnings = run
            .warnings()
            .into_iter()
            .map(|(stack, warning)| fault(Some(stack), &warning))
            .collect();
        condition
    }

    pub fn of_drills(drills: &[DrillOutcome]) -> Condition {
        let is_healthy = drills.iter().all(DrillOutcome::is_healthy);
        let mut condition = Condition {
            level: match is_healthy {
                true => Level::Ok,
                false => Level::Failure,
            },
            stacks: BTreeSet::new(),
            is_whole: false,
            failures: BTreeSet::new(),
            warnings: BTreeSet::new(),
            has_event: false,
        };
        for drilled in drills.iter().filter(|drilled| drilled.skipped.is_none()) {
            let what = match (&drilled.interrupted, drilled.is_healthy()) {
                (Some(_), _) => Some("not drilled"),
                (None, false) => Some("not healthy"),
                (None, true) => None,
            };
            condition.add_stack(&drilled.stack, what);
        }
        condition
    }

    fn add_stack(&mut self, stack: &str, failure: Option<&str>) {
        self.stacks.insert(stack.to_owned());
        self.failures
            .extend(failure.map(|what| fault(Some(stack), what)));
    }

    /// Returns why a channel is to be told, or `None`.
    pub fn occasion(
        &self,
        when: When,
        remind_days: u32,
        memory: Option<&Memory>,
        now: &OffsetTime,
    ) -> Option<Occasion> {
        let is_told = match when {
            When::Always => true,
            When::Failure => self.level > Level::Ok || self.has_event,
            When::Change => self.has_event || self.differs(memory),
        };
        if is_told {
            return Some(Occasion::News);
        }
        let memory = memory.filter(|_| when == When::Change && !self.failures.is_empty())?;
        let elapsed_secs = now.duration_since(&memory.told).as_secs();
        let due_secs = i64::from(remind_days) * 24 * HOUR_SECS - REMINDER_SLACK_SECS;
        // A clock that was ahead must not silence it.
        let is_due = elapsed_secs >= due_secs || elapsed_secs < -REMINDER_SLACK_SECS;
        is_due.then(|| Occasion::Reminder {
            since: memory.since.clone(),
        })
    }

    /// Whether failures have come or gone, or a warning has come. What is known of other
    /// stacks does not count.
    fn differs(&self, memory: Option<&Memory>) -> bool {
        let Some(memory) = memory else {
            return self.level > Level::Ok;
        };
        let is_here = |fault: &&Fault| self.is_about(fault);
        let known = memory.failures.iter().filter(is_here);
        !known.eq(self.failures.iter())
            || self.warnings.difference(&memory.warnings).next().is_some()
    }

    fn is_about(&self, fault: &Fault) -> bool {
        let stack = fault.stack.as_ref();
        self.is_whole || stack.is_none_or(|stack| self.stacks.contains(stack))
    }

    /// Returns what the channel knows from now on.
    pub fn remembered(&self, memory: Option<&Memory>, is_told: bool, now: &OffsetTime) -> Memory {
        let with_others = |own: &BTreeSet<Fault>, known: Option<&BTreeSet<Fault>>| {
            let others = known.into_iter().flatten();
            let others = others.filter(|fault| !self.is_about(fault));
            own.iter().chain(others).cloned().collect()
        };
        let failures = with_others(&self.failures, memory.map(|memory| &memory.failures));
        let same = memory.filter(|memory| memory.failures == failures);
        Memory {
            since: same.map_or(now, |memory| &memory.since).clone(),
            told: match memory {
                Some(memory) if !is_told => memory.told.clone(),
                _ => now.clone(),
            },
            warnings: with_others(&self.warnings, memory.map(|memory| &memory.warnings)),
            failures,
        }
    }
}

fn run_level(run: &RunOutcome) -> Level {
    match run.exit_status() {
        ExitStatus::StackDown => Level::Down,
        ExitStatus::Ok if run.warnings().is_empty() => Level::Ok,
        ExitStatus::Ok => Level::Warning,
        ExitStatus::CouldNotRun | ExitStatus::Incomplete => Level::Failure,
    }
}

/// Replaces the figures: sizes, times and names of archives differ every night.
fn fault(stack: Option<&str>, what: &str) -> Fault {
    let mut text = String::with_capacity(what.len());
    for char in what.chars() {
        match char {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            _ => text.push(char),
        }
    }
    Fault {
        stack: stack.map(str::to_owned),
        what: text,
    }
}
