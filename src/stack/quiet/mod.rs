//! The proof that nothing writes to a stack's data: no container mounts it
//! writable, and no process has one of its files open for writing.

mod containers;
mod processes;

pub use containers::{WriterFilter, Writers, container_writers};
pub use processes::{commands_writing_beneath, process_writers};
