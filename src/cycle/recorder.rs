//! Recording what happens to a stack.

use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use anyhow::{Result, anyhow};

use super::context::Observer;
use crate::config::plan::StackPlan;
use crate::outcome::{Phase, PhaseTime, StackOutcome, StackStatus};
use crate::sys::progress;

/// Collects a stack's outcome, phase by phase.
pub(super) struct OutcomeRecorder<'a> {
    pub(super) outcome: StackOutcome,
    observer: &'a dyn Observer,
}

impl<'a> OutcomeRecorder<'a> {
    pub(super) fn new(stack: &StackPlan, observer: &'a dyn Observer) -> OutcomeRecorder<'a> {
        OutcomeRecorder {
            observer,
            outcome: StackOutcome {
                status: StackStatus::Ok,
                ..StackOutcome::not_run(&stack.name)
            },
        }
    }

    /// Runs `act` as part of a phase. Records its duration and, if it fails or
    /// panics, the failure; then returns `None`.
    pub(super) fn phase<T>(
        &mut self,
        phase: Phase,
        act: impl FnOnce(&mut StackOutcome) -> Result<T>,
    ) -> Option<T> {
        let span = tracing::info_span!("phase", ?phase);
        let _entered = span.enter();
        progress::begin_phase(phase.name());
        self.observer.phase(phase, &self.outcome);
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
        let fail = |error| add_failure(&mut self.outcome, phase, format!("{error:#}"));
        result.map_err(fail).ok()
    }
}

pub(super) fn add_failure(outcome: &mut StackOutcome, phase: Phase, message: String) {
    tracing::error!("{}: {message}", phase.name());
    outcome.add_failure(phase, message);
}

/// Adds a warning, unless the outcome has it already: both plans may find it.
pub(super) fn add_warning(outcome: &mut StackOutcome, warning: String) {
    if outcome.warnings.contains(&warning) {
        return;
    }
    tracing::warn!("{warning}");
    outcome.warnings.push(warning);
}
