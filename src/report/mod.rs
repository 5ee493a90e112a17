//! Reports of runs and drills as text. Pure functions: the same outcome always
//! gives the same text.

mod details;
mod drills;
mod page;
mod run;
mod subject;
#[cfg(test)]
mod tests;

pub use drills::{drills_subject, drills_text};
pub use run::run_text;
pub use subject::run_subject;
