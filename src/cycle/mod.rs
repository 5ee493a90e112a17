//! The backup of one stack. [`back_up`] shows its steps; they are in `planning`,
//! `prepare`, `downtime`, `capture`, `finish` and `hooks`.

mod capture;
mod context;
mod downtime;
mod finish;
mod hooks;
mod journalled;
mod manifest;
mod planning;
pub mod precopy;
mod prepare;
mod quiet_proof;
mod recorder;
mod state;

pub use self::context::{Observer, RunContext, Unobserved};
pub use self::hooks::run_finally;
pub use self::planning::rehearse;
use self::prepare::Prepared;
use self::recorder::OutcomeRecorder;
use self::state::Cycle;
use crate::config::HookPlace;
use crate::config::plan::StackPlan;
use crate::outcome::{Phase, StackOutcome};
use crate::stack::survey::Survey;

/// Takes one stack through its backup. Whatever happens between stop and start,
/// the start is attempted, and whatever happens after a hook, its effect is taken back.
pub fn back_up(context: &RunContext<'_>, stack: &StackPlan) -> StackOutcome {
    let mut recorder = OutcomeRecorder::new(stack, context.observer);
    let surveyed = recorder.phase(Phase::Plan, |_| {
        context.signals.check()?;
        Survey::with_labels(stack)
    });
    let Some((stack, survey)) = surveyed else {
        return recorder.outcome;
    };
    let cycle = recorder.phase(Phase::Plan, |outcome| {
        Cycle::plan(outcome, context, &stack, survey)
    });
    if let Some(mut cycle) = cycle {
        if let Some(prepared) = cycle.get_ready(&mut recorder) {
            let (captured, started) = cycle.capture_while_down(&mut recorder, prepared);
            cycle.finish(&mut recorder, captured, started);
        }
        cycle.undo_hooks(&mut recorder);
    }
    recorder.outcome
}

impl Cycle<'_> {
    /// Does all that is done while the stack is up. `None` if it must not be stopped.
    fn get_ready(&mut self, recorder: &mut OutcomeRecorder) -> Option<Prepared> {
        self.run_hooks(recorder, HookPlace::BeforeCopy)?;
        let inventory = recorder.phase(Phase::Measure, |_| self.measure())?;
        let prepared = self.prepare(recorder, inventory)?;
        if !self.survey.is_down() {
            self.run_hooks(recorder, HookPlace::BeforeStop)?;
        }
        recorder.phase(Phase::Plan, |outcome| self.plan_again(outcome))?;
        Some(prepared)
    }
}
