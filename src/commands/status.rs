//! `status`: how the stacks and their backups are now.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::list::age;
use super::load::load;
use super::output::{print, print_json, table};
use crate::cli::Global;
use crate::config::plan::{Plan, engines};
use crate::engine::{Container, Health, Status};
use crate::history::{GoodBackup, History, PastBackup, PastRun};
use crate::last_run;
use crate::outcome::{ExitStatus, LastDrill, RunOutcome, StackStatus};
use crate::stack::journal::Journal;
use crate::store::drill_results;
use crate::sys::format::{human_bytes, human_duration, one_line};
use crate::sys::lock::Lock;
use crate::sys::paths::without_symlinks;
use crate::sys::process::{Exit, Program};
use crate::sys::time::OffsetTime;

/// How many runs of a stack are shown.
const RUNS_SHOWN: usize = 20;
/// How many values a trend has.
const TREND_LENGTH: usize = 10;
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(5);
/// How long an Engine may take to list its containers.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
const TIMER: &str = "docker-stack-backup.timer";

/// How a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum StackState {
    Running,
    /// It has containers, and none of them runs.
    Stopped,
    /// The Engine has no container of it, or does not tell.
    Unknown,
    /// A container is paused.
    Paused,
    Restarting,
    Unhealthy,
    /// A backup or a restore is under way.
    Busy,
    /// The effect of a hook is not taken back.
    UndoPending,
    /// It was stopped by this program and not started again.
    Down,
}

