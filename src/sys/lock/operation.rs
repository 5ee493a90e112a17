//! The operations that take the lock, and which of them wait for which.

/// What the lock is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Run,
    Drill,
    Restore,
    Guard,
    Verify,
    Prune,
    Handover,
    Recover,
}

impl Operation {
    pub(super) const ALL: [Operation; 8] = [
        Operation::Run,
        Operation::Drill,
        Operation::Restore,
        Operation::Guard,
        Operation::Verify,
        Operation::Prune,
        Operation::Handover,
        Operation::Recover,
    ];

    /// The name of the command, as in messages and in the lock file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Run => "run",
            Operation::Drill => "drill",
            Operation::Restore => "restore",
            Operation::Guard => "guard",
            Operation::Verify => "verify",
            Operation::Prune => "prune",
            Operation::Handover => "handover",
            Operation::Recover => "recover",
        }
    }

    /// Whether the operation begins by starting the stacks that a killed run
    /// left stopped.
    pub(super) fn begins_with_recovery(self) -> bool {
        matches!(self, Operation::Run | Operation::Drill | Operation::Guard)
    }

    /// Whether the operation stops or starts stacks.
    pub(super) fn writes_journal(self) -> bool {
        !matches!(
            self,
            Operation::Verify | Operation::Prune | Operation::Handover
        )
    }

    /// Whether the operation waits for `holder` instead of failing at once. A
    /// holder that is not known may be of any kind.
    ///
    /// Timers start runs and drills. These wait for every operation except a
    /// second instance of themselves, so a nightly run is never skipped because
    /// of a `verify`. Waiting takes no lock. `recover` waits for those that do
    /// not recover themselves. A person types the others, and can repeat them.
    pub(super) fn waits_for(self, holder: Option<Operation>) -> bool {
        match self {
            Operation::Run | Operation::Drill => Some(self) != holder,
            Operation::Recover => !holder.is_some_and(Operation::begins_with_recovery),
            Operation::Restore
            | Operation::Guard
            | Operation::Verify
            | Operation::Prune
            | Operation::Handover => false,
        }
    }
}
