//! The archive: an uncompressed POSIX pax `.tar` whose every header and offset
//! follows from an [`Inventory`](crate::scan::Inventory).
//! `docs/archive-format.md` describes the result.

pub mod draft;
mod manifest;
mod manifest_read;
mod sums;
pub mod tar;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod write;

pub use draft::{Draft, Update};
pub use manifest::{FORMAT_VERSION, Manifest, ServiceImage};
pub use manifest_read::{is_complete, read_manifest, read_manifest_of_stream};
pub use sums::Sums;
pub use tar::reader::{Input, Kind, Member, Reader};
pub use write::layout::{Layout, ManifestSlot};
pub use write::options::{ReadOptions, ShareOptions};
pub use write::{WriteSummary, write_manifest, write_members};
