//! What a backup is given, and who sees its steps.

use crate::outcome::{Phase, StackOutcome};
use crate::stack::journal::{Journal, JournalEntry};
use crate::store::Store;
use crate::sys::signals::Signals;

/// What the cycles of all stacks of a run share.
pub struct RunContext<'a> {
    pub store: &'a Store,
    pub journal: &'a Journal,
    pub signals: &'a Signals,
    pub host: &'a str,
    pub observer: &'a dyn Observer,
}

/// Sees the steps of a stack's backup. What it has seen is enough to start the stack in
/// another process.
pub trait Observer: Sync {
    /// A phase begins.
    fn phase(&self, phase: Phase, so_far: &StackOutcome);
    /// The journal has this entry now.
    fn journalled(&self, entry: &JournalEntry);
    /// The journal has no entry any more: the stack is as it was before.
    fn journal_closed(&self);
}

/// Where nobody looks.
pub struct Unobserved;

impl Observer for Unobserved {
    fn phase(&self, _: Phase, _: &StackOutcome) {}
    fn journalled(&self, _: &JournalEntry) {}
    fn journal_closed(&self) {}
}
