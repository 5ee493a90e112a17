//! What a writer is told: the sources, and how they are read.

use std::sync::atomic::AtomicBool;

use crate::scan::{Exclude, Source};

/// What is archived, and how it is read.
#[derive(Clone, Copy)]
pub struct ReadOptions<'a> {
    /// Those that the inventory is of.
    pub sources: &'a [Source],
    /// Fail with `interrupted` soon after this is set.
    pub cancel: &'a AtomicBool,
    /// Others may be at work in the sources.
    pub is_live: bool,
    /// Whether blocks may be shared with the sources at all.
    pub share: Option<ShareOptions<'a>>,
}

/// Which files share their blocks with the archive.
#[derive(Clone, Copy)]
pub struct ShareOptions<'a> {
    /// Those that do not.
    pub unshared: &'a Exclude,
    /// While others are at work, files of this many bytes and more that changed
    /// lately are left out: each write to a shared block would take it to
    /// another place, and a file in many places takes long to share when it
    /// counts, while they wait.
    pub deferred_from_bytes: u64,
}
