//! The integration tests, in one program: what they share is compiled and linked
//! once. A test's directory is its lane (see `scripts/test`).

mod common;
mod crash;
mod docker;
mod fast;
