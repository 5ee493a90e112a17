//! The time in which the stack is down: stop, capture, start.

use std::time::Instant;

use anyhow::Result;
use jiff::ZonedDateTime;

use super::capture::{Captured, Leftover};
use super::prepare::Prepared;
use super::recorder::{OutcomeRecorder, add_warning};
use super::state::Cycle;
use crate::outcome::{Phase, StackOutcome, StackStatus};
use crate::stack::driver;
use crate::stack::journal::{self, JournalEntry, StopProgress};
use crate::sys::priority;
use crate::sys::progress;

impl Cycle<'_> {
    /// Stops the stack, captures its data and starts it again. Whatever happens
    /// after the stop, the start is attempted.
    pub(super) fn capture_while_down(
        &self,
        recorder: &mut OutcomeRecorder,
        prepared: Prepared,
    ) -> Option<Captured> {
        if self.survey.running.is_empty() {
            tracing::info!("nothing runs, archiving as it is");
            let captured = self.capture(recorder, prepared);
            return captured.map_err(Leftover::remove).ok();
        }
        let mut entry = self.journal_entry();
        recorder.phase(Phase::Stop, |_| {
            self.context.signals.check()?;
            self.write_journal(&entry)
        })?;
        let _urgent = priority::raise();
        let began = Instant::now();
        progress::set_down(true);
        let captured = match recorder.phase(Phase::Stop, |_| self.stop(&mut entry)) {
            Some(()) => self.capture(recorder, prepared),
            None => Err(prepared.into()),
        };
        let captured = captured.map_err(|leftover| self.make_room_for_start(leftover));
        let started = recorder.phase(Phase::Start, |outcome| self.start(outcome, &entry));
        let downtime_ms = began.elapsed().as_millis() as u64;
        recorder.outcome.downtime_ms = Some(downtime_ms);
        match started {
            Some(()) => {
                progress::set_down(false);
                tracing::info!(downtime_ms, "up again");
            }
            None => recorder.outcome.status = StackStatus::Down,
        }
        captured.map_err(Leftover::remove).ok()
    }

    fn stop(&self, entry: &mut JournalEntry) -> Result<()> {
        tracing::info!(services = entry.services().join(" "), "stopping");
        let stopped = driver::stop(&self.survey, self.stack.stop_timeout, self.context.signals);
        if stopped.as_ref().err().is_none_or(driver::was_refused) {
            // No stop is in progress, so the start must not repeat the stop.
            entry.step = StopProgress::Stopped;
        }
        stopped?;
        self.write_journal(entry)
    }

    fn write_journal(&self, entry: &JournalEntry) -> Result<()> {
        self.context.journal.write(entry)?;
        self.context.observer.journalled(entry);
        Ok(())
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

    fn start(&self, outcome: &mut StackOutcome, entry: &JournalEntry) -> Result<()> {
        tracing::info!(services = entry.services().join(" "), "starting");
        for warning in driver::start(entry, self.context.signals)? {
            add_warning(outcome, warning);
        }
        Ok(())
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
}
