//! Executes the plan of a restore, and undoes it if a step fails.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::guessed;
use super::plan::{RestorePlan, find_targets};
use super::start::{ServicesToStart, start, start_units};
use super::undo::{Cleaned, clean_leftovers, finish, undo};
use crate::engine::{Network, Volume};
use crate::restore::extract::{Destination, ExtractOptions, ExtractSummary, extract};
use crate::restore::facts::ArchiveFacts;
use crate::restore::host::{self, HostVolumes};
use crate::restore::journal::{self as restore_journal, RestoreEntry, RestoreStep};
use crate::stack::driver::{self, Started, UnitsAtRest};
use crate::stack::journal::{self, Journal};
use crate::stack::running::StateBefore;
use crate::sys::signals::Signals;

/// What a restore did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    pub stack: String,
    pub archive: String,
    /// Services that were started.
    pub services: Vec<String>,
    /// Time from the stop being issued until all containers ran again; `None` if
    /// nothing ran before, or nothing was started.
    pub downtime_ms: Option<u64>,
    /// Time from the stop being issued until those with a health check were also
    /// healthy.
    pub healthy_ms: Option<u64>,
    pub member_count: u64,
    pub file_bytes: u64,
    /// Paths of the old data, with `--keep-old`.
    #[serde(rename = "kept")]
    pub old_paths: Vec<PathBuf>,
    /// Messages on what could not be restored.
    #[serde(rename = "lacks")]
    pub unrestored: Vec<String>,
    pub warnings: Vec<String>,
}

/// Says about a failed restore that the stack, which ran before, is down.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StillDown(String);

impl RestorePlan<'_> {
    /// Restores the stack. The caller must hold the lock.
    ///
    /// # Errors
    /// When a step failed. Everything is as before then, unless the message says
    /// otherwise; the error contains [`StillDown`] if the stack could not be
    /// started again.
    pub fn run(self, signals: &Signals) -> Result<Restored> {
        let mut execution = Execution {
            journal: Journal::of(self.options.state_dir),
            plan: self,
            signals,
        };
        execution.check_no_leftovers()?;
        if !execution.plan.options.allow_damaged {
            execution.check_undamaged()?;
        }
        execution.write_entry()?;
        let done = match execution.attempt() {
            Ok(done) => done,
            Err(error) => return Err(execution.give_up(error)),
        };
        let Execution { plan, journal, .. } = execution;
        let mut warnings = plan.warnings;
        // The restore has succeeded, whatever happens from now on.
        let cleaned = finish(&plan.entry, &journal, plan.options.state_dir);
        let cleaned = cleaned.unwrap_or_else(|error| Cleaned {
            old_paths: Vec::new(),
            warning: Some(format!("{error:#}; run `docker-stack-backup recover`")),
        });
        warnings.extend(cleaned.warning);
        Ok(Restored {
            stack: plan.facts.stack().to_owned(),
            archive: plan.archive.name(),
            services: done.services,
            downtime_ms: done.downtime_ms,
            healthy_ms: done.healthy_ms,
            member_count: done.summary.member_count,
            file_bytes: done.summary.file_bytes,
            old_paths: cleaned.old_paths,
            unrestored: done.summary.unrestored,
            warnings,
        })
    }
}

struct Execution<'a, 's> {
    plan: RestorePlan<'a>,
    journal: Journal,
    signals: &'s Signals,
}

struct Done {
    summary: ExtractSummary,
    services: Vec<String>,
    downtime_ms: Option<u64>,
    healthy_ms: Option<u64>,
}

impl Execution<'_, '_> {
    fn check_no_leftovers(&self) -> Result<()> {
        let stack = self.plan.facts.stack();
        let state_dir = self.plan.options.state_dir;
        let leftovers = clean_leftovers(state_dir)?;
        if let Some((_, warning)) = leftovers.iter().find(|(found, _)| found == stack) {
            bail!("{warning}; remove it by hand first");
        }
        if self.journal.has(stack) || restore_journal::is_unfinished(state_dir, stack)? {
            bail!(
                "an interrupted run left {stack} stopped, or did not undo a hook: run \
                 `docker-stack-backup recover` first"
            );
        }
        Ok(())
    }

