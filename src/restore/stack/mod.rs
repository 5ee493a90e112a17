//! Restores a whole stack in place: unpacks the archive beside the data while
//! the stack still runs, stops the stack, exchanges the data, and starts the
//! services that ran when the archive was made. If any step fails, all of it is
//! undone.

mod execute;
mod externals;
mod guessed;
mod images;
mod plan;
mod room;
mod start;
mod undo;
mod units;

pub use execute::{Restored, StillDown};
pub use plan::{RestoreOptions, RestorePlan};
pub use undo::{clean_leftovers, recover};

pub use super::journal::is_unfinished;
