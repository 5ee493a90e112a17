//! This process and its host: other programs, the lock, signals, logs, the
//! progress line, durable writes, text for people. Nothing here knows backups.

pub mod durable;
pub mod encryption;
pub mod format;
pub mod limits;
pub mod lock;
pub mod logging;
pub mod mounts;
pub mod outlet;
pub mod paths;
pub mod priority;
pub mod process;
pub mod progress;
pub mod random;
pub mod remove_tree;
pub mod secret;
pub mod signals;
pub mod similar;
pub mod state_file;
pub mod stdin;
pub mod systemd;
pub mod terminal;
pub mod threads;
pub mod time;
pub mod tls;
