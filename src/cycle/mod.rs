//! The backup of one stack. [`back_up`] shows its steps; they are in `planning`,
//! `prepare`, `downtime`, `capture` and `finish`.

mod capture;
mod downtime;
mod finish;
mod manifest;
mod planning;
pub mod precopy;
mod prepare;
mod quiet_proof;
mod recorder;
mod state;

pub use self::planning::rehearse;
use self::recorder::OutcomeRecorder;
use self::state::Cycle;
pub use self::state::{Observer, RunContext, Unobserved};
use crate::config::plan::StackPlan;
use crate::outcome::{Phase, StackOutcome};

/// Takes one stack through its backup. Whatever happens between stop and start,
/// the start is attempted.
pub fn back_up(context: &RunContext<'_>, stack: &StackPlan) -> StackOutcome {
    let mut recorder = OutcomeRecorder::new(stack, context.observer);
    if let Some(mut cycle) =
        recorder.phase(Phase::Plan, |outcome| Cycle::plan(outcome, context, stack))
        && let Some(inventory) = recorder.phase(Phase::Measure, |_| cycle.measure())
        && let Some(prepared) = cycle.prepare(&mut recorder, inventory)
        && let Some(()) = recorder.phase(Phase::Plan, |outcome| cycle.plan_again(outcome))
    {
        let (captured, up_again) = cycle.capture_while_down(&mut recorder, prepared);
        cycle.finish(&mut recorder, captured, up_again);
    }
    recorder.outcome
}
