//! How the sources of an archive are read.

use std::sync::atomic::AtomicBool;

use crate::scan::{Exclude, Source};

/// The sources of an archive, and how they are read.
#[derive(Clone, Copy)]
pub struct ReadOptions<'a> {
    /// The sources of the inventory.
    pub sources: &'a [Source],
    /// When set, reading fails with `interrupted` soon after.
    pub cancel: &'a AtomicBool,
    /// Whether other programs may be writing to the sources.
    pub is_live: bool,
    /// Whether what is rendered is also hashed.
    pub hash: bool,
    /// Whether and how the archive may share blocks with the sources.
    pub share: Option<ShareOptions<'a>>,
}

/// Which files share their blocks with the archive.
#[derive(Clone, Copy)]
pub struct ShareOptions<'a> {
    /// Files that do not.
    pub unshared: &'a Exclude,
    /// While the sources are live, files of at least this length that changed
    /// within the hour are deferred: they are shared only once the stack is down.
    /// Every write to a shared block moves it to another place on the disk, and a
    /// fragmented file takes long to share, which would lengthen the downtime.
    pub deferred_from_bytes: u64,
}
