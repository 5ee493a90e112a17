//! Tests that kill the program before a system call, or that slow its calls down.

mod draft;
mod durable;
mod needs_xfs;
mod restore;
