//! The side of the run: it watches a worker, and starts a stack that the worker cannot
//! start any more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::process::{Heard, Worker};
use super::task::Task;
use super::{Message, Order};
use crate::config::plan::{Plan, StackPlan};
use crate::config::{DEFAULT_STALL_LIMIT, Hook, HookPlace};
use crate::cycle::Unobserved;
use crate::engine;
use crate::outcome::{Phase, RunOutcome, StackOutcome, StackStatus};
use crate::stack::driver;
use crate::stack::hooks;
use crate::stack::journal::{Journal, JournalEntry, StopProgress};
use crate::sys::logging::Log;
use crate::sys::priority;
use crate::sys::progress;
use crate::sys::signals::Signals;

const LISTEN_INTERVAL: Duration = Duration::from_millis(50);
/// How long the store may leave a request unanswered before anything is stopped.
const STORE_LIMIT: Duration = Duration::from_secs(120);
/// After a signal, a worker begins to start the stack within this time, or it hangs.
const SIGNAL_LIMIT_DOWN: Duration = Duration::from_secs(3);
/// After a signal, with the stack up: finishing an archive may take a while.
const SIGNAL_LIMIT_UP: Duration = Duration::from_secs(60);

/// How a run has its work done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// By workers.
    Workers,
    /// In this process, which nothing watches. For debuggers and tracers.
    Nothing,
}

/// Has the work of a run done, and watches it.
pub struct Watch<'a> {
    pub plan: &'a Plan,
    pub signals: &'a Signals,
    pub log: &'a Log,
    pub watching: Watching,
}

/// What is known of a worker's stack.
#[derive(Default)]
struct Known {
    phase: Option<Phase>,
    outcome: Option<StackOutcome>,
    /// What to start, as long as it is not known to be up.
    entry: Option<JournalEntry>,
    down_since: Option<Instant>,
    downtime: Option<Duration>,
}

/// A worker was given up, or has died.
struct GivenUp {
    reason: String,
    known: Known,
}

/// What came of a task, or that its worker was given up.
type Watched<T> = Result<Result<T>, Box<GivenUp>>;

/// How long a worker may take.
struct Limits {
    down: Duration,
    capture: Option<Duration>,
    stall: Duration,
}

impl Limits {
    fn of_stack(stack: &StackPlan) -> Limits {
        Limits {
            down: stack.down_limit,
            capture: stack.capture_limit,
            stall: stack.stall_limit,
        }
    }

    /// Nothing is down meanwhile.
    fn of_store(stall: Duration) -> Limits {
        Limits {
            down: stall,
            capture: None,
            stall,
        }
    }
}

