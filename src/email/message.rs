//! Builds the mail.

use anyhow::{Context, Result};
use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};

use crate::config::Email;
use crate::config::email::mailbox;

/// Returns the mail as it is sent: plain text, in 7 bits if the body is ASCII. A
/// header marks it as made by a program, so that no program answers it (RFC
/// 3834).
pub fn format(config: &Email, subject: &str, body: &str) -> Result<Vec<u8>> {
    let charset = if body.is_ascii() { "us-ascii" } else { "utf-8" };
    let content_type = format!("text/plain; charset={charset}");
    let auto_submitted = HeaderName::new_from_ascii_str("Auto-Submitted");
    let mut builder = Message::builder()
        .from(mailbox(&config.from)?)
        .subject(single_line(subject))
        .date_now()
        .message_id(None)
        .header(MIME_VERSION_1_0)
        .header(ContentType::parse(&content_type).context("cannot set the content type")?)
        .raw_header(HeaderValue::new(
            auto_submitted,
            "auto-generated".to_owned(),
        ));
    for to in &config.to {
        builder = builder.to(mailbox(to)?);
    }
    let message = builder
        .body(body.to_owned())
        .context("cannot build the mail")?;
    Ok(message.formatted())
}

fn single_line(subject: &str) -> String {
    subject.replace(|char: char| char.is_control(), " ")
}
