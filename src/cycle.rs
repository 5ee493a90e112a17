//! One stack's backup: plan, measure, stop, quiet, archive, start, finish.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::ZonedDateTime;

use crate::archive::{
    self, ImageOf, Layout, Manifest, ManifestSlot, Reading, Sums, Update, WriteSummary,
};
use crate::capture::{self, Exclude, Inventory, SETTLED_AFTER, Source};
use crate::config::{Capture, OnBusy, StopMethod, Verify};
use crate::docker::{self, Container, Status};
use crate::journal::{self, Entry, Journal, Step};
use crate::lifecycle::{self, Before, WasRunning};
use crate::outcome::{
    ArchiveOutcome, CaptureOutcome, Failure, Phase, PhaseTime, StackOutcome, StackStatus,
};
use crate::plan::StackPlan;
use crate::precopy::{Drafted, PASS_FROM_BYTES, Precopy};
use crate::priority;
use crate::progress;
use crate::quiet::{self, Who, Writers};
use crate::report::human_bytes;
use crate::signals::Signals;
use crate::store::{ArchiveName, Beside, Partial, Store};
use crate::survey::Survey;
use crate::verify;

/// Room beyond the archive's own length that must be free: what may be added
/// to a stack between measuring and stopping it, and the file system's own.
const SPARE_BYTES: u64 = 16 << 20;
/// Below both of these, reading everything takes no longer than a scan and a
/// sync more.
const LITTLE_BYTES: u64 = 16 << 20;
const LITTLE_MEMBERS: u64 = 1000;
/// Of the manifest, for what is known only when the archive is written.
const MANIFEST_SLACK_BYTES: usize = 8 << 10;
/// Between two looks while the Engine does not answer.
const ENGINE_LOOK: Duration = Duration::from_secs(1);
/// Exit status of a container that got SIGKILL.
const KILLED: i64 = 128 + 9;

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
    if let Some(cycle) = record.plan(context, stack)
        && let Some(inventory) = record.phase(Phase::Measure, |_| cycle.measure())
        && let Some(method) = cycle.pre_copy(&mut record, inventory)
    {
        let written = cycle.capture_while_down(&mut record, method);
        if let Some(written) = written {
            record.phase(Phase::Finish, |outcome| cycle.finish(outcome, written));
        }
        if record.outcome.downtime_ms.is_some() && record.outcome.status != StackStatus::Down {
            record.phase(Phase::Start, |outcome| cycle.close_journal(outcome));
        }
    }
    record.outcome
}

/// Collects the outcome, phase by phase.
struct Record {
    outcome: StackOutcome,
}

impl Record {
    fn new(stack: &StackPlan) -> Record {
        Record {
            outcome: StackOutcome {
                status: StackStatus::Ok,
                ..StackOutcome::not_run(&stack.name)
            },
        }
    }

    /// Runs one phase, notes how long it took and why it failed.
    fn phase<T>(
        &mut self,
        phase: Phase,
        act: impl FnOnce(&mut StackOutcome) -> Result<T>,
    ) -> Option<T> {
        let span = tracing::info_span!("phase", ?phase);
        let _entered = span.enter();
        progress::phase(phase);
        let began = Instant::now();
        let result = panic::catch_unwind(AssertUnwindSafe(|| act(&mut self.outcome)))
            .unwrap_or_else(|_| {
                Err(anyhow!(
                    "the program panicked (see its stderr): this is a bug"
                ))
            });
        let duration_ms = began.elapsed().as_millis() as u64;
        match self
            .outcome
            .phases
            .iter_mut()
            .find(|time| time.phase == phase)
        {
            Some(time) => time.duration_ms += duration_ms,
            None => self.outcome.phases.push(PhaseTime { phase, duration_ms }),
        }
        let fail = |error| fail(&mut self.outcome, phase, format!("{error:#}"));
        result.map_err(fail).ok()
    }

