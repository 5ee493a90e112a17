//! A first configuration, made of what runs on this host, or of the settings of the script
//! `docker-backup.py`. What a person must decide is a note beside it.

mod database;
mod nix;
mod proposal;
mod python;
mod script;

pub use database::database_of;
pub use nix::nix_module;
pub use proposal::{Proposal, ProposedStack};
pub use script::import;