impl StackState {
    fn name(self) -> &'static str {
        match self {
            StackState::Running => "running",
            StackState::Stopped => "stopped",
            StackState::Unknown => "unknown",
            StackState::Paused => "paused",
            StackState::Restarting => "RESTARTING",
            StackState::Unhealthy => "UNHEALTHY",
            StackState::Busy => "in a backup",
            StackState::UndoPending => "HOOK LEFT",
            StackState::Down => "DOWN",
        }
    }

    fn of(containers: &[&Container]) -> StackState {
        let any = |is: fn(&Container) -> bool| containers.iter().any(|c| is(c));
        if any(|c| c.status == Status::Restarting) {
            StackState::Restarting
        } else if any(|c| c.health == Some(Health::Unhealthy)) {
            StackState::Unhealthy
        } else if any(|c| c.status == Status::Paused) {
            StackState::Paused
        } else if any(|c| c.status == Status::Running) {
            StackState::Running
        } else if containers.is_empty() {
            StackState::Unknown
        } else {
            StackState::Stopped
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    format_version: u32,
    stacks: Vec<StackView>,
    last_run: Option<LastRunView>,
    /// When the timer starts the next run, in the words of systemd.
    next_run: Option<String>,
    /// What to do, most urgent first.
    advice: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastRunView {
    started: OffsetTime,
    finished: Option<OffsetTime>,
    exit_status: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StackView {
    stack: String,
    state: StackState,
    last_good: Option<GoodBackup>,
    last_attempt: Option<PastBackup>,
    /// Downtimes in milliseconds and sizes in bytes of the last runs, oldest first.
    downtimes_ms: Vec<u64>,
    archive_bytes: Vec<u64>,
    drilled: Option<LastDrill>,
}

/// Shows all stacks, or the last runs of one.
pub fn status(global: &Global, stack: Option<&str>) -> Result<ExitStatus> {
    let plan = load(global)?;
    let history = History::read(&plan.state_dir)?;
    if let Some(stack) = stack {
        return runs_of(global, &plan, &history, stack);
    }
    let view = StatusView::of(&plan, &history)?;
    match global.json {
        true => print_json(&view)?,
        false => print(&view.text())?,
    }
    Ok(view.exit_status())
}

impl StatusView {
    fn of(plan: &Plan, history: &History) -> Result<StatusView> {
        let last = last_run::read(&plan.state_dir)?;
        let mut drills = drill_results::last_drills(&plan.state_dir)?;
        let mut advice = Vec::new();
        let states = states(plan, last.as_ref(), &mut advice);
        let mut stacks = Vec::new();
        for stack in &plan.stacks {
            let past = history.of_stack(&stack.name);
            let past: Vec<&PastBackup> = past.into_iter().map(|(_, past)| past).collect();
            let recent = &past[past.len().saturating_sub(TREND_LENGTH)..];
            let state = states.get(&*stack.name).copied();
            stacks.push(StackView {
                stack: stack.name.clone(),
                state: state.unwrap_or(StackState::Unknown),
                last_good: history.last_good.get(&stack.name).cloned(),
                last_attempt: past.last().map(|past| (*past).clone()),
                downtimes_ms: recent.iter().filter_map(|past| past.downtime_ms).collect(),
                archive_bytes: recent
                    .iter()
                    .filter_map(|past| past.archive_bytes)
                    .collect(),
                drilled: drills.remove(&stack.name),
            });
        }
        let with_plans = stacks.iter().zip(&plan.stacks);
        advice.extend(with_plans.filter_map(|(stack, plan)| stack.advice(plan.dir())));
        Ok(StatusView {
            format_version: 1,
            stacks,
            last_run: last.map(|last| LastRunView {
                exit_status: last.exit_status() as u8,
                started: last.started,
                finished: last.finished,
            }),
            next_run: next_run(),
            advice,
        })
    }

    fn exit_status(&self) -> ExitStatus {
        let status = |stack: &StackView| match (stack.state, &stack.last_attempt) {
            (StackState::Down | StackState::UndoPending, _) => ExitStatus::StackDown,
            (StackState::Unhealthy | StackState::Restarting, _) => ExitStatus::Incomplete,
            (StackState::Unknown, _) | (_, None) => ExitStatus::Incomplete,
            (_, Some(past)) => past_status(past),
        };
        let worst = self.stacks.iter().map(status).max();
        worst.unwrap_or(ExitStatus::Ok)
    }

    fn text(&self) -> String {
        let now = OffsetTime::now();
        let header = [
            "STACK",
            "STATE",
            "LAST GOOD",
            "SIZE",
            "DOWNTIME",
            "DRILLED",
            "",
        ];
        let rows: Vec<_> = std::iter::once(header.map(str::to_owned))
            .chain(self.stacks.iter().map(|stack| stack.row(&now)))
            .collect();
        let mut text = table(&rows);
        text.push('\n');
        if let Some(last) = &self.last_run {
            let how = match (&last.finished, last.exit_status) {
                (None, _) => "under way, or killed",
                (Some(_), 0) => "all good",
                (Some(_), _) => "not all good; see `docker-stack-backup report`",
            };
            let started = last.started.strftime("%F %H:%M");
            text.push_str(&format!("last run  {started}, {how}\n"));
        }
        if let Some(next) = &self.next_run {
            text.push_str(&format!("next run  {next}\n"));
        }
        for advice in &self.advice {
            text.push_str(&format!("\n{advice}\n"));
        }
        text
    }
}

/// Returns the exit status for what a run did to a stack.
fn past_status(past: &PastBackup) -> ExitStatus {
    match past.status {
        StackStatus::Ok => ExitStatus::Ok,
        _ => ExitStatus::Incomplete,
    }
}

impl StackView {
    fn row(&self, now: &OffsetTime) -> [String; 7] {
        let none = || "-".to_owned();
        let good = self.last_good.as_ref();
        let drilled = match &self.drilled {
            Some(drill) if drill.skipped.is_some() => "skipped".to_owned(),
            Some(drill) if drill.problems.is_empty() => age(now, &drill.time),
            Some(_) => "FAILED".to_owned(),
            None => none(),
        };
        [
            self.stack.clone(),
            self.state.name().to_owned(),
            good.map_or_else(|| "NEVER".to_owned(), |good| age(now, &good.time)),
            good.map_or_else(none, |good| human_bytes(good.archive_bytes)),
            self.downtimes_ms
                .last()
                .map_or_else(none, |ms| human_duration(*ms)),
            drilled,
            trend(&self.archive_bytes),
        ]
    }

    /// What to do about the stack in `dir`, if there is something to do.
    fn advice(&self, dir: &Path) -> Option<String> {
        let stack = &self.stack;
        match (self.state, &self.last_attempt) {
            // The journal's line says it, or there is nothing to do yet.
            (StackState::Down | StackState::UndoPending | StackState::Busy, _) => None,
            (StackState::Unhealthy | StackState::Restarting, _) => Some(format!(
                "{stack} is {}\n  see why: docker compose --project-directory {} logs --tail 50",
                self.state.name(),
                dir.display()
            )),
            (_, Some(past)) if past.status == StackStatus::NotRun => Some(format!(
                "the last run ended before it backed up {stack}\n  \
                 try again: docker-stack-backup run {stack}"
            )),
            (_, Some(past)) if past.status != StackStatus::Ok => Some(format!(
                "the last backup of {stack} failed: {}\n  try again: docker-stack-backup run {stack}",
                one_line(past.failure.as_deref().unwrap_or("see the report"))
            )),
            (_, None) => Some(format!(
                "{stack} was never backed up: docker-stack-backup run {stack}"
            )),
            _ => None,
        }
    }
}

/// Returns the states of the stacks by name, and adds what to do about those that were
/// left stopped.
fn states<'a>(
    plan: &'a Plan,
    last: Option<&RunOutcome>,
    advice: &mut Vec<String>,
) -> BTreeMap<&'a str, StackState> {
    let mut asked = Vec::new();
    for engine in engines(&plan.stacks) {
        let containers = engine.containers_within(ENGINE_LIMIT);
        let containers = containers.unwrap_or_else(|error| {
            advice.push(format!("cannot ask the Engine: {error:#}"));
            Vec::new()
        });
        asked.push((engine, containers));
    }
    let is_busy = Lock::is_held_by_journal_writer(&plan.state_dir);
    let journal = Journal::of(&plan.state_dir).found().unwrap_or_default();
    advice.extend(super::left_down::left_down(plan));
    let mut states = BTreeMap::new();
    for stack in &plan.stacks {
        let outcome = last.and_then(|last| last.stacks.iter().find(|s| s.stack == stack.name));
        let project = outcome.and_then(|outcome| outcome.project.as_deref());
        let dir = without_symlinks(stack.dir());
        let is_of_stack = |c: &&Container| match project {
            _ if c.one_off => false,
            Some(project) => c.project == project,
            None => without_symlinks(&c.working_dir) == dir,
        };
        let of_engine = asked
            .iter()
            .find(|(engine, _)| engine.is_same(&stack.compose.engine));
        let containers = of_engine.iter().flat_map(|(_, containers)| containers);
        let own: Vec<&Container> = containers.filter(is_of_stack).collect();
        let found = journal.iter().find(|found| found.stack == stack.name);
        let state = match found {
            None => StackState::of(&own),
            // The run that is under way has given it up.
            Some(_) if outcome.is_some_and(|s| s.status == StackStatus::Down) => StackState::Down,
            Some(_) if is_busy => StackState::Busy,
            Some(found) if found.is_down() => StackState::Down,
            Some(_) => StackState::UndoPending,
        };
        states.insert(&*stack.name, state);
    }
    states
}

/// Returns when systemd starts the next run, if its timer is there.
fn next_run() -> Option<String> {
    let args = [
        "show",
        TIMER,
        "--property=NextElapseUSecRealtime",
        "--value",
    ];
    let output = Program::new("systemctl", args)
        .limit(SYSTEMCTL_LIMIT)
        .output()
        .ok()?;
    let next = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.exit == Exit::Success && !next.is_empty()).then_some(next)
}

