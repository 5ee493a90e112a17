//! The trees to archive: each is opened once ([`Source`]) and everything in them
//! is listed ([`scan`], [`Inventory`]).

mod assemble;
mod attributes;
mod boundary;
mod change_tracking;
mod directory;
mod exclude;
mod fingerprint;
mod inventory;
#[cfg(test)]
pub(crate) mod mutation;
mod queue;
mod source;
mod sparse;
mod state;
#[cfg(test)]
mod tests;
mod walk;

/// An archive has no longer paths, prefix included.
pub const PATH_BYTES_MAX: usize = 64 << 10;
/// An archive has no more bytes of extended attributes of one file, names included.
pub const ATTRIBUTE_BYTES_MAX: usize = 15 << 20;

pub use boundary::Boundary;
pub use change_tracking::{TrackedDevices, sync};
pub(crate) use change_tracking::{await_write, tracks_changes};
pub use exclude::Exclude;
pub use fingerprint::SETTLED_AFTER;
pub(crate) use fingerprint::{FingerprintKeys, NEVER_EQUAL};
pub use inventory::{Entry, Inventory, Node};
pub use source::Source;
pub(crate) use source::{is_gone, open_beneath, open_file_at, open_regular_at, stat_handle};
pub use sparse::Extent;
pub use walk::scan;
