//! Tests that need root and a Docker Engine.

mod adopt;
mod archives;
mod boundary;
mod by_hand;
mod comes_back;
mod cycle;
mod databases;
mod drill;
mod holes;
mod hooks;
mod hostile_stack;
mod logs;
mod mail;
mod mounts;
mod precopy;
mod progress;
mod quiet;
mod restore;
mod restore_foreign;
mod restore_parts;
mod restore_race;
mod run;
mod second_look;
mod share;
mod store;
mod verify;
