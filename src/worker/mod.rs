//! Backing up a stack in a process of its own, so that a read that never returns (a
//! network mount, a store on a NAS) holds up nothing else. A thread that waits for such a
//! read can be neither interrupted nor killed, and a process cannot end while one of its
//! threads waits like that.
//!
//! The [watch] has in memory all that a start of the stack needs. It gives the worker up
//! when nothing moves any more or when it dies, starts the stack by the Engine alone, and
//! goes on.
//!
//! ```text
//! watch                               worker (`serve`)
//!   stdin   Order, then signals   ->    performs the task
//!           <- Message, one a line      stdout
//! ```
//!
//! The worker is killed by the kernel when the watch dies, so that a killed run leaves
//! nothing behind that goes on working.

mod process;
mod serve;
mod stuck;
mod task;
mod watch;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::plan::Plan;
use crate::outcome::{Phase, StackOutcome};
use crate::stack::journal::JournalEntry;
use crate::sys::logging::ForwardedLine;
use crate::sys::progress;
use task::Task;

pub use serve::serve;
pub use watch::{Watch, Watching};

/// What a worker is to do: the first line on its stdin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    /// The worker does nothing if its parent is another process: that one died before
    /// the kernel was asked to tell.
    watch_pid: u32,
    /// What [`compose_plugin`](crate::engine::compose_plugin) has found.
    compose_plugin: Option<String>,
    plan: Plan,
    task: Task,
}

/// A line on a worker's stdout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Message {
    Log(ForwardedLine),
    Progress(progress::Event),
    Phase(Phase, Box<StackOutcome>),
    Journalled(Box<JournalEntry>),
    JournalClosed,
    /// What came of the task; an error as its text.
    Done(Result<Value, String>),
}
