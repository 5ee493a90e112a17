//! Reports of runs and drills as text, and the state of all as a page. Pure functions: the same outcome always
//! gives the same text.

mod details;
mod drills;
mod html;
mod page;
mod run;
mod subject;
#[cfg(test)]
mod tests;

pub use drills::{drills_brief, drills_html, drills_subject, drills_text};
pub use html::{HtmlArchive, HtmlReport, HtmlStack, html_page};
pub use run::{brief_text, mail_html, mail_text, run_text};
pub use subject::{on_host, run_subject, subject_line};