    fn plan<'a>(&mut self, context: &'a Context<'a>, stack: &'a StackPlan) -> Option<Cycle<'a>> {
        self.phase(Phase::Plan, |outcome| {
            context.signals.check()?;
            let survey = Survey::of(stack)?;
            outcome.project = Some(survey.project.clone());
            outcome.services = survey.services();
            outcome.coverage = survey.coverage.clone();
            for warning in &survey.warnings {
                warn(outcome, warning.clone());
            }
            refuse_own_store(context.store, &survey)?;
            // Held from now on: a volume that its driver unmounts with the
            // last container stays readable through these handles.
            let sources = survey.open_sources()?;
            Ok(Cycle {
                context,
                stack,
                survey,
                sources,
                manifest_bytes: OnceCell::new(),
            })
        })
    }
}

fn fail(outcome: &mut StackOutcome, phase: Phase, message: String) {
    tracing::error!(?phase, "{message}");
    outcome.failures.push(Failure { phase, message });
    if outcome.status == StackStatus::Ok {
        outcome.status = StackStatus::Failed;
    }
}

/// Once, however often it is found.
fn warn(outcome: &mut StackOutcome, warning: String) {
    if outcome.warnings.contains(&warning) {
        return;
    }
    tracing::warn!("{warning}");
    outcome.warnings.push(warning);
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
    manifest_bytes: OnceCell<u64>,
}

/// How the data is read.
enum Method {
    Precopy(Box<Drafted>),
    /// Why not otherwise, unless it was asked for.
    Offline(Option<String>),
}

/// An archive that has all but its manifest and its name.
struct Written {
    data: WrittenData,
    manifest: Manifest,
}

enum WrittenData {
    Whole(Partial, Layout),
    /// Still to be put together.
    Parts(Box<Drafted>, Box<Update>),
}

