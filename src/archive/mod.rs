//! The archive: an uncompressed POSIX pax `.tar`. All its headers and offsets
//! are a function of an [`Inventory`](crate::scan::Inventory); see
//! `docs/archive-format.md`.

pub mod draft;
mod hash;
mod implied;
mod manifest;
pub mod member_path;
mod soundness;
mod sums;
pub mod tar;
#[cfg(test)]
pub(crate) mod tests;
pub mod tree;
mod uncached;
pub mod verify;
pub mod write;

pub use draft::{Draft, Update};
pub use implied::ImpliedDirectories;
pub use manifest::{FORMAT_VERSION, Manifest, ManifestDriver, ServiceImage};
pub use manifest::{Identity, identify, read_manifest, read_manifest_of_stream};
pub use sums::{ContentChecker, ContentHash, Sums};
pub use tar::{Input, Kind, Member, Reader};
pub use write::hashes::RenderedHashes;
pub use write::layout::{Layout, ManifestSlot};
pub use write::options::{ReadOptions, ShareOptions};
pub use write::{WriteSummary, write_manifest, write_members};
