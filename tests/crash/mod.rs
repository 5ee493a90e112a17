//! Tests that kill the program at every step, kill its Engine, cut off its power
//! or fill its disk. They need root and a Docker Engine.

mod daemon;
mod docker_calls;
mod full_disk;
mod guard;
mod hooks;
mod journal;
mod needs_podman;
mod needs_strace;
mod recovery;
mod signals;
mod status;
mod worker;
