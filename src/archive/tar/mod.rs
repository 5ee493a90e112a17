//! The tar format: headers, pax records and ACLs, written and read. Nothing
//! here knows stacks or the store.

pub mod acl;
mod decode;
pub mod encode;
pub mod pax;
pub mod reader;
mod ustar;

/// The unit of a tar file: POSIX.1-2017 `pax`, "ustar Interchange Format".
pub const BLOCK_BYTES: u64 = 512;

/// Where data of larger files begins, and what the whole archive is a multiple
/// of: file system blocks, in which data can be shared.
pub const ALIGNMENT_BYTES: u64 = 4096;

/// Files with at least this much stored data are aligned.
pub const ALIGNED_FROM_BYTES: u64 = 64 * 1024;
