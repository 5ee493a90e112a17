//! The store: the directory of archives, `<store>/<stack>/<archive>.tar`.
//!
//! A name that ends in `.tar` is a finished archive (I5). All files are reached
//! through directory handles, and no symlink below the store is followed.
//! Whoever writes or removes something here must hold the lock.

pub mod alarms;
mod archive_name;
mod archives;
pub mod checks;
mod directory;
pub mod drill_results;
mod entries;
pub mod health;
pub mod identity;
mod partial;
pub mod prune;
pub mod retention;
mod sidecar;
#[cfg(test)]
mod tests;
pub mod verify_results;

pub use archive_name::ArchiveName;
pub use archives::StoredArchive;
pub use directory::Store;
pub use partial::Partial;
pub use sidecar::Sidecar;
