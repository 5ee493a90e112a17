//! Tests that kill, cut off or starve the program or its Engine. They need root and
//! a Docker Engine.

mod daemon;
mod docker_calls;
mod draft;
mod durable;
mod full_disk;
mod journal;
mod power_cut;
mod restore;
mod signals;
