//! Tests that need neither root nor a Docker Engine.

mod archives;
mod cli;
mod nixos;
mod store;
mod units;
mod verify;
