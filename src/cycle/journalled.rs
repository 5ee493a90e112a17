//! The stack's entry in the journal, as this backup writes it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::context::RunContext;
use crate::outcome::HookOutcome;
use crate::stack::hooks;
use crate::stack::journal::{JournalEntry, PendingUndo, StopProgress};

/// The entry, which two threads change: one closes it while the other runs hooks. The
/// observer knows each state that is on disk.
#[derive(Default)]
pub(super) struct Journalled(Mutex<Option<JournalEntry>>);

impl Journalled {
    /// Adds what takes back the effect of a hook that is about to run. `new` makes an entry
    /// if there is none.
    ///
    /// # Errors
    /// When it is not certain to be on disk: the hook must not run.
    pub(super) fn add_undo(
        &self,
        context: &RunContext<'_>,
        undo: PendingUndo,
        new: impl FnOnce() -> JournalEntry,
    ) -> Result<()> {
        let mut present = self.lock();
        let mut entry = present.clone().unwrap_or_else(new);
        entry.undos.push(undo);
        begin(context, &mut present, entry)
    }

    /// Turns the entry into that of a stack that is about to be stopped.
    ///
    /// # Errors
    /// When it is not certain to be on disk: nothing must be stopped.
    pub(super) fn begin_stop(
        &self,
        context: &RunContext<'_>,
        mut stopping: JournalEntry,
    ) -> Result<()> {
        let mut present = self.lock();
        if let Some(present) = present.as_ref() {
            stopping.undos.clone_from(&present.undos);
        }
        begin(context, &mut present, stopping)
    }

    /// Notes how far the stop has got. Without an entry, there is nothing to note.
    ///
    /// # Errors
    /// When the journal cannot be written. Then it is noted in memory only.
    pub(super) fn set_step(&self, context: &RunContext<'_>, step: StopProgress) -> Result<()> {
        let mut present = self.lock();
        let Some(entry) = present.as_mut() else {
            return Ok(());
        };
        entry.step = step;
        context.journal.settle(entry)?;
        tell_or_forget(context, &mut present);
        Ok(())
    }

    /// Takes back the effect of all hooks.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn undo(
        &self,
        context: &RunContext<'_>,
        tell: &mut dyn FnMut(HookOutcome),
    ) -> Result<()> {
        let mut present = self.lock();
        let Some(entry) = present.as_mut() else {
            return Ok(());
        };
        hooks::undo_all(entry, context.journal, tell)?;
        tell_or_forget(context, &mut present);
        Ok(())
    }

    /// Returns a copy of the entry.
    pub(super) fn entry(&self) -> Option<JournalEntry> {
        self.lock().clone()
    }

    /// Names the hooks whose effect is not taken back.
    pub(super) fn pending(&self) -> Vec<String> {
        self.lock()
            .as_ref()
            .map(JournalEntry::pending_undos)
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<JournalEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(
    context: &RunContext<'_>,
    present: &mut Option<JournalEntry>,
    entry: JournalEntry,
) -> Result<()> {
    context.journal.begin(&entry, present.as_ref())?;
    context.observer.journalled(&entry);
    *present = Some(entry);
    Ok(())
}

/// Tells the observer of the entry, or forgets it if nothing is left to do.
fn tell_or_forget(context: &RunContext<'_>, present: &mut Option<JournalEntry>) {
    match present {
        Some(entry) if !entry.is_settled() => context.observer.journalled(entry),
        _ => {
            *present = None;
            context.observer.journal_closed();
        }
    }
}
