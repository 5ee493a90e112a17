//! Hands finished archives over to repositories of Borg and restic elsewhere.
//!
//! Nothing is down meanwhile, and an archive is only read. What fails waits for the next
//! time, and keeps nothing else from being handed over.

mod borg;
mod program;
mod queue;
mod repository;
mod restic;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::config::OffsiteRepository;
use crate::config::plan::Plan;
use crate::outcome::{HandoverOutcome, HandoverStep, HandoverStepKind};
use crate::store::prune::Pruning;
use crate::store::{Store, StoredArchive};
use crate::sys::signals::Signals;
use crate::sys::time::OffsetTime;
use queue::HandedStack;
use repository::Repository;

pub use queue::{HandedArchive, HandoverState, RepositoryState};

/// How long the answer of a repository is waited for that is only looked at.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
const DAY_SECS: i64 = 24 * 3600;
/// A check that is due in less than half a day is made now: runs do not begin at the same
/// second every night.
const CHECK_SLACK_SECS: i64 = DAY_SECS / 2;

/// Hands over what the repositories of the plan lack of its stacks, prunes them, and checks
/// those that are due. If no stack is left out of the plan, stacks that are not configured
/// any more have their turn, too. Everything is tried; failures are in the outcomes. The lock
/// must be held.
pub fn hand_over(plan: &Plan, store: &Store, signals: &Signals) -> Vec<HandoverOutcome> {
    let mut state = HandoverState::read(&plan.state_dir).unwrap_or_else(|error| {
        // Then the newest archives are handed over once more.
        tracing::warn!("{error:#}; the file is replaced");
        HandoverState::default()
    });
    let mut stored = BTreeMap::new();
    let mut outcomes: Vec<HandoverOutcome> = plan
        .handover
        .iter()
        .map(|config| {
            let known = state.of_mut(config.name(), &config.repository);
            queue_stacks(plan, store, config, known, &mut stored)
        })
        .collect();
    for (config, outcome) in plan.handover.iter().zip(&mut outcomes) {
        if signals.received().is_none() {
            let handover = Handover {
                plan,
                store,
                config,
                state: &mut state,
                outcome: &mut *outcome,
                signals,
            };
            handover.perform(&stored);
        }
        let known = state.of_mut(config.name(), &config.repository);
        outcome.waiting_count = known.waiting_count();
    }
    for line in outcomes.iter().flat_map(HandoverOutcome::failures) {
        tracing::error!("{line}");
    }
    outcomes
}

/// Looks at each repository, and changes nothing. Returns what was found, by its name.
pub fn probe(plan: &Plan, signals: &Signals) -> Vec<(String, Result<String>)> {
    let probed = plan.handover.iter().map(|config| {
        let repository = Repository::new(config, &plan.state_dir, PROBE_LIMIT, signals);
        let result = repository.and_then(|repository| repository.probe());
        let found = result.map(|()| format!("{} can open it", config.kind.program()));
        (config.name().to_owned(), found)
    });
    probed.collect()
}

/// Queues the archives of the plan's stacks that a repository lacks. `stored` remembers the
/// archives in the store, by stack.
fn queue_stacks(
    plan: &Plan,
    store: &Store,
    config: &OffsiteRepository,
    known: &mut RepositoryState,
    stored: &mut BTreeMap<String, Vec<StoredArchive>>,
) -> HandoverOutcome {
    let mut outcome = HandoverOutcome::new(config.name());
    let mut stacks: BTreeSet<String> = plan.stacks.iter().map(|s| s.name.clone()).collect();
    if plan.is_whole() {
        stacks.extend(known.stacks.keys().cloned());
    }
    let now = OffsetTime::now();
    for stack in stacks {
        let archives = match stored.get(&stack) {
            Some(archives) => archives,
            None => match store.list(&stack) {
                Ok(archives) => stored.entry(stack.clone()).or_insert(archives),
                Err(error) => {
                    let error = Some(format!("{error:#}"));
                    outcome.steps.push(HandoverStep {
                        kind: HandoverStepKind::Archive,
                        stack: Some(stack),
                        archive: None,
                        duration_ms: 0,
                        error,
                    });
                    continue;
                }
            },
        };
        let queued = known.stacks.entry(stack).or_default();
        for warning in queued.queue(archives, &now) {
            tracing::warn!(repository = outcome.repository, "{warning}");
            outcome.warnings.push(warning);
        }
    }
    known
        .stacks
        .retain(|_, stack| *stack != HandedStack::default());
    outcome
}

