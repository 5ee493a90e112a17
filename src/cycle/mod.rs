//! One stack's backup: plan, measure, stop, quiet, archive, start, finish.

mod archiving;
pub mod precopy;
mod proof;
mod record;

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::ZonedDateTime;

use self::archiving::{Method, SPARE_BYTES, Written};
use self::record::{Record, warn};
use crate::archive::Manifest;
use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::Container;
use crate::outcome::{Phase, StackOutcome, StackStatus};
use crate::scan::Source;
use crate::stack::driver;
use crate::stack::journal::{self, Journal, JournalEntry, StopProgress};
use crate::stack::quiet::{self, WriterFilter};
use crate::stack::survey::Survey;
use crate::store::Store;
use crate::sys::priority;
use crate::sys::progress;
use crate::sys::signals::Signals;

/// What fails after its start was confirmed has mostly failed by then.
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(1500);

/// What the cycles of all stacks share.
pub struct Context<'a> {
    pub store: &'a Store,
    pub journal: &'a Journal,
    pub signals: &'a Signals,
    pub host: &'a str,
}

/// Takes one stack through its backup. Whatever happens between stop and
/// start, the start is attempted.
pub fn back_up(context: &Context<'_>, stack: &StackPlan) -> StackOutcome {
    let mut record = Record::new(stack);
    if let Some(mut cycle) = Cycle::plan(&mut record, context, stack)
        && let Some(inventory) = record.phase(Phase::Measure, |_| cycle.measure())
        && let Some(method) = cycle.pre_copy(&mut record, inventory)
        && let Some(()) = record.phase(Phase::Plan, |outcome| cycle.plan_again(outcome))
    {
        let written = cycle.capture_while_down(&mut record, method);
        cycle.finish_and_close_journal(&mut record, written);
    }
    record.outcome
}

fn note(outcome: &mut StackOutcome, survey: &Survey) {
    outcome.project = Some(survey.project.clone());
    outcome.services = survey.services();
    outcome.coverage = survey.coverage.clone();
    for warning in &survey.warnings {
        warn(outcome, warning.clone());
    }
}

/// What the configuration could not show: the store lies in what is to be
/// archived, by way of a symlink or of a volume.
fn refuse_own_store(store: &Store, survey: &Survey) -> Result<()> {
    let path = store.path();
    let real = fs::canonicalize(path).with_context(|| format!("find {}", path.display()))?;
    let holds_store = |tree: &Path| fs::canonicalize(tree).is_ok_and(|t| real.starts_with(t));
    match survey.trees.iter().find(|tree| holds_store(&tree.path)) {
        Some(tree) => bail!(
            "it would archive its own archives, because `backupDir` {} lies in {}",
            path.display(),
            tree.path.display()
        ),
        None => Ok(()),
    }
}

/// A stack about to be archived.
struct Cycle<'a> {
    context: &'a Context<'a>,
    stack: &'a StackPlan,
    survey: Survey,
    sources: Vec<Source>,
    /// Room for the manifest: the same in a draft and in the archive.
    manifest_bytes: OnceLock<u64>,
}

impl<'a> Cycle<'a> {
    fn plan(
        record: &mut Record,
        context: &'a Context<'a>,
        stack: &'a StackPlan,
    ) -> Option<Cycle<'a>> {
        record.phase(Phase::Plan, |outcome| {
            context.signals.check()?;
            let survey = Survey::of(stack)?;
            note(outcome, &survey);
            refuse_own_store(context.store, &survey)?;
            // Held from now on: a volume that its driver unmounts with the
            // last container stays readable through these handles.
            let sources = survey.open_sources()?;
            Ok(Cycle {
                context,
                stack,
                survey,
                sources,
                manifest_bytes: OnceLock::new(),
            })
        })
    }
}

