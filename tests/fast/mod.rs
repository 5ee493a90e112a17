//! Tests that need neither root nor a Docker Engine.

mod architecture;
mod archives;
mod cli;
mod documents;
mod invariants;
mod nixos;
mod store;
mod units;
mod verify;
