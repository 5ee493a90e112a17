//! The archive: an uncompressed POSIX pax `.tar` whose every header and offset
//! follows from an [`Inventory`](crate::capture::Inventory).
//! `docs/archive-format.md` describes the result.

mod acl;
mod block;
mod blocks;
mod draft;
mod header;
mod kept;
mod layout;
mod manifest;
mod pax;
mod pieces;
mod read;
mod reader;
mod relocate;
mod render;
mod share;
mod sink;
mod sums;
#[cfg(test)]
mod tests;
mod ustar;
mod windows;
mod write;

pub use draft::{Draft, Update};
pub use layout::{Layout, ManifestSlot};
pub use manifest::{FORMAT_VERSION, ImageOf, Manifest};
pub use read::{is_complete, read_manifest, read_manifest_of_stream};
pub use reader::{Input, Kind, Member, Reader};
pub use sums::Sums;
pub use write::{Reading, Sharing, WriteSummary, write_manifest, write_members};

/// The unit of a tar file: POSIX.1-2017 `pax`, "ustar Interchange Format".
pub(crate) const BLOCK_BYTES: u64 = 512;

/// Where data of larger files begins, and what the whole archive is a multiple
/// of: file system blocks, in which data can be shared.
pub(crate) const ALIGNMENT_BYTES: u64 = 4096;

/// Files with at least this much stored data are aligned.
pub(crate) const ALIGNED_FROM_BYTES: u64 = 64 * 1024;