/// Shows what the last runs did to a stack.
fn runs_of(global: &Global, plan: &Plan, history: &History, stack: &str) -> Result<ExitStatus> {
    let past = history.of_stack(stack);
    if past.is_empty() && plan.stack(stack).is_none() {
        bail!(
            "no stack `{stack}` is configured (there are: {})",
            plan.configured.join(", ")
        );
    }
    let shown = &past[past.len().saturating_sub(RUNS_SHOWN)..];
    let status = past
        .last()
        .map_or(ExitStatus::Incomplete, |(_, past)| past_status(past));
    if global.json {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct View<'a> {
            started: &'a OffsetTime,
            #[serde(flatten)]
            past: &'a PastBackup,
        }
        let views = shown.iter().map(|(run, past)| View {
            started: &run.started,
            past,
        });
        print_json(&views.collect::<Vec<_>>())?;
        return Ok(status);
    }
    let none = || "-".to_owned();
    let row = |(run, past): &(&PastRun, &PastBackup)| {
        [
            run.started.strftime("%F %H:%M").to_string(),
            match past.status {
                StackStatus::Ok => "ok".to_owned(),
                StackStatus::Failed => "FAILED".to_owned(),
                StackStatus::Down => "DOWN".to_owned(),
                StackStatus::NotRun => "not run".to_owned(),
            },
            past.archive_bytes.map_or_else(none, human_bytes),
            past.downtime_ms.map_or_else(none, human_duration),
            one_line(past.failure.as_deref().unwrap_or_default()),
        ]
    };
    let header = ["RUN", "RESULT", "SIZE", "DOWNTIME", ""];
    let rows: Vec<_> = std::iter::once(header.map(str::to_owned))
        .chain(shown.iter().map(row))
        .collect();
    print(&table(&rows))?;
    Ok(status)
}

/// Draws values as bars, where stdout is a terminal that can show them.
fn trend(values: &[u64]) -> String {
    let is_utf8 = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.map(|value| value.to_uppercase().replace('-', "").contains("UTF8"))
    };
    let can_show = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(is_utf8);
    match can_show == Some(true) && std::io::stdout().is_terminal() {
        true => bars(values),
        false => String::new(),
    }
}

fn bars(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: &u64| BARS[((u128::from(*value) * 7) / u128::from(most)) as usize];
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_the_share_of_the_largest() {
        assert_eq!(bars(&[0, 1, 7, 4, u64::MAX]), "▁▁▁▁█");
        assert_eq!(bars(&[1, 2, 4]), "▂▄█");
        assert_eq!(bars(&[0]), "▁");
        assert_eq!(bars(&[]), "");
    }
}