impl Watch<'_> {
    /// Creates the store, or checks that it is the one of before unless `adopts` says that
    /// it was moved or replaced, and removes what killed runs left in it.
    ///
    /// # Errors
    /// When there is no store, or it does not answer.
    pub fn open_store(&self, adopts: bool, outcome: &mut RunOutcome) -> Result<()> {
        let task = |outcome| Task::OpenStore { outcome, adopts };
        *outcome = self.store_task(task, outcome, STORE_LIMIT)?;
        Ok(())
    }

    /// Removes what killed runs left in the store, if there is one, and adds how full it
    /// is.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn clean_store(&self, outcome: &mut RunOutcome) -> Result<()> {
        *outcome = self.store_task(Task::CleanStore, outcome, STORE_LIMIT)?;
        Ok(())
    }

    /// Hands archives over to the repositories. Each has its own limit, up to which the
    /// programs that work on it count as progress.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn hand_over(&self, outcome: &mut RunOutcome) -> Result<()> {
        *outcome = self.store_task(Task::HandOver, outcome, DEFAULT_STALL_LIMIT)?;
        Ok(())
    }

    /// Prunes the store, and looks for damage.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn tidy_store(&self, outcome: &mut RunOutcome) -> Result<()> {
        *outcome = self.store_task(Task::TidyStore, outcome, DEFAULT_STALL_LIMIT)?;
        Ok(())
    }

    fn store_task(
        &self,
        task: impl Fn(Box<RunOutcome>) -> Task,
        outcome: &RunOutcome,
        stall: Duration,
    ) -> Result<RunOutcome> {
        let limits = Limits::of_store(stall);
        match self.perform(task(Box::new(outcome.clone())), &limits) {
            Ok(done) => done,
            Err(given_up) => bail!(
                "cannot use the store {}: {}",
                self.plan.backup_dir.display(),
                given_up.reason
            ),
        }
    }

    /// Takes the stack with this position in the plan through its backup.
    pub fn back_up(&self, stack: usize, host: &str) -> StackOutcome {
        let plan = &self.plan.stacks[stack];
        let task = Task::BackUp {
            stack,
            host: host.to_owned(),
        };
        let outcome = match self.perform(task, &Limits::of_stack(plan)) {
            Ok(Ok(outcome)) => outcome,
            Err(given_up) => self.bring_up(plan, *given_up),
            Ok(Err(error)) => failed(
                StackOutcome::not_run(&plan.name),
                Phase::Plan,
                format!("{error:#}"),
            ),
        };
        let is_last = |hook: &Hook| hook.when == HookPlace::Finally;
        match plan.hooks.iter().any(is_last) {
            true => self.run_finally(stack, outcome),
            false => outcome,
        }
    }

    /// Runs the hooks of a stack that follow whatever happened. They may hang like
    /// everything else, so a worker runs them.
    fn run_finally(&self, stack: usize, outcome: StackOutcome) -> StackOutcome {
        let task = Task::Finally {
            stack,
            outcome: Box::new(outcome.clone()),
        };
        let done = self.perform(task, &Limits::of_stack(&self.plan.stacks[stack]));
        let error = match done {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(error)) => format!("{error:#}"),
            Err(given_up) => given_up.reason,
        };
        failed(outcome, Phase::Hooks, error)
    }

    fn perform<T: DeserializeOwned>(&self, task: Task, limits: &Limits) -> Watched<T> {
        if self.watching == Watching::Nothing {
            return Ok(self.perform_here(task));
        }
        let order = Order {
            watch_pid: std::process::id(),
            compose_plugin: engine::compose_plugin().map(str::to_owned),
            plan: self.plan.clone(),
            task,
        };
        match Worker::start(&order) {
            Ok(worker) => self.watch(worker, limits),
            Err(error) => {
                tracing::warn!(
                    "{error:#}; the backup goes on in this process, and nothing watches it"
                );
                Ok(self.perform_here(order.task))
            }
        }
    }

    fn perform_here<T: DeserializeOwned>(&self, task: Task) -> Result<T> {
        let done = task.perform(self.plan, self.signals, &Unobserved)?;
        understood(done)
    }

    /// Listens to a worker until it is done, or gives it up.
    fn watch<T: DeserializeOwned>(&self, mut worker: Worker, limits: &Limits) -> Watched<T> {
        let mut known = Known::default();
        let mut signal_count = 0;
        let mut signalled = None;
        let mut moved = Instant::now();
        loop {
            for number in self.signals.numbers_from(signal_count) {
                worker.signal(number);
                signal_count += 1;
                signalled.get_or_insert_with(Instant::now);
            }
            match worker.hear(LISTEN_INTERVAL) {
                Heard::Message(Message::Done(done)) => {
                    worker.end();
                    return Ok(done.map_err(|error| anyhow!(error)).and_then(understood));
                }
                Heard::Message(Message::Log(line)) => self.log.repeat(&line),
                Heard::Message(message) => {
                    moved = Instant::now();
                    known.learn(message);
                }
                Heard::Nothing => {
                    let Some(reason) = known.reason_to_give_up(limits, moved, signalled) else {
                        continue;
                    };
                    let reason = match worker.waits_for() {
                        Some(path) => {
                            format!("{reason}; it waits for {path}, which does not answer")
                        }
                        None => reason,
                    };
                    worker.kill();
                    return Err(Box::new(GivenUp { reason, known }));
                }
                Heard::End => {
                    let how = worker.end();
                    let how = how.unwrap_or_else(|| "without an exit status".to_owned());
                    let reason = format!("the process that made the backup has ended ({how})");
                    return Err(Box::new(GivenUp { reason, known }));
                }
            }
        }
    }

    /// Starts what a worker has left down.
    fn bring_up(&self, plan: &StackPlan, given_up: GivenUp) -> StackOutcome {
        let GivenUp { reason, mut known } = given_up;
        let began = known.outcome.take();
        let began = StackOutcome {
            // Whether it is down is seen now.
            status: StackStatus::Failed,
            ..began.unwrap_or_else(|| StackOutcome::not_run(&plan.name))
        };
        let mut outcome = failed(began, known.phase.unwrap_or(Phase::Plan), reason);
        let Some(entry) = &mut known.entry else {
            return outcome;
        };
        let was_down = entry.is_down();
        if was_down {
            let _urgent = priority::raise();
            progress::begin_phase(Phase::Start.name());
            match start_again(entry, self.signals) {
                Ok(warnings) => outcome.warnings.extend(warnings),
                Err(error) => {
                    outcome = failed(outcome, Phase::Start, format!("{error:#}"));
                    outcome.status = StackStatus::Down;
                }
            }
        }
        self.undo_and_close(entry, &mut outcome);
        if !was_down {
            return outcome;
        }
        let downtime = known
            .downtime
            .or(known.down_since.map(|since| since.elapsed()));
        outcome.downtime_ms = downtime.map(|downtime| downtime.as_millis() as u64);
        if outcome.status != StackStatus::Down {
            progress::set_down(false);
            tracing::info!(
                stack = plan.name,
                downtime_ms = outcome.downtime_ms,
                "up again"
            );
        }
        outcome
    }

    /// Takes back the effect of hooks. The journal's entry goes last.
    fn undo_and_close(&self, entry: &mut JournalEntry, outcome: &mut StackOutcome) {
        let journal = Journal::of(&self.plan.state_dir);
        let tell = &mut |undone| outcome.add_undone(undone);
        let done = hooks::undo_all(entry, &journal, tell);
        outcome.not_undone = entry.pending_undos();
        if let Err(error) = done.and_then(|()| journal.settle(entry)) {
            add_failure(outcome, Phase::Start, format!("{error:#}"));
        }
    }
}

