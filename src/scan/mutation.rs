//! Steps that keep a draft true to its tree, each of which a test can leave out
//! in order to prove that the property test (`cycle/precopy/tests`) notices.
//!
//! A mutation is on in one thread, so tests that run beside it are not affected.
//! The writer threads of an archive inherit it.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<Mutation>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// No `syncfs` between scan and copy.
    Sync,
    /// No second scan while the stack is down.
    Scan,
    /// Files are relied on however young their ctime is.
    Settle,
    /// Writes in progress are not waited for.
    Wait,
    /// All blocks of a file that changed count as equal.
    Blocks,
    /// Files whose sharing is postponed count as copied.
    Later,
}

impl Mutation {
    pub(crate) fn is_on(self) -> bool {
        Mutation::current() == Some(self)
    }

    /// Runs `act` with this mutation on.
    pub(crate) fn during<T>(self, act: impl FnOnce() -> T) -> T {
        let _off = SwitchOff;
        Mutation::inherit(Some(self));
        act()
    }

    pub(crate) fn current() -> Option<Mutation> {
        CURRENT.get()
    }

    /// Switches on, for the rest of this thread, what is on in the thread that
    /// spawned it.
    pub(crate) fn inherit(current: Option<Mutation>) {
        CURRENT.set(current);
    }
}

/// Panics included: the next test may run in the same thread.
struct SwitchOff;

impl Drop for SwitchOff {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}
