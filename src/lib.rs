//! The library behind the command `docker-stack-backup`. README.md says what it
//! does, docs/architecture.md how it is built.

pub mod adopt;
pub mod archive;
pub mod cli;
pub mod commands;
pub mod complete;
pub mod config;
pub mod cycle;
pub mod drill;
pub mod email;
pub mod engine;
pub mod guard;
pub mod handover;
pub mod history;
pub mod known_stacks;
pub mod last_run;
pub mod metrics;
pub mod mount;
pub mod notify;
pub mod outcome;
pub mod recover;
pub mod report;
pub mod restore;
pub mod run;
pub mod scan;
pub mod stack;
pub mod store;
pub mod sys;
pub mod worker;
