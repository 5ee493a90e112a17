//! Renders what a run did. Pure: the same outcome gives the same text.

mod details;
mod drills;
mod headline;
#[cfg(test)]
mod tests;
mod text;

pub use drills::{drills_subject, drills_text};
pub use headline::subject;
pub use text::text;
