//! What is extracted, and where to.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

/// Where a part of the archive goes.
pub struct Destination {
    /// Member path of the part; empty for the whole archive.
    pub prefix: Vec<u8>,
    /// The directory in which `name` is created.
    pub parent: OwnedFd,
    /// Replaces the prefix. If it is empty, the part goes into `parent` itself,
    /// which must be empty.
    pub name: Vec<u8>,
}

pub struct ExtractOptions<'a> {
    /// Whether the member with this normalised path is extracted.
    pub is_wanted: &'a dyn Fn(&[u8]) -> bool,
    /// Whether device nodes are created. Otherwise they are an error.
    pub allow_devices: bool,
    /// Whether attributes that root lacks a capability for are only reported.
    /// Otherwise they are an error.
    pub tolerates_refusals: bool,
    pub cancel: &'a AtomicBool,
}

#[derive(Debug, Default)]
pub struct ExtractSummary {
    pub member_count: u64,
    pub file_bytes: u64,
    /// Messages on what this file system or user does not allow to restore.
    pub unrestored: Vec<String>,
}