    /// Compares the archive with its sums file. Archives that were not verified
    /// have none, and neither has standard input.
    fn check_undamaged(&self) -> Result<()> {
        let damaged = self.plan.archive.find_damage(self.signals.flag())?;
        let Some(first) = damaged.first() else {
            return Ok(());
        };
        bail!(
            "{} is damaged, and nothing was done: {first}{} (`verify` lists all damage and marks the \
             archive, then --pass-over restores the newest good one; --allow-damaged restores this \
             one anyway)",
            self.plan.archive.name(),
            match damaged.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            }
        )
    }

    fn write_entry(&self) -> Result<()> {
        self.plan.entry.write(self.plan.options.state_dir)
    }

    fn attempt(&mut self) -> Result<Done> {
        self.create_externals()?;
        self.create_volumes()?;
        let (summary, down_since, at_rest) = self.unpack_and_stop()?;
        self.plan.check_unused(&[])?;
        self.signals.check()?;
        for target in &mut self.plan.entry.targets {
            target.record_old()?;
        }
        self.plan.entry.step = RestoreStep::Swapping;
        self.write_entry()?;
        self.plan.entry.exchange()?;
        // One that was started before the exchange would go on with the old data.
        at_rest.check_still()?;
        tracing::info!("exchanged");
        let (services, started) = match self.plan.options.starts {
            true => self.start()?,
            false => (Vec::new(), None),
        };
        let started = started.filter(|_| self.ran());
        let since_stop = |at: Instant| at.duration_since(down_since).as_millis() as u64;
        let committed = RestoreEntry {
            step: RestoreStep::Committed,
            ..self.plan.entry.clone()
        };
        committed.write(self.plan.options.state_dir)?;
        // Only now that this is on disk must nothing be undone any more.
        self.plan.entry = committed;
        Ok(Done {
            summary,
            services,
            downtime_ms: started.as_ref().map(|s| since_stop(s.running_at)),
            healthy_ms: started.as_ref().map(|s| since_stop(s.confirmed_at)),
        })
    }

    /// Stops the stack, and unpacks: before that, so that the stack is down for the exchange
    /// only; or after that, where its containers could change what is unpacked. Returns when
    /// the stop was issued.
    fn unpack_and_stop(&mut self) -> Result<(ExtractSummary, Instant, UnitsAtRest)> {
        if self.plan.unpacks_in_trees() {
            let down_since = Instant::now();
            let at_rest = self.stop()?;
            self.plan.check_unused(&[])?;
            self.signals.check()?;
            return Ok((self.unpack()?, down_since, at_rest));
        }
        let summary = self.unpack()?;
        if matches!(self.plan.facts, ArchiveFacts::Guessed(_))
            && self.plan.options.starts
            && self.plan.options.parts.is_whole()
        {
            guessed::check_images(&self.plan)?;
        }
        self.signals.check()?;
        let down_since = Instant::now();
        let at_rest = self.stop()?;
        Ok((summary, down_since, at_rest))
    }

    /// Creates the external networks and volumes that are missing, with the usual options.
    fn create_externals(&self) -> Result<()> {
        let engine = &self.plan.entry.compose.engine;
        for name in &self.plan.missing_externals.networks {
            engine.create_network(&Network::bridge(name))?;
        }
        for name in &self.plan.missing_externals.volumes {
            engine.create_volume(&Volume::usual(name))?;
        }
        Ok(())
    }

    /// Creates missing volumes. Their paths are known only afterwards: the
    /// manifest may have been written on another host.
    fn create_volumes(&mut self) -> Result<()> {
        let plan = &mut self.plan;
        if plan.missing_volumes.is_empty() {
            return Ok(());
        }
        for volume in &plan.missing_volumes {
            plan.entry.compose.engine.create_volume(volume)?;
        }
        let volumes = HostVolumes::find(&plan.entry.compose.engine, plan.facts)?;
        if let Some(missing) = volumes.missing.first() {
            bail!(
                "the Engine does not have volume {}, which was just created",
                missing.name
            );
        }
        let boundary = host::boundary(&plan.entry.compose.engine, &volumes.present)?;
        let dir = &plan.entry.compose.dir;
        plan.entry.targets = find_targets(
            plan.facts,
            dir,
            &volumes.present,
            &boundary,
            plan.options.parts,
        )?;
        for target in &plan.entry.targets {
            target.check()?;
        }
        self.write_entry()
    }

    fn unpack(&mut self) -> Result<ExtractSummary> {
        tracing::info!("unpacking beside the present data");
        let plan = &mut self.plan;
        let parts = plan.options.parts;
        let mut destinations = Vec::new();
        for target in &plan.entry.targets {
            target.create_parent()?;
            destinations.push(Destination {
                prefix: target.prefix.clone().into_bytes(),
                parent: target.open_parent()?.into(),
                name: target
                    .staging()
                    .file_name()
                    .unwrap_or_default()
                    .as_bytes()
                    .to_vec(),
            });
        }
        let options = ExtractOptions {
            is_wanted: &|path| parts.includes(path),
            allow_devices: plan.options.allow_devices,
            // The old data is removed, so the new data must not lack anything.
            tolerates_refusals: false,
            cancel: self.signals.flag(),
        };
        let mut reader = plan.archive.reader()?;
        let summary = extract(&mut reader, plan.archive.file(), &destinations, &options)
            .with_context(|| plan.archive.name())?;
        // Of several archives in a row, the first need not be the right one.
        let is_at_end = plan.archive.is_at_end(&mut reader, options.cancel)?;
        ensure!(
            is_at_end || plan.options.allow_damaged,
            "data follows the end of {}: give one archive alone (with `borg extract --stdout`, name \
             the path of one file)",
            plan.archive.name()
        );
        // What was cut off would be missing in the place of the old data.
        ensure!(
            !reader.lacks_end() || plan.options.allow_damaged,
            "{} has no end of its own, so it may have been cut: restore it with `--to` and look, or \
             give `--allow-damaged`",
            plan.archive.name()
        );
        for (target, destination) in plan.entry.targets.iter_mut().zip(&destinations) {
            target.record_inode()?;
            rustix::fs::syncfs(&destination.parent).context("cannot sync the unpacked data")?;
        }
        Ok(summary)
    }

    /// Whether something of the stack ran before the restore.
    fn ran(&self) -> bool {
        !self.plan.stopped_names().is_empty()
    }

    /// Stops what runs. Returns the units as they are then.
    fn stop(&self) -> Result<UnitsAtRest> {
        if !self.ran() {
            return Ok(UnitsAtRest::default());
        }
        let units = self.plan.units.as_ref();
        let running_units = units.map(|units| units.running.clone());
        let mut entry = self.plan.journal_entry(
            self.plan.running.clone(),
            running_units.unwrap_or_default(),
            journal::StopProgress::Stopping,
        );
        self.journal.begin(&entry, None)?;
        tracing::info!(services = entry.services().join(" "), "stopping");
        let unit_stop_limit = units.map(|units| units.stop_limit).unwrap_or_default();
        driver::stop_entry(&entry, unit_stop_limit, self.signals)?;
        let (at_rest, _) = UnitsAtRest::look(&entry.units)?;
        entry.step = journal::StopProgress::Stopped;
        self.journal.write(&entry)?;
        Ok(at_rest)
    }

    /// Starts the services that ran when the archive was made, or, if that is
    /// not known, those that the restored compose file starts.
    fn start(&mut self) -> Result<(Vec<String>, Option<Started>)> {
        if let Some(units) = &self.plan.units {
            let names = units.names_to_start();
            let to_start = units.to_start.clone();
            let started = start_units(&mut self.plan, to_start, self.signals)?;
            return Ok((names, started));
        }
        if self.plan.starts_what_ran() {
            return self.start_what_ran();
        }
        let services = match self.plan.facts {
            ArchiveFacts::Described(manifest) => ServicesToStart {
                names: manifest.running.clone(),
                replicas: manifest.replicas.clone(),
                compose: manifest.compose.clone(),
                state: StateBefore::Healthy,
            },
            ArchiveFacts::Guessed(_) => guessed::read_restored_compose(&mut self.plan)
                .context("cannot find out which services to start")?,
        };
        let started = start(&mut self.plan, &services, self.signals)?;
        Ok((services.names, started))
    }

    /// Starts the containers that ran before.
    fn start_what_ran(&mut self) -> Result<(Vec<String>, Option<Started>)> {
        if self.plan.running.is_empty() {
            return Ok((Vec::new(), None));
        }
        let running = self.plan.running.clone();
        let entry = self
            .plan
            .journal_entry(running, Vec::new(), journal::StopProgress::Stopped);
        let started = driver::start(&entry, self.signals)?;
        let warnings = driver::confirm(&entry, &started, self.signals)?;
        self.plan.warnings.extend(warnings);
        Ok((entry.services(), Some(started)))
    }

    /// Undoes everything, and adds to the error whether that succeeded.
    fn give_up(&self, error: anyhow::Error) -> anyhow::Error {
        tracing::error!("{error:#}");
        tracing::warn!("undoing the restore");
        let undone = undo(&self.plan.entry, self.plan.options.state_dir)
            .and_then(|()| self.start_what_was_stopped());
        let Err(undo) = undone else {
            return error.context("nothing was restored, all is as it was");
        };
        let message = format!(
            "cannot undo the restore ({undo:#}); run `docker-stack-backup recover` when the cause is \
             gone"
        );
        match self.ran() {
            true => error.context(StillDown(message)),
            false => error.context(message),
        }
    }

    fn start_what_was_stopped(&self) -> Result<()> {
        let stack = self.plan.facts.stack();
        let found = self.journal.found()?;
        let Some(stopped) = found.into_iter().find(|found| found.stack == stack) else {
            return Ok(());
        };
        let entry = stopped.entry?;
        let started = driver::start(&entry, self.signals)?;
        for warning in driver::confirm(&entry, &started, self.signals)? {
            tracing::warn!("{warning}");
        }
        self.journal.remove(stack)
    }
}
