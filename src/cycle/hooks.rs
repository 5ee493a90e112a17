//! Hooks at their places in the backup.

use anyhow::{Result, anyhow, bail};

use super::recorder::{OutcomeRecorder, add_failure, add_warning};
use super::state::Cycle;
use crate::config::plan::StackPlan;
use crate::config::{Hook, HookPlace, OnError};
use crate::outcome::{Phase, StackOutcome, StackStatus};
use crate::stack::hooks::{Ended, HookContext, ReadyCommand};
use crate::stack::journal::{PendingUndo, StopProgress};
use crate::sys::signals::Signals;

impl Cycle<'_> {
    /// Runs the hooks of a place in their order, up to the first one that fails the backup.
    /// `None` if there is one.
    pub(super) fn run_hooks(&self, recorder: &mut OutcomeRecorder, place: HookPlace) -> Option<()> {
        for hook in self.stack.hooks.iter().filter(|hook| hook.when == place) {
            recorder.phase(Phase::Hooks, |outcome| {
                self.context.signals.check()?;
                let archive = outcome.archive.as_ref().map(|made| made.path.clone());
                let context = HookContext {
                    archive: archive.as_deref(),
                    ..context(self.stack, &self.survey.project, hook)
                };
                run_hook(hook, outcome, &context, self.context.signals, &|undo| {
                    let new = || self.journal_entry(StopProgress::Up);
                    self.entry.add_undo(self.context, undo, new)
                })
            })?;
        }
        Some(())
    }

    /// Takes back the effect of all hooks that have an undo.
    pub(super) fn undo_hooks(&self, recorder: &mut OutcomeRecorder) {
        if self.entry.pending().is_empty() {
            return;
        }
        recorder.phase(Phase::Hooks, |outcome| {
            let tell = &mut |undone| outcome.add_undone(undone);
            let done = self.entry.undo(self.context, tell);
            outcome.not_undone = self.entry.pending();
            done
        });
    }
}

/// Runs the hooks that follow whatever happened to the stack.
pub fn run_finally(stack: &StackPlan, outcome: &mut StackOutcome) {
    let hooks = stack.hooks.iter();
    for hook in hooks.filter(|hook| hook.when == HookPlace::Finally) {
        let archive = outcome.archive.as_ref().map(|made| made.path.clone());
        let project = outcome.project.clone().unwrap_or_default();
        let context = HookContext {
            archive: archive.as_deref(),
            status: Some(match outcome.status {
                StackStatus::Ok => "ok",
                StackStatus::Failed | StackStatus::NotRun => "failed",
                StackStatus::Down => "down",
            }),
            ..context(stack, &project, hook)
        };
        // A signal does not interrupt them: they are the last thing to be done.
        let signals = Signals::default();
        let no_undo = |_| Err(anyhow!("nothing follows that could undo it"));
        if let Err(error) = run_hook(hook, outcome, &context, &signals, &no_undo) {
            add_failure(outcome, Phase::Hooks, format!("{error:#}"));
        }
    }
}

fn context<'a>(stack: &'a StackPlan, project: &'a str, hook: &Hook) -> HookContext<'a> {
    HookContext {
        stack: &stack.name,
        engine: &stack.compose.engine,
        project,
        dir: stack.dir(),
        phase: hook.when.name(),
        archive: None,
        status: None,
    }
}

/// Runs a hook. Its undo is journalled before.
///
/// # Errors
/// When it fails and that fails the backup.
fn run_hook(
    hook: &Hook,
    outcome: &mut StackOutcome,
    context: &HookContext<'_>,
    signals: &Signals,
    journal: &dyn Fn(PendingUndo) -> Result<()>,
) -> Result<()> {
    tracing::info!(hook = hook.to_string(), "running a hook");
    let begin = || {
        let ready = ReadyCommand::prepare(&hook.command, context)?;
        if let Some(undo) = &hook.undo {
            journal(PendingUndo {
                when: hook.when,
                command: undo.clone(),
                hook: ready.exec().cloned(),
            })?;
        }
        Ok(ready)
    };
    let ended = match begin() {
        Ok(ready) => ready.run(signals),
        Err(error) => Ended::not_begun(&error),
    };
    let ran = ended.outcome(hook.when, false, &hook.command);
    let error = ran.error.clone();
    outcome.hooks.push(ran);
    match (error, hook.on_error) {
        (None, _) => Ok(()),
        (Some(error), OnError::Fail) => bail!(error),
        (Some(error), OnError::Warn) => {
            add_warning(outcome, error);
            Ok(())
        }
    }
}