impl Cycle<'_> {
    /// Nothing is stopped for an archive that cannot be made.
    fn measure(&self) -> Result<Inventory> {
        self.context.signals.check()?;
        self.context.store.check_stack_dir(&self.stack.name)?;
        let inventory = self.scan()?;
        let manifest = self.manifest(&inventory)?;
        let layout = self.layout(&inventory, &manifest)?;
        let needed = layout.archive_bytes() + SPARE_BYTES;
        let available = self.context.store.available_bytes()?;
        if needed > available {
            bail!(
                "not enough room in {}: the archive needs {} ({needed} bytes), {} ({available} \
                 bytes) are free; nothing was stopped",
                self.context.store.path().display(),
                human_bytes(needed),
                human_bytes(available)
            );
        }
        let own: Vec<&str> = self
            .survey
            .running
            .iter()
            .map(|was| was.id.as_str())
            .collect();
        let writers =
            quiet::container_writers(&docker::containers()?, &self.paths(), Who::RunsBut(&own));
        if self.stack.on_busy == OnBusy::Fail && !writers.busy.is_empty() {
            bail!("{}; nothing was stopped", busy(&writers.busy));
        }
        tracing::info!(
            content = human_bytes(inventory.content_bytes()),
            members = inventory.member_count(),
            available = human_bytes(available),
            "measured"
        );
        Ok(inventory)
    }

    /// Copies what can be copied while the stack is up. `None` if that failed;
    /// nothing was stopped then.
    fn pre_copy(&self, record: &mut Record, inventory: Inventory) -> Option<Method> {
        if self.stack.capture == Capture::Offline || self.survey.running.is_empty() {
            return Some(Method::Offline(None));
        }
        if inventory.content_bytes() < LITTLE_BYTES && inventory.member_count() < LITTLE_MEMBERS {
            let reason = "so little data is read as fast while down".to_owned();
            return Some(Method::Offline(Some(reason)));
        }
        record.phase(Phase::Precopy, |outcome| {
            self.context.signals.check()?;
            let now = ZonedDateTime::now().datetime();
            let partial = self.context.store.create_partial(&self.stack.name, now)?;
            if let Err(error) = partial.scratch() {
                return Ok(self.offline(outcome, format!("{error:#}")));
            }
            tracing::info!("copying while the stack is up");
            let manifest = self.manifest(&inventory)?;
            let drafted = self.precopy(&manifest, |precopy| precopy.draft(inventory, partial))?;
            let Some(drafted) = drafted else {
                let reason = "no file system of this stack tells of every change";
                return Ok(self.offline(outcome, reason.to_owned()));
            };
            if drafted.untrusted_bytes > 0 {
                let bytes = human_bytes(drafted.untrusted_bytes);
                warn(outcome, format!("{bytes} are on a file system that does not tell of every change: read while down"));
            }
            Ok(Method::Precopy(Box::new(drafted)))
        })
    }

    fn offline(&self, outcome: &mut StackOutcome, reason: String) -> Method {
        let warning = format!(
            "all data is read while the stack is down: {reason}; set `capture` to `offline` if that is meant to be"
        );
        warn(outcome, warning);
        Method::Offline(Some(reason))
    }

    fn precopy<T>(
        &self,
        manifest: &Manifest,
        act: impl FnOnce(&Precopy<'_>) -> Result<T>,
    ) -> Result<T> {
        act(&Precopy {
            sources: &self.sources,
            scan: &|| self.scan(),
            layout: &|inventory| self.layout(inventory, manifest),
            share: self.share(),
            cancel: self.context.signals.flag(),
            pass_from_bytes: PASS_FROM_BYTES,
            settled_after: SETTLED_AFTER,
            available_bytes: &|| self.context.store.available_bytes(),
        })
    }

    fn share(&self) -> Option<&Exclude> {
        self.stack.share.then_some(&self.stack.unshared)
    }

    /// Stop, capture, start. What ran before is started whatever the capture
    /// comes to.
    fn capture_while_down(&self, record: &mut Record, method: Method) -> Option<Written> {
        if self.survey.running.is_empty() {
            tracing::info!("nothing runs, archiving as it is");
            return self.capture(record, method);
        }
        let mut entry = self.journal_entry();
        record.phase(Phase::Stop, |_| {
            self.context.signals.check()?;
            self.context.journal.write(&entry)
        })?;
        let _urgent = priority::urgent();
        let began = Instant::now();
        progress::down(Some(began));
        let stopped = record.phase(Phase::Stop, |_| {
            tracing::info!(services = entry.services().join(" "), "stopping");
            self.stop(&entry)?;
            entry.step = Step::Stopped;
            self.context.journal.write(&entry)
        });
        let written = stopped.and_then(|()| self.capture(record, method));
        let started = record.phase(Phase::Start, |outcome| {
            tracing::info!(services = entry.services().join(" "), "starting");
            for warning in lifecycle::start(&entry, self.context.signals)? {
                warn(outcome, warning);
            }
            Ok(())
        });
        let downtime = began.elapsed();
        record.outcome.downtime_ms = Some(downtime.as_millis() as u64);
        match started {
            Some(()) => {
                progress::down(None);
                tracing::info!(downtime_ms = downtime.as_millis() as u64, "up again");
            }
            None => record.outcome.status = StackStatus::Down,
        }
        written
    }

    /// Forgets what was stopped, once it is seen to be up still: a container
    /// may fail shortly after its start was confirmed.
    fn close_journal(&self, outcome: &mut StackOutcome) -> Result<()> {
        let mut containers = self
            .patient_containers()
            .inspect_err(|_| outcome.status = StackStatus::Down)?;
        // Other projects have services of the same names.
        containers.retain(|container| container.project == self.survey.project);
        let has_failed = |was: &&WasRunning| {
            let now = was.find(&containers);
            now.is_none_or(|now| match now.status {
                _ if was.before == Before::Restarting => false,
                Status::Stopped => now.exit_code != 0,
                Status::Restarting => true,
                Status::Running | Status::Paused => false,
            })
        };
        let failed = self.survey.running.iter().filter(has_failed);
        let failed: Vec<&str> = failed.map(|was| was.name.as_str()).collect();
        if !failed.is_empty() {
            outcome.status = StackStatus::Down;
            bail!("{} started, but ended soon after", failed.join(", "));
        }
        self.context.journal.remove(&self.stack.name)
    }

    fn journal_entry(&self) -> Entry {
        Entry {
            format_version: journal::FORMAT_VERSION,
            stack: self.stack.name.clone(),
            project: self.survey.project.clone(),
            compose: self.survey.compose.clone(),
            stop_method: self.survey.stop_method,
            stop_timeout_secs: self.stack.stop_timeout.map(|timeout| timeout.as_secs()),
            start_timeout_secs: self.stack.start_timeout.as_secs(),
            since: ZonedDateTime::now(),
            step: Step::Stopping,
            containers: self.survey.running.clone(),
        }
    }

    fn stop(&self, entry: &Entry) -> Result<()> {
        let grace = self.stack.stop_timeout;
        match entry.stop_method {
            StopMethod::Stop => lifecycle::stop(&self.survey.running, grace, self.context.signals),
            StopMethod::Pause => lifecycle::pause(&self.survey.running),
            StopMethod::Down => {
                // Chains are stopped one after the other: their grace adds up.
                let longest = self
                    .survey
                    .containers
                    .iter()
                    .map(|c| grace.unwrap_or(c.stop_timeout));
                self.survey.compose.down(grace, longest.sum())
            }
        }
    }

    /// The archive will be crash-consistent, no more.
    fn is_paused(&self) -> bool {
        self.survey.stop_method == StopMethod::Pause && !self.survey.running.is_empty()
    }

    fn capture(&self, record: &mut Record, method: Method) -> Option<Written> {
        let (inventory, before) =
            record.phase(Phase::Quiet, |outcome| self.prove_quiet(outcome))?;
        let written = record.phase(Phase::Archive, |outcome| {
            self.write(outcome, &inventory, method)
        })?;
        // A daemon that restarts brings back what it was told to keep up, and
        // what ran may have ended again.
        record.phase(Phase::Quiet, |outcome| {
            let now = self.patient_containers()?;
            let who = Who::RanSince(&before);
            let writers = quiet::container_writers(&now, &self.paths(), who);
            self.judge(outcome, &writers.busy)
        })?;
        Some(written)
    }

    /// An Engine that is being restarted is waited for, as the start has to in
    /// any case: the archive may be good.
    fn patient_containers(&self) -> Result<Vec<Container>> {
        let began = Instant::now();
        loop {
            match docker::containers() {
                Err(error)
                    if docker::is_unreachable(&error)
                        && began.elapsed() < self.stack.start_timeout
                        && self.context.signals.received().is_none() =>
                {
                    tracing::warn!(error = format!("{error:#}"), "the Docker Engine is away");
                    thread::sleep(ENGINE_LOOK);
                }
                containers => return containers,
            }
        }
    }

    /// Also returns the containers as they were at that moment.
    fn prove_quiet(&self, outcome: &mut StackOutcome) -> Result<(Inventory, Vec<Container>)> {
        self.context.signals.check()?;
        let containers = docker::containers()?;
        self.check_stopped(outcome, &containers)?;
        // With the stack down, no container is exempt.
        let who = Who::RunsBut(&[]);
        let Writers { mut busy, possible } =
            quiet::container_writers(&containers, &self.paths(), who);
        for found in possible {
            tracing::debug!(found, "could write");
        }
        let inventory = self.scan()?;
        let frozen = containers.iter().filter(|c| c.status == Status::Paused);
        let frozen: Vec<&str> = frozen.map(|c| c.id.as_str()).collect();
        busy.extend(quiet::process_writers(&inventory, &frozen)?);
        self.judge(outcome, &busy)?;
        Ok((inventory, containers))
    }

    fn check_stopped(&self, outcome: &mut StackOutcome, containers: &[Container]) -> Result<()> {
        for was in &self.survey.running {
            let Some(now) = containers.iter().find(|c| c.id == was.id) else {
                continue;
            };
            let is_frozen = now.status == Status::Paused && self.is_paused();
            if is_frozen {
                continue;
            }
            if now.status != Status::Stopped {
                bail!(
                    "{} still runs after its stop; does something restart it?",
                    was.name
                );
            }
            if now.exit_code == KILLED && !now.oom_killed {
                let grace = self.stack.stop_timeout.unwrap_or(now.stop_timeout);
                let grace = grace.as_secs();
                warn(
                    outcome,
                    format!(
                        "{} did not end within {grace} s of its stop signal and was killed: its data \
                     may need a recovery; give it more time (stopTimeout, stop_grace_period)",
                        was.name
                    ),
                );
            }
        }
        Ok(())
    }

    fn judge(&self, outcome: &mut StackOutcome, found: &[String]) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        if self.stack.on_busy == OnBusy::Fail {
            bail!(busy(found));
        }
        warn(outcome, busy(found));
        Ok(())
    }

    fn write(
        &self,
        outcome: &mut StackOutcome,
        inventory: &Inventory,
        method: Method,
    ) -> Result<Written> {
        self.context.signals.check()?;
        let mut manifest = self.manifest(inventory)?;
        let reason = match method {
            Method::Precopy(mut drafted) => {
                let update = |precopy: &Precopy<'_>| precopy.update(&mut drafted, inventory);
                if let Some(update) = self.precopy(&manifest, update)? {
                    let drafted_summary = &drafted.summary;
                    let summary = update.summary.clone();
                    outcome.capture = Some(CaptureOutcome {
                        method: Capture::Precopy,
                        reason: None,
                        down_bytes: update.fresh_bytes(),
                        pass_count: drafted.pass_count,
                        shared_bytes: drafted_summary.shared_bytes + summary.shared_bytes,
                        refused_count: drafted_summary.refused_count + summary.refused_count,
                    });
                    self.judge_changed(outcome, &mut manifest, summary);
                    let data = WrittenData::Parts(drafted, Box::new(update));
                    return Ok(Written { data, manifest });
                }
                // Removed with its draft, which makes the room.
                drop(drafted);
                let reason = "no room for what changed beside the draft".to_owned();
                self.offline(outcome, reason.clone());
                Some(reason)
            }
            Method::Offline(reason) => reason,
        };
        let layout = self.layout(inventory, &manifest)?;
        let now = ZonedDateTime::now().datetime();
        let partial = self.context.store.create_partial(&self.stack.name, now)?;
        tracing::info!(archive = human_bytes(layout.archive_bytes()), "archiving");
        progress::archive(layout.archive_bytes(), inventory.member_count());
        let reading = Reading {
            sources: &self.sources,
            cancel: self.context.signals.flag(),
            is_live: false,
            share: self.share(),
        };
        let summary = archive::write_members(&layout, inventory, reading, partial.file())
            .with_context(|| format!("write archive {}", partial.path().display()))?;
        outcome.capture = Some(CaptureOutcome {
            method: Capture::Offline,
            reason,
            down_bytes: layout.archive_bytes(),
            pass_count: 0,
            shared_bytes: summary.shared_bytes,
            refused_count: summary.refused_count,
        });
        manifest.capture = Capture::Offline;
        self.judge_changed(outcome, &mut manifest, summary);
        let data = WrittenData::Whole(partial, layout);
        Ok(Written { data, manifest })
    }

    /// Says which files changed although nothing should have written to them.
    fn judge_changed(
        &self,
        outcome: &mut StackOutcome,
        manifest: &mut Manifest,
        summary: WriteSummary,
    ) {
        if summary.changed_count > 0 {
            let message = format!(
                "{} files changed while they were archived, their members are padded or cut: {}",
                summary.changed_count,
                summary.changed.join(", ")
            );
            match self.stack.on_busy {
                OnBusy::Warn => warn(outcome, message),
                // The archive is kept: most of it is good. But it is not called
                // so, and no older one is pruned for it.
                OnBusy::Fail => fail(outcome, Phase::Archive, message),
            }
        }
        manifest.changed_count = summary.changed_count;
        manifest.changed = summary.changed;
    }

    /// The stack is up again: what is left does not add to its downtime.
    fn finish(&self, outcome: &mut StackOutcome, written: Written) -> Result<()> {
        let Written { data, mut manifest } = written;
        let (partial, layout) = match data {
            WrittenData::Whole(partial, layout) => (partial, layout),
            WrittenData::Parts(drafted, update) => {
                self.precopy(&manifest, |precopy| precopy.finish(*drafted, *update))?
            }
        };
        manifest.archive_bytes = layout.archive_bytes();
        manifest.downtime_ms = outcome.downtime_ms;
        let context = || format!("write archive {}", partial.path().display());
        write_manifest(&layout, partial.file(), &mut manifest).with_context(context)?;
        let cancel = self.context.signals.flag();
        let sums = verify::written(self.stack.verify, partial.file(), cancel)
            .with_context(|| format!("verify {}", partial.path().display()))?;
        let path = partial.finish()?;
        if self.stack.verify == Verify::Full && sums.is_none() {
            let warning = format!(
                "interrupted before all of the archive was read back, so no sums lie beside it: \
                 check it with `docker-stack-backup verify {}`",
                self.stack.name
            );
            warn(outcome, warning);
        }
        if let Err(error) = self.write_sums(&path, sums) {
            // The archive is good without them.
            warn(outcome, format!("{error:#}"));
        }
        outcome.archive = Some(ArchiveOutcome {
            path: path.clone(),
            archive_bytes: layout.archive_bytes(),
            content_bytes: manifest.content_bytes,
            member_count: manifest.member_count,
            socket_count: manifest.socket_count,
            excluded_count: manifest.excluded_count,
            changed_count: manifest.changed_count,
            crash_consistent: self.is_paused(),
        });
        tracing::info!(path = %path.display(), size = human_bytes(layout.archive_bytes()), "archived");
        Ok(())
    }

    fn write_sums(&self, path: &Path, sums: Option<Sums>) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        match (sums, ArchiveName::parse(&self.stack.name, name)) {
            (Some(sums), Some(name)) => {
                let text = sums.to_text();
                self.context
                    .store
                    .write_beside(&name, Beside::Sums, text.as_bytes())
            }
            _ => Ok(()),
        }
    }

    fn scan(&self) -> Result<Inventory> {
        let cancel = self.context.signals.flag();
        capture::scan(
            &self.sources,
            &self.stack.exclude,
            self.stack.exclude_caches,
            cancel,
        )
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.survey
            .trees
            .iter()
            .map(|tree| tree.path.clone())
            .collect()
    }

    fn layout(&self, inventory: &Inventory, manifest: &Manifest) -> Result<Layout> {
        let reserve = serde_json::to_vec_pretty(manifest)?.len() + MANIFEST_SLACK_BYTES;
        let reserved_bytes = *self.manifest_bytes.get_or_init(|| reserve as u64);
        let slot = ManifestSlot {
            name: format!("{}.manifest.json", self.stack.name),
            reserved_bytes,
            mtime_s: manifest.captured.timestamp().as_second(),
        };
        Ok(Layout::new(inventory, &slot))
    }

    /// With what is known before the archive is written.
    fn manifest(&self, inventory: &Inventory) -> Result<Manifest> {
        let survey = &self.survey;
        let image = |container: &Container| ImageOf {
            service: container.service.clone(),
            reference: container.image_reference.clone(),
            id: container.image_id.clone(),
            digests: survey
                .images
                .iter()
                .find(|image| image.id == container.image_id)
                .map(|image| image.repo_digests.clone())
                .unwrap_or_default(),
        };
        let mut images: Vec<ImageOf> = survey.containers.iter().map(image).collect();
        images.sort();
        images.dedup();
        let trees = survey.trees.iter();
        let trees: BTreeMap<String, String> = trees
            .map(|tree| (tree.prefix.clone(), tree.path.display().to_string()))
            .collect();
        Ok(Manifest {
            format_version: archive::FORMAT_VERSION,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            stack: self.stack.name.clone(),
            project: survey.project.clone(),
            host: self.context.host.to_owned(),
            trees,
            capture: self.stack.capture,
            stop_method: survey.stop_method,
            captured: ZonedDateTime::now(),
            downtime_ms: None,
            running: survey.services(),
            images,
            volumes: survey.volumes.clone(),
            coverage: survey.coverage.clone(),
            archive_bytes: 0,
            content_bytes: inventory.content_bytes(),
            member_count: inventory.member_count(),
            socket_count: inventory.socket_count(),
            excluded_count: inventory.excluded_count(),
            changed_count: 0,
            changed: Vec::new(),
            compose: survey
                .config
                .as_ref()
                .map(|config| config.json.clone())
                .unwrap_or_default(),
        })
    }
}

fn busy(found: &[String]) -> String {
    format!("the data is in use ({}); see onBusy", found.join("; "))
}

fn write_manifest(layout: &Layout, file: &File, manifest: &mut Manifest) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(manifest)?;
    if json.len() as u64 > layout.manifest_bytes_max() {
        // Very long names: their number stays.
        manifest.changed.clear();
        json = serde_json::to_vec_pretty(manifest)?;
    }
    archive::write_manifest(layout, file, &json)
}
