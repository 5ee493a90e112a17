//! The tar format: headers, pax records, sparse maps and ACLs, written and
//! read. Nothing here knows stacks or the store.

mod acl;
pub mod entry_head;
pub mod head;
mod header;
mod input;
mod member;
pub mod pax;
mod reader;
mod records;
mod sparse;
mod ustar;

pub use input::Input;
pub use member::{Kind, Member};
pub use reader::Reader;
pub(crate) use reader::is_manifest_path;

/// The unit of a tar file: POSIX.1-2017 `pax`, "ustar Interchange Format".
pub const BLOCK_BYTES: u64 = 512;

/// The data of larger files begins at a multiple of this, and the length of an
/// archive is one. File systems share data in blocks of this size.
pub const ALIGNMENT_BYTES: u64 = 4096;

/// Files with at least this much stored data are aligned.
pub const ALIGNED_FROM_BYTES: u64 = 64 * 1024;
