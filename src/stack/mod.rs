//! A stack on this host: what runs, what an archive of it covers, what else writes
//! to its data, and how it is stopped and started.

pub mod coverage;
pub mod driver;
pub mod journal;
pub mod quiet;
mod remade;
pub mod running;
pub mod survey;