impl Cycle<'_> {
    /// Right before the stop, since the copy may have taken hours: what was
    /// stopped meanwhile must not be started, and what was started meanwhile
    /// must be.
    fn plan_again(&mut self, outcome: &mut StackOutcome) -> Result<()> {
        self.context.signals.check()?;
        let survey = Survey::of(self.stack)?;
        if survey.project != self.survey.project || survey.trees != self.survey.trees {
            bail!("what there is to archive changed meanwhile; nothing was stopped");
        }
        // A file that was saved by rename is read while down, as any new one.
        self.refuse_replaced(Source::is_directory)
            .context("nothing was stopped")?;
        self.sources = survey.open_sources()?;
        note(outcome, &survey);
        self.survey = survey;
        self.check_manifest_fits()?;
        self.refuse_writers()
    }

    /// The trees are read through handles, wherever these lead by now.
    fn refuse_replaced(&self, counts: impl Fn(&Source) -> bool) -> Result<()> {
        let counted = self.sources.iter().filter(|source| counts(source));
        for source in counted {
            if !source.is(&Source::open(&*source.prefix, &source.path)?) {
                bail!("{} was replaced meanwhile", source.path.display());
            }
        }
        Ok(())
    }

    /// Stop, capture, start. What ran before is started whatever the capture
    /// comes to.
    fn capture_while_down(&self, record: &mut Record, mut method: Method) -> Option<Written> {
        if self.survey.running.is_empty() {
            tracing::info!("nothing runs, archiving as it is");
            let manifest = self.capture(record, &mut method)?;
            return Some(Written { method, manifest });
        }
        let mut entry = self.journal_entry();
        record.phase(Phase::Stop, |_| {
            self.context.signals.check()?;
            self.context.journal.write(&entry)
        })?;
        let _urgent = priority::raise();
        let began = Instant::now();
        progress::set_down_since(Some(began));
        let stopped = record.phase(Phase::Stop, |_| {
            tracing::info!(services = entry.services().join(" "), "stopping");
            let stopped = self.stop();
            if stopped.as_ref().err().is_none_or(driver::was_refused) {
                // So nothing is stopped that was not.
                entry.step = StopProgress::Stopped;
            }
            stopped?;
            self.context.journal.write(&entry)
        });
        let manifest = stopped.and_then(|()| self.capture(record, &mut method));
        // Removing what is of no use may take seconds, and comes after the
        // start; but on a full disk that might fail.
        if manifest.is_none() && self.lacks_room() {
            method = Method::Offline(None, None);
        }
        let started = record.phase(Phase::Start, |outcome| {
            tracing::info!(services = entry.services().join(" "), "starting");
            for warning in driver::start(&entry, self.context.signals)? {
                warn(outcome, warning);
            }
            Ok(())
        });
        let downtime = began.elapsed();
        record.outcome.downtime_ms = Some(downtime.as_millis() as u64);
        match started {
            Some(()) => {
                progress::set_down_since(None);
                tracing::info!(downtime_ms = downtime.as_millis() as u64, "up again");
            }
            None => record.outcome.status = StackStatus::Down,
        }
        manifest.map(|manifest| Written { method, manifest })
    }

    fn lacks_room(&self) -> bool {
        let available = self.context.store.available_bytes();
        available.is_ok_and(|bytes| bytes < SPARE_BYTES)
    }

    /// The journal is closed meanwhile: what goes down while the archive is
    /// finished, which may take an hour, is taken down on purpose.
    fn finish_and_close_journal(&self, record: &mut Record, written: Option<Written>) {
        let is_up =
            record.outcome.downtime_ms.is_some() && record.outcome.status != StackStatus::Down;
        let span = tracing::Span::current();
        thread::scope(|scope| {
            let close = || {
                let _entered = span.enter();
                thread::sleep(SECOND_LOOK_AFTER);
                self.close_journal()
            };
            let closing = is_up.then(|| scope.spawn(close));
            if let Some(written) = written {
                record.phase(Phase::Finish, |outcome| self.finish(outcome, written));
            }
            let Some(closing) = closing else { return };
            record.phase(Phase::Start, |outcome| {
                let looked = closing.join().unwrap_or_else(|panic| resume_unwind(panic));
                looked.inspect_err(|_| outcome.status = StackStatus::Down)?
            });
        });
    }

    /// Forgets what was stopped, once it is seen to be up still: a container
    /// may fail shortly after its start was confirmed. The inner error is of
    /// the forgetting.
    fn close_journal(&self) -> Result<Result<()>> {
        let limit = self.stack.start_timeout;
        driver::confirm(&self.survey, limit, self.context.signals)?;
        Ok(self.context.journal.remove(&self.stack.name))
    }

    fn journal_entry(&self) -> JournalEntry {
        JournalEntry {
            format_version: journal::FORMAT_VERSION,
            stack: self.stack.name.clone(),
            project: self.survey.project.clone(),
            compose: self.survey.compose.clone(),
            stop_method: self.survey.stop_method,
            stop_timeout_secs: self.stack.stop_timeout.map(|timeout| timeout.as_secs()),
            start_timeout_secs: self.stack.start_timeout.as_secs(),
            since: ZonedDateTime::now(),
            step: StopProgress::Stopping,
            containers: self.survey.running.clone(),
        }
    }

    fn stop(&self) -> Result<()> {
        driver::stop(&self.survey, self.stack.stop_timeout, self.context.signals)
    }

    /// The archive will be crash-consistent, no more.
    fn is_paused(&self) -> bool {
        self.survey.stop_method == StopMethod::Pause && !self.survey.running.is_empty()
    }

    fn capture(&self, record: &mut Record, method: &mut Method) -> Option<Manifest> {
        let (inventory, before) =
            record.phase(Phase::Quiet, |outcome| self.prove_quiet(outcome))?;
        let manifest = record.phase(Phase::Archive, |outcome| {
            self.write(outcome, &inventory, method)
        })?;
        // A daemon that restarts brings back what it was told to keep up, and
        // what ran may have ended again.
        record.phase(Phase::Quiet, |outcome| {
            let now = self.patient_containers()?;
            let filter = WriterFilter::StartedSince(&before);
            let writers = quiet::container_writers(&now, &self.paths(), filter);
            self.judge(outcome, &writers.busy)
        })?;
        Some(manifest)
    }

    /// An Engine that is being restarted is waited for, as the start has to in
    /// any case: the archive may be good.
    fn patient_containers(&self) -> Result<Vec<Container>> {
        driver::containers(self.stack.start_timeout, self.context.signals)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.survey
            .trees
            .iter()
            .map(|tree| tree.path.clone())
            .collect()
    }
}
