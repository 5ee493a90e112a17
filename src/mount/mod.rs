//! Archives as read-only directories, by FUSE. Nothing is unpacked: headers are read
//! once, and data where it is asked for.

mod attributes;
mod file_system;
mod inodes;
mod mounted;
#[cfg(test)]
mod tests;
mod view;
mod viewed;

pub use mounted::{Mounted, check_mount_point};
pub use view::View;
pub use viewed::ViewedArchive;
