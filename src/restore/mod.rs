//! Restores archives: unpacks them into a directory, replaces a stack in place,
//! or compares them with the data on the host.

mod archive;
pub mod diff;
mod directory;
mod extract;
mod facts;
pub mod foreign;
mod from_tree;
pub mod host;
mod journal;
mod parts;
pub mod selection;
pub mod stack;
mod target;
mod trees;

pub use archive::Archive;
pub use directory::{listing, to_directory};
pub use extract::{Destination, ExtractOptions, ExtractSummary, extract};
pub use facts::{ArchiveFacts, GuessedFacts};
pub use from_tree::archive_of_tree;
pub use parts::Parts;
pub use trees::{check_manifest, tree_of};