/// Starts a stack by what is in memory.
fn start_again(entry: &mut JournalEntry, signals: &Signals) -> Result<Vec<String>> {
    tracing::warn!(stack = entry.stack, "left down, starting it");
    let started = driver::start(entry, signals)?;
    let warnings = driver::confirm(entry, &started, signals)?;
    entry.step = StopProgress::Up;
    Ok(warnings)
}

fn understood<T: DeserializeOwned>(done: Value) -> Result<T> {
    serde_json::from_value(done).context("cannot understand what was done")
}

fn failed(mut outcome: StackOutcome, phase: Phase, message: String) -> StackOutcome {
    if outcome.status == StackStatus::NotRun {
        outcome.status = StackStatus::Failed;
    }
    add_failure(&mut outcome, phase, message);
    outcome
}

fn add_failure(outcome: &mut StackOutcome, phase: Phase, message: String) {
    tracing::error!(stack = outcome.stack, "{}: {message}", phase.name());
    outcome.add_failure(phase, message);
}

impl Known {
    fn learn(&mut self, message: Message) {
        match message {
            Message::Phase(phase, outcome) => {
                self.phase = Some(phase);
                self.outcome = Some(*outcome);
            }
            Message::Journalled(entry) => self.entry = Some(*entry),
            Message::JournalClosed => self.entry = None,
            Message::Progress(event) => {
                if let progress::Event::Down(is_down) = event {
                    match is_down {
                        true => self.down_since = Some(Instant::now()),
                        false => {
                            self.downtime = self.down_since.take().map(|since| since.elapsed())
                        }
                    }
                }
                progress::tell(event);
            }
            Message::Log(_) | Message::Done(_) => {}
        }
    }

    fn reason_to_give_up(
        &self,
        limits: &Limits,
        moved: Instant,
        signalled: Option<Instant>,
    ) -> Option<String> {
        // These wait for the Engine, and have limits of their own.
        if matches!(self.phase, Some(Phase::Stop | Phase::Start)) {
            return None;
        }
        let phase = self.phase.map_or("begin", Phase::name);
        let (limit, signal_limit) = match self.down_since {
            Some(_) => (limits.down, SIGNAL_LIMIT_DOWN),
            None => (limits.stall, SIGNAL_LIMIT_UP),
        };
        let capture = limits.capture.zip(self.down_since);
        if let Some((limit, _)) = capture.filter(|(limit, since)| since.elapsed() > *limit) {
            let seconds = limit.as_secs();
            return Some(format!(
                "the copy was given up: the stack was down for {seconds} s (`captureLimit`)"
            ));
        }
        if moved.elapsed() > limit {
            let seconds = limit.as_secs();
            return Some(format!(
                "given up: nothing moved for {seconds} s in the phase {phase}"
            ));
        }
        let ignored = signalled.map(|since| since.max(moved).elapsed());
        if ignored.is_some_and(|ignored| ignored > signal_limit) {
            return Some(format!(
                "interrupted while nothing moved in the phase {phase}"
            ));
        }
        None
    }
}
