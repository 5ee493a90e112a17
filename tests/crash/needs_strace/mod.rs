//! Tests that kill the program before a system call or slow its system calls down.

mod draft;
mod durable;
mod guard;
mod hooks;
mod matrix;
mod needs_xfs;
mod restore;
