//! Tests that need neither root nor a Docker Engine.

mod architecture;
mod archives;
mod cli;
mod dashboard;
mod documents;
mod export;
mod invariants;
mod json;
mod look;
mod needs_age;
mod needs_borg;
mod needs_dpkg;
mod needs_promtool;
mod needs_systemd;
mod newest_archive;
mod news;
mod nixos;
mod store;
mod store_identity;
mod terminal;
mod verify;