/// One repository's turn.
struct Handover<'a> {
    plan: &'a Plan,
    store: &'a Store,
    config: &'a OffsiteRepository,
    state: &'a mut HandoverState,
    outcome: &'a mut HandoverOutcome,
    signals: &'a Signals,
}

impl Handover<'_> {
    fn perform(mut self, stored: &BTreeMap<String, Vec<StoredArchive>>) {
        let work = self.work(stored);
        let is_check_due = self.is_check_due();
        if !self.save() || work.is_empty() && !is_check_due {
            return;
        }
        let limit = Duration::from_secs(self.config.time_limit.into());
        let (config, signals) = (self.config, self.signals);
        let begun = Repository::new(config, &self.plan.state_dir, limit, signals);
        let begun = begun.and_then(|repository| repository.unlock().map(|()| repository));
        let repository = match begun {
            Ok(repository) => repository,
            Err(error) => {
                let error = format!("{error:#}");
                for archive in work {
                    let stack = archive.name.stack.clone();
                    let queued = self.known().stacks.entry(stack).or_default();
                    queued.fail(archive, &error);
                }
                self.save();
                self.outcome.error = Some(error);
                return;
            }
        };
        let handed = self.store_all(&repository, work);
        self.prune(&repository, &handed);
        if is_check_due && self.may_go_on(&repository) {
            let is_good = self.step(HandoverStepKind::Check, None, None, || repository.check());
            if is_good {
                self.known().checked = Some(OffsetTime::now());
            }
        }
        if repository.is_late() {
            let limit_secs = self.config.time_limit;
            let warning = format!(
                "its time limit of {limit_secs} s has passed (`timeLimit`); what is left is done \
                 the next time"
            );
            tracing::warn!(repository = self.outcome.repository, "{warning}");
            self.outcome.warnings.push(warning);
        }
        self.save();
    }

    /// Returns the archives that wait: first the newest one of each stack, then those before
    /// it, since the newest counts most if time runs out.
    fn work<'s>(
        &mut self,
        stored: &'s BTreeMap<String, Vec<StoredArchive>>,
    ) -> Vec<&'s StoredArchive> {
        let known = self.known();
        let mut work = Vec::new();
        for (stack, archives) in stored {
            let Some(queued) = known.stacks.get(stack) else {
                continue;
            };
            let waiting: BTreeSet<&str> = queued.waiting.iter().map(|w| &*w.archive).collect();
            let waits = |archive: &&StoredArchive| waiting.contains(&*archive.name.to_string());
            work.extend(archives.iter().filter(waits).rev().enumerate());
        }
        work.sort_by_key(|(rank, archive)| (*rank, Reverse(&archive.time)));
        work.into_iter().map(|(_, archive)| archive).collect()
    }

    /// Stores the archives, and returns the stacks of those that are stored.
    fn store_all(
        &mut self,
        repository: &Repository<'_>,
        work: Vec<&StoredArchive>,
    ) -> BTreeSet<String> {
        let mut handed = BTreeSet::new();
        for archive in work {
            if !self.may_go_on(repository) {
                break;
            }
            if self.store_one(repository, archive) {
                handed.insert(archive.name.stack.clone());
                continue;
            }
            if !self.may_go_on(repository) {
                break;
            }
            // One archive that fails keeps no other from being tried, unless the repository
            // itself is the reason.
            if let Err(error) = repository.probe() {
                self.outcome.error = Some(format!("the rest was not tried: {error:#}"));
                break;
            }
        }
        handed
    }

    fn store_one(&mut self, repository: &Repository<'_>, archive: &StoredArchive) -> bool {
        let stack = archive.name.stack.clone();
        let configured = self
            .plan
            .stack(&stack)
            .and_then(|plan| plan.chunker.clone());
        let queued = self.known().stacks.entry(stack.clone()).or_default();
        let chunker = repository.chunker(archive, configured.or_else(|| queued.chunker.clone()));
        let is_retry = queued.begin(archive) > 0;
        queued.chunker.clone_from(&chunker);
        if !self.save() {
            return false;
        }
        let name = archive.name.to_string();
        tracing::info!(
            repository = self.config.name(),
            archive = name,
            "off-site: storing"
        );
        let is_stored = self.step(HandoverStepKind::Archive, Some(&stack), Some(&name), || {
            repository.store(archive, chunker.as_deref(), is_retry)
        });
        let error = self
            .outcome
            .steps
            .last()
            .and_then(|step| step.error.clone());
        let queued = self.known().stacks.entry(stack).or_default();
        match error {
            None => queued.succeed(archive),
            Some(error) => queued.fail(archive, &error),
        }
        self.save();
        is_stored
    }

    /// Prunes the stacks of which something was handed over just now.
    fn prune(&mut self, repository: &Repository<'_>, stacks: &BTreeSet<String>) {
        let Some(policy) = self.config.retention.clone() else {
            return;
        };
        let now = OffsetTime::now();
        for stack in stacks {
            if !self.may_go_on(repository) {
                return;
            }
            // As in the store, age removes archives only while time passes evenly.
            let jump = Pruning::of(self.store, &policy, stack, &now).map(|pruning| pruning.jump);
            self.step(HandoverStepKind::Prune, Some(stack), None, || match jump? {
                Some(jump) => Err(anyhow::anyhow!(jump.message(stack))),
                None => repository.prune(stack, &policy),
            });
        }
        if !stacks.is_empty() && self.may_go_on(repository) {
            self.step(HandoverStepKind::Compact, None, None, || {
                repository.compact()
            });
        }
    }

    /// Does one thing, and adds what came of it to the outcome. Returns whether it succeeded.
    fn step(
        &mut self,
        kind: HandoverStepKind,
        stack: Option<&str>,
        archive: Option<&str>,
        act: impl FnOnce() -> Result<()>,
    ) -> bool {
        let began = Instant::now();
        let error = act().err().map(|error| format!("{error:#}"));
        let step = HandoverStep {
            kind,
            stack: stack.map(str::to_owned),
            archive: archive.map(str::to_owned),
            duration_ms: began.elapsed().as_millis() as u64,
            error,
        };
        let is_good = step.error.is_none();
        if is_good {
            let what = step.label();
            tracing::info!(repository = self.config.name(), what, "off-site: done");
        }
        self.outcome.steps.push(step);
        is_good
    }

    fn may_go_on(&self, repository: &Repository<'_>) -> bool {
        self.signals.received().is_none() && !repository.is_late()
    }

    fn is_check_due(&mut self) -> bool {
        let Some(days) = self.config.check_days else {
            return false;
        };
        let due_secs = i64::from(days) * DAY_SECS - CHECK_SLACK_SECS;
        let known = self.known();
        // Nothing was ever handed over to it.
        if known.stacks.is_empty() {
            return false;
        }
        let checked = known.checked.as_ref();
        checked.is_none_or(|checked| {
            let elapsed_secs = OffsetTime::now().duration_since(checked).as_secs();
            elapsed_secs >= due_secs || elapsed_secs < 0
        })
    }

    fn known(&mut self) -> &mut RepositoryState {
        self.state
            .of_mut(self.config.name(), &self.config.repository)
    }

    /// Saves the state. Returns whether that succeeded.
    fn save(&mut self) -> bool {
        match self.state.write(&self.plan.state_dir) {
            Ok(()) => true,
            Err(error) => {
                self.outcome.error = Some(format!("{error:#}"));
                false
            }
        }
    }
}
