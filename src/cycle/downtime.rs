//! The time in which the stack is down: stop, capture, start.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::capture::{Captured, Leftover};
use super::prepare::Prepared;
use super::recorder::OutcomeRecorder;
use super::state::Cycle;
use crate::config::HookPlace;
use crate::outcome::{Phase, StackOutcome, StackStatus};
use crate::stack::driver::{self, Started};
use crate::stack::journal::{self, JournalEntry, StopProgress};
use crate::sys::priority;
use crate::sys::progress;
use crate::sys::time::{OffsetTime, zone_name};

impl Cycle<'_> {
    /// Stops the stack, captures its data and starts it again. Whatever happens
    /// after the stop, the start is attempted.
    pub(super) fn capture_while_down(
        &self,
        recorder: &mut OutcomeRecorder,
        prepared: Prepared,
    ) -> (Option<Captured>, Option<Started>) {
        if self.survey.is_down() {
            tracing::info!("nothing runs, archiving as it is");
            let captured = self.run_hooks_and_capture(recorder, prepared);
            return (captured.map_err(Leftover::remove).ok(), None);
        }
        let begun = recorder.phase(Phase::Stop, |_| {
            self.context.signals.check()?;
            let stopping = self.journal_entry(StopProgress::Stopping);
            self.entry.begin_stop(self.context, stopping)
        });
        if begun.is_none() {
            return (None, None);
        }
        let _urgent = priority::raise();
        let began = Instant::now();
        progress::set_down(true);
        let captured = match recorder.phase(Phase::Stop, |_| self.stop()) {
            Some(()) => self.run_hooks_and_capture(recorder, prepared),
            None => Err(prepared.into()),
        };
        let captured = captured.map_err(|leftover| self.make_room_for_start(leftover));
        let started = recorder.phase(Phase::Start, |_| self.start());
        record_downtime(&mut recorder.outcome, began, started.as_ref());
        (captured.map_err(Leftover::remove).ok(), started)
    }

    fn run_hooks_and_capture(
        &self,
        recorder: &mut OutcomeRecorder,
        prepared: Prepared,
    ) -> Result<Captured, Leftover> {
        match self.run_hooks(recorder, HookPlace::WhileDown) {
            Some(()) => self.capture(recorder, prepared),
            None => Err(prepared.into()),
        }
    }

    fn stop(&self) -> Result<()> {
        tracing::info!(services = self.survey.services().join(" "), "stopping");
        let stopped = driver::stop(&self.survey, self.stack.stop_timeout, self.context.signals);
        let written = match stopped.as_ref().err().is_none_or(driver::was_refused) {
            // No stop is in progress, so the start must not repeat the stop.
            true => self.entry.set_step(self.context, StopProgress::Stopped),
            false => Ok(()),
        };
        stopped.and(written)
    }

    /// Removes the leftover at once if the disk is full: the start might fail.
    fn make_room_for_start(&self, leftover: Leftover) -> Leftover {
        match self.is_store_almost_full() {
            true => {
                leftover.remove();
                Leftover::Nothing
            }
            false => leftover,
        }
    }

    fn start(&self) -> Result<Started> {
        tracing::info!(services = self.survey.services().join(" "), "starting");
        let entry = self
            .entry
            .entry()
            .context("the stack has no journal entry")?;
        driver::start(&entry, self.context.signals)
    }

    /// Makes an entry with what runs now.
    pub(super) fn journal_entry(&self, step: StopProgress) -> JournalEntry {
        JournalEntry {
            format_version: journal::FORMAT_VERSION,
            stack: self.stack.name.clone(),
            project: self.survey.project.clone(),
            compose: self.survey.compose.clone(),
            stop_method: self.survey.stop_method,
            stop_timeout_secs: self.stack.stop_timeout.map(|timeout| timeout.as_secs()),
            start_timeout_secs: self.stack.start_timeout.as_secs(),
            since: OffsetTime::now(),
            time_zone: zone_name(),
            step,
            for_restore: false,
            containers: self.survey.running.clone(),
            units: self.survey.units.clone(),
            unit_containers: self.survey.unit_containers.clone(),
            networks: self.survey.networks.clone(),
            undos: Vec::new(),
        }
    }
}

/// Records for how long the stack was down, and when it was healthy.
fn record_downtime(outcome: &mut StackOutcome, began: Instant, started: Option<&Started>) {
    let Some(started) = started else {
        outcome.downtime_ms = Some(began.elapsed().as_millis() as u64);
        outcome.status = StackStatus::Down;
        return;
    };
    progress::set_down(false);
    let downtime_ms = started.running_at.duration_since(began).as_millis() as u64;
    let healthy_ms = started.confirmed_at.duration_since(began).as_millis() as u64;
    outcome.downtime_ms = Some(downtime_ms);
    outcome.healthy_ms = Some(healthy_ms);
    tracing::info!(downtime_ms, healthy_ms, "up again");
}
