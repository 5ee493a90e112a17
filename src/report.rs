//! Renders what a run did. Pure: the same outcome gives the same text.

mod details;
mod drills;
mod format;
mod headline;
#[cfg(test)]
mod tests;
mod text;

pub use details::phase_name;
pub use drills::{drills_subject, drills_text};
pub use format::{ascii, human_bytes, human_duration};
pub use headline::subject;
pub use text::text;
