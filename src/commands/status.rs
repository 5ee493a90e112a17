//! `status`: how the stacks and their backups are now.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::Serialize;

use super::list::age;
use super::load::load;
use super::output::{print, print_folded, print_json, table};
use crate::cli::Global;
use crate::config::OffsiteRepository;
use crate::config::plan::{Plan, StackPlan};
use crate::engine::{Container, Engine, Health, Status};
use crate::guard::{self, FoundGuard};
use crate::handover::{HandedArchive, HandoverState};
use crate::history::{GoodBackup, History, PastBackup, PastRun};
use crate::last_run;
use crate::outcome::{
    ExitStatus, LastDrill, RunOutcome, StackOutcome, StackStatus, UnconfiguredProject,
};
use crate::stack::journal::{FoundEntry, Journal};
use crate::stack::project::find_project;
use crate::stack::{all_engines, unconfigured};
use crate::store::{alarms, drill_results};
use crate::sys::format::{human_bytes, human_duration, one_line};
use crate::sys::lock::Lock;
use crate::sys::process::{Exit, Program};
use crate::sys::systemd::{self, ActiveState, UnitState};
use crate::sys::time::OffsetTime;

/// How many runs of a stack are shown.
const RUNS_SHOWN: usize = 20;
/// How many values a trend has.
const TREND_LENGTH: usize = 10;
/// How many containers of a stack are shown, and how many lines of each one's log.
const TROUBLES_SHOWN: usize = 3;
const LOG_LINES_SHOWN: usize = 3;
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(5);
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
    /// An update was killed before it was confirmed.
    HalfUpdated,
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
            StackState::HalfUpdated => "HALF UPDATED",
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

    /// Returns the state of a stack of units.
    fn of_units(units: &[UnitState]) -> StackState {
        let any = |is: fn(&UnitState) -> bool| units.iter().any(is);
        if units.is_empty() || any(|unit| !unit.is_loaded) {
            StackState::Unknown
        } else if any(UnitState::awaits_restart) {
            StackState::Restarting
        } else if any(|unit| unit.active == ActiveState::Failed) {
            StackState::Unhealthy
        } else if any(UnitState::runs) {
            StackState::Running
        } else {
            StackState::Stopped
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    stacks: Vec<StackView>,
    /// Projects that run although no stack is their backup.
    unconfigured: Vec<UnconfiguredProject>,
    /// What the repositories elsewhere have.
    handovers: Vec<HandoverView>,
    last_run: Option<LastRunView>,
    /// When the timer starts the next run.
    next_run: Option<OffsetTime>,
    /// What could not be read, so that the rest is incomplete.
    errors: Vec<String>,
    /// What to do, most urgent first.
    advice: Vec<String>,
    #[serde(skip)]
    fail_on_warning: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastRunView {
    started: OffsetTime,
    finished: Option<OffsetTime>,
    exit_status: u8,
}

/// What a repository has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HandoverView {
    repository: String,
    stacks: Vec<HandedStackView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HandedStackView {
    stack: String,
    /// The newest archive that was handed over.
    last: Option<HandedArchive>,
    waiting_count: u64,
    /// Why the newest of those that wait was not handed over.
    error: Option<String>,
}

impl HandoverView {
    /// Returns what each repository has of the configured stacks.
    fn all(plan: &Plan, state: &HandoverState) -> Vec<HandoverView> {
        let view = |config: &OffsiteRepository| {
            let known = state.of(config.name(), &config.repository);
            let stacks = plan.configured.iter().map(|stack| {
                let handed = known.and_then(|known| known.stacks.get(stack));
                HandedStackView {
                    stack: stack.clone(),
                    last: handed.and_then(|handed| handed.last.clone()),
                    waiting_count: handed.map_or(0, |handed| handed.waiting.len() as u64),
                    error: handed.and_then(|handed| handed.error()).map(str::to_owned),
                }
            });
            HandoverView {
                repository: config.name().to_owned(),
                stacks: stacks.collect(),
            }
        };
        plan.handover.iter().map(view).collect()
    }

    fn text(&self, now: &OffsetTime) -> String {
        let stacks = self.stacks.iter().map(|stack| {
            let last = stack.last.as_ref();
            let last = last.map_or("NEVER".to_owned(), |last| age(now, &last.time));
            match stack.waiting_count {
                0 => format!("{} {last}", stack.stack),
                waiting => format!("{} {last} ({waiting} waiting)", stack.stack),
            }
        });
        let stacks: Vec<String> = stacks.collect();
        format!("off-site  {}: {}\n", self.repository, stacks.join(", "))
    }

    fn advice(&self) -> Option<String> {
        let failed = self.stacks.iter();
        let mut failed = failed.filter_map(|stack| Some((&stack.stack, stack.error.as_ref()?)));
        let (stack, error) = failed.next()?;
        let (repository, error) = (&self.repository, one_line(error));
        Some(format!(
            "{stack} was not handed over to {repository}: {error}\n  \
             try again: docker-stack-backup handover"
        ))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StackView {
    stack: String,
    state: StackState,
    /// The containers that are the reason for a bad state.
    troubles: Vec<ContainerTrouble>,
    last_good: Option<GoodBackup>,
    last_attempt: Option<PastBackup>,
    /// Downtimes in milliseconds and sizes in bytes of the last runs, oldest first.
    downtimes_ms: Vec<u64>,
    archive_bytes: Vec<u64>,
    drilled: Option<LastDrill>,
    warnings: Vec<String>,
    /// Whether earlier runs are known, so that no backup means that there was none.
    #[serde(skip)]
    is_past_known: bool,
}

/// A container that does not work.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerTrouble {
    container: String,
    problem: String,
    /// What its health check said last.
    health: Option<String>,
    /// The last lines of its log.
    log: Vec<String>,
}

/// Shows all stacks, or the last runs of one.
pub fn status(global: &Global, stack: Option<&str>) -> Result<ExitStatus> {
    let plan = load(global)?;
    if let Some(stack) = stack {
        let history = History::read(&plan.state_dir)?;
        return runs_of(global, &plan, &history, stack);
    }
    let view = StatusView::of(&plan);
    match global.json {
        true => print_json(&view)?,
        false => print_folded(&view.text())?,
    }
    Ok(view.exit_status())
}

/// What was read of the state directory. What cannot be read is missing, because that a
/// stack is down must be seen in any case.
struct Past {
    history: History,
    is_history_known: bool,
    last: Option<RunOutcome>,
    drills: BTreeMap<String, LastDrill>,
    journal: Vec<FoundEntry>,
    handovers: HandoverState,
    updates: Vec<FoundGuard>,
    errors: Vec<String>,
}

impl Past {
    fn read(state_dir: &Path) -> Past {
        let mut errors = Vec::new();
        let history = noted(History::read(state_dir), &mut errors);
        let last = noted(last_run::read(state_dir), &mut errors);
        let drills = noted(drill_results::last_drills(state_dir), &mut errors);
        let journal = noted(Journal::of(state_dir).found(), &mut errors);
        let handovers = noted(HandoverState::read(state_dir), &mut errors);
        let updates = noted(guard::found(state_dir), &mut errors);
        Past {
            is_history_known: history.is_some(),
            history: history.unwrap_or_default(),
            last: last.flatten(),
            drills: drills.unwrap_or_default(),
            journal: journal.unwrap_or_default(),
            handovers: handovers.unwrap_or_default(),
            updates: updates.unwrap_or_default(),
            errors,
        }
    }

    /// Whether an update of the stack is not confirmed.
    fn is_half_updated(&self, stack: &str) -> bool {
        let mut updates = self.updates.iter();
        updates.any(|found| found.stack == stack && found.is_pending())
    }

    fn outcome(&self, stack: &str) -> Option<&StackOutcome> {
        self.last.as_ref()?.stack(stack)
    }

    /// Returns the project that a stack was when it was last looked at.
    fn project(&self, stack: &str) -> Option<&str> {
        self.last.as_ref()?.project(stack)
    }
}

/// Returns what was read, or nothing, with the error noted.
fn noted<T>(read: Result<T>, errors: &mut Vec<String>) -> Option<T> {
    read.map_err(|error| errors.push(format!("{error:#}"))).ok()
}

impl StatusView {
    fn of(plan: &Plan) -> StatusView {
        let mut past = Past::read(&plan.state_dir);
        let asked = all_engines::containers(&plan.stacks).into_iter();
        let asked: Vec<(Engine, Vec<Container>)> = asked
            .map(|(engine, containers)| {
                let containers = containers.unwrap_or_else(|error| {
                    let errors = &mut past.errors;
                    errors.push(format!("cannot ask the Engine: {error:#}"));
                    Vec::new()
                });
                (engine, containers)
            })
            .collect();
        let of_units = plan.stacks.iter().filter(|stack| stack.is_of_units());
        let units: BTreeMap<&str, Vec<UnitState>> = of_units
            .filter_map(|stack| {
                let units = noted(systemd::states(&stack.units), &mut past.errors)?;
                Some((&*stack.name, units))
            })
            .collect();
        let is_busy = Lock::is_held_by_journal_writer(&plan.state_dir);
        let now = OffsetTime::now();
        let stacks: Vec<StackView> = plan
            .stacks
            .iter()
            .map(|stack| {
                let is_its = |(engine, _): &&(Engine, _)| stack.compose.engine.is_same(engine);
                let containers = asked
                    .iter()
                    .find(is_its)
                    .map(|(_, containers)| &**containers);
                let containers = containers.unwrap_or_default();
                let units = units.get(&*stack.name).map_or(&[][..], Vec::as_slice);
                StackView::of(stack, &past, containers, units, is_busy, &now)
            })
            .collect();
        let known = plan.stacks.iter();
        let known: Vec<_> = known
            .map(|stack| (stack, past.project(&stack.name)))
            .collect();
        let unconfigured = unconfigured::find(&known, &plan.ignore_projects, &asked);
        let mut advice = super::left_down::left_down(plan);
        let with_plans = stacks.iter().zip(&plan.stacks);
        advice.extend(with_plans.filter_map(|(stack, plan)| stack.advice(plan)));
        let warnings = stacks.iter().flat_map(|stack| {
            let warnings = stack.warnings.iter();
            warnings.map(|warning| format!("{}: {}", stack.stack, one_line(warning)))
        });
        advice.extend(warnings);
        let handovers = HandoverView::all(plan, &past.handovers);
        advice.extend(handovers.iter().filter_map(HandoverView::advice));
        let unknown = unconfigured.iter();
        advice.extend(unknown.map(|found| format!("{}: {}", found.project, found.warning())));
        StatusView {
            stacks,
            unconfigured,
            handovers,
            last_run: past.last.map(|last| LastRunView {
                exit_status: last.exit_status() as u8,
                started: last.started,
                finished: last.finished,
            }),
            next_run: next_run(),
            errors: past.errors,
            advice,
            fail_on_warning: plan.fail_on_warning,
        }
    }

    fn exit_status(&self) -> ExitStatus {
        let stacks = self.stacks.iter().map(StackView::exit_status);
        let has_warnings = !self.unconfigured.is_empty()
            || self.stacks.iter().any(|stack| !stack.warnings.is_empty());
        let is_handed_over = self.handovers.iter().all(|view| view.advice().is_none());
        let is_good = self.errors.is_empty() && is_handed_over;
        let rest = match is_good && !(self.fail_on_warning && has_warnings) {
            true => ExitStatus::Ok,
            false => ExitStatus::Incomplete,
        };
        stacks.fold(rest, ExitStatus::max)
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
            text.push_str(&format!("next run  {}\n", next.strftime("%F %H:%M")));
        }
        text.extend(self.handovers.iter().map(|view| view.text(&now)));
        for note in self.errors.iter().chain(&self.advice) {
            text.push_str(&format!("\n{note}\n"));
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
    fn of(
        stack: &StackPlan,
        past: &Past,
        containers: &[Container],
        units: &[UnitState],
        is_busy: bool,
        now: &OffsetTime,
    ) -> StackView {
        let name = &stack.name;
        let entry = past.journal.iter().find(|found| found.stack == *name);
        // Several projects may be meant; then which one is not known.
        let project = find_project(&stack.compose, past.project(name), containers);
        let project = project.ok().flatten();
        let is_own = |c: &&Container| !c.one_off && Some(&c.project) == project.as_ref();
        let own: Vec<&Container> = containers.iter().filter(is_own).collect();
        let outcome = past.outcome(name);
        let state = match entry {
            _ if past.is_half_updated(name) => match is_busy {
                true => StackState::Busy,
                false => StackState::HalfUpdated,
            },
            None if stack.is_of_units() => StackState::of_units(units),
            None => StackState::of(&own),
            // The run that is under way has given it up.
            Some(_) if outcome.is_some_and(|s| s.status == StackStatus::Down) => StackState::Down,
            Some(_) if is_busy => StackState::Busy,
            Some(found) if found.is_down() => StackState::Down,
            Some(_) => StackState::UndoPending,
        };
        let attempts = past.history.of_stack(name).into_iter();
        let attempts: Vec<&PastBackup> = attempts.map(|(_, past)| past).collect();
        let recent = &attempts[attempts.len().saturating_sub(TREND_LENGTH)..];
        let last_good = past.history.last_good.get(name);
        let newest = last_good.map(|good| &good.time);
        let mut warnings = match past.is_history_known {
            true => alarms::warnings(stack, newest, &past.history.good_sizes(name), now),
            false => Vec::new(),
        };
        if attempts.is_empty() {
            // The advice says that it was never backed up.
            warnings.clear();
        }
        StackView {
            stack: name.clone(),
            state,
            troubles: troubles(state, &own, entry, &stack.compose.engine),
            last_good: last_good.cloned(),
            last_attempt: attempts.last().map(|past| (*past).clone()),
            downtimes_ms: recent.iter().filter_map(|past| past.downtime_ms).collect(),
            archive_bytes: recent
                .iter()
                .filter_map(|past| past.archive_bytes)
                .collect(),
            drilled: past.drills.get(name).cloned(),
            warnings,
            is_past_known: past.is_history_known,
        }
    }

    fn exit_status(&self) -> ExitStatus {
        match (self.state, &self.last_attempt) {
            (StackState::Down | StackState::UndoPending | StackState::HalfUpdated, _) => {
                ExitStatus::StackDown
            }
            (StackState::Unhealthy | StackState::Restarting, _) => ExitStatus::Incomplete,
            (StackState::Unknown, _) | (_, None) => ExitStatus::Incomplete,
            (_, Some(past)) => past_status(past),
        }
    }

    fn row(&self, now: &OffsetTime) -> [String; 7] {
        let none = || "-".to_owned();
        let good = self.last_good.as_ref();
        let drilled = match &self.drilled {
            Some(drill) if drill.skipped.is_some() => "skipped".to_owned(),
            Some(drill) if drill.problems.is_empty() => age(now, &drill.time),
            Some(_) => "FAILED".to_owned(),
            None => none(),
        };
        let never = if self.is_past_known { "NEVER" } else { "?" };
        [
            self.stack.clone(),
            self.state.name().to_owned(),
            good.map_or_else(|| never.to_owned(), |good| age(now, &good.time)),
            good.map_or_else(none, |good| human_bytes(good.archive_bytes)),
            self.downtimes_ms
                .last()
                .map_or_else(none, |ms| human_duration(*ms)),
            drilled,
            trend(&self.archive_bytes),
        ]
    }

    /// What to do about the stack, if there is something to do.
    fn advice(&self, plan: &StackPlan) -> Option<String> {
        let stack = &self.stack;
        let advice = match (self.state, &self.last_attempt) {
            // There is nothing to do yet.
            (StackState::Busy, _) => return None,
            // The journal's line says how to start it.
            (StackState::Down, _) => match self.troubles.as_slice() {
                [] => return None,
                _ => format!("{stack} does not run since it was stopped for a backup"),
            },
            (StackState::UndoPending | StackState::HalfUpdated, _) => return None,
            (StackState::Unhealthy | StackState::Restarting, _) if plan.is_of_units() => {
                let (state, units) = (self.state.name(), plan.units.join(" "));
                format!("{stack} is {state}\n  see why: `systemctl status {units}`")
            }
            (StackState::Unhealthy | StackState::Restarting, _) => {
                format!(
                    "{stack} is {} (in {})",
                    self.state.name(),
                    plan.dir().display()
                )
            }
            (_, Some(past)) if past.status == StackStatus::NotRun => format!(
                "the last run ended before it backed up {stack}\n  \
                 try again: `docker-stack-backup run {stack}`"
            ),
            (_, Some(past)) if past.status != StackStatus::Ok => format!(
                "the last backup of {stack} failed: {}\n  try again: `docker-stack-backup run {stack}`",
                one_line(past.failure.as_deref().unwrap_or("see the report"))
            ),
            (_, None) if self.is_past_known => {
                format!("{stack} was never backed up: `docker-stack-backup run {stack}`")
            }
            _ => return None,
        };
        let troubles = self.troubles.iter().map(ContainerTrouble::text);
        Some(advice + &troubles.collect::<String>())
    }
}

/// Returns the containers that are the reason for a bad state of their stack.
fn troubles(
    state: StackState,
    own: &[&Container],
    entry: Option<&FoundEntry>,
    engine: &Engine,
) -> Vec<ContainerTrouble> {
    let entry = entry.and_then(|found| found.entry.as_ref().ok());
    let ran = |c: &Container| {
        entry.is_some_and(|entry| entry.containers.iter().any(|was| was.id == c.id))
    };
    let is_bad = |c: &&&Container| match state {
        StackState::Unhealthy => c.health == Some(Health::Unhealthy),
        StackState::Restarting => c.status == Status::Restarting,
        StackState::Down => c.status == Status::Restarting || c.status == Status::Stopped && ran(c),
        _ => false,
    };
    let bad = own.iter().filter(is_bad).take(TROUBLES_SHOWN);
    bad.map(|container| ContainerTrouble::of(container, engine))
        .collect()
}

impl ContainerTrouble {
    fn of(container: &Container, engine: &Engine) -> ContainerTrouble {
        let exit_code = container.exit_code;
        ContainerTrouble {
            container: container.name.clone(),
            problem: match container.status {
                Status::Restarting => {
                    format!("keeps ending, the last time with status {exit_code}")
                }
                Status::Stopped => format!("does not run, and ended with status {exit_code}"),
                Status::Running | Status::Paused => "is unhealthy".to_owned(),
            },
            health: container.last_probe.clone(),
            log: engine.last_log_lines(&container.id, LOG_LINES_SHOWN),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("\n  {} {}", self.container, self.problem);
        let health = self
            .health
            .iter()
            .map(|line| format!("\n    health check: {line}"));
        let log = self.log.iter().map(|line| format!("\n    log: {line}"));
        text.extend(health.chain(log));
        text + &format!("\n    see more: `docker logs --tail 50 {}`", self.container)
    }
}

/// Returns when systemd starts the next run, if its timer is there.
fn next_run() -> Option<OffsetTime> {
    let args = [
        "show",
        TIMER,
        "--property=NextElapseUSecRealtime",
        "--value",
        "--timestamp=unix",
    ];
    let output = Program::new("systemctl", args)
        .limit(SYSTEMCTL_LIMIT)
        .output()
        .ok()?;
    let next = String::from_utf8_lossy(&output.stdout);
    let seconds = next.trim().strip_prefix('@')?.parse().ok()?;
    let is_good = output.exit == Exit::Success;
    let instant = Timestamp::from_second(seconds).ok().filter(|_| is_good)?;
    Some(OffsetTime::local(instant))
}

/// Shows what the last runs did to a stack.
fn runs_of(global: &Global, plan: &Plan, history: &History, stack: &str) -> Result<ExitStatus> {
    let past = history.of_stack(stack);
    if past.is_empty() && plan.stack(stack).is_none() {
        bail!(plan.unknown_stack(stack));
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
        #[derive(Serialize)]
        struct Views<'a> {
            stack: &'a str,
            runs: Vec<View<'a>>,
        }
        let runs = views.collect();
        print_json(&Views { stack, runs })?;
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
