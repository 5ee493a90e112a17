//! Reports of runs and drills as text. Pure functions: the same outcome always
//! gives the same text.

mod details;
mod drills;
mod page;
mod run;
mod subject;
#[cfg(test)]
mod tests;

pub use drills::{drills_brief, drills_subject, drills_text};
pub use run::{brief_text, mail_text, run_text};
pub use subject::{on_host, run_subject, subject_line};
