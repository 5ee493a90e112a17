//! Tests that need neither root nor a Docker Engine.

mod architecture;
mod archives;
mod cli;
mod documents;
mod invariants;
mod look;
mod needs_promtool;
mod newest_archive;
mod news;
mod nixos;
mod store;
mod store_identity;
mod units;
mod verify;
