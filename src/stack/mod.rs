//! A stack on this host: what runs, what an archive of it covers, what else writes
//! to its data, and how it is stopped and started.

mod advice;
pub mod all_engines;
mod compose_files;
pub mod coverage;
pub mod discover;
pub mod driver;
mod elsewhere;
pub mod hooks;
pub mod journal;
mod known;
pub mod labels;
pub mod neighbours;
mod paths;
pub mod project;
pub mod quiet;
mod remade;
pub mod running;
pub mod survey;
pub mod unconfigured;
pub mod unit_containers;
pub mod units;
