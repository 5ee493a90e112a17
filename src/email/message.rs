//! Builds the mail and its envelope.

use anyhow::{Context, Result};
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};

use super::connection::Reply;

const NEEDS_SMTPUTF8: &str = "the server takes no address that is not ASCII (SMTPUTF8)";

/// What a mail says.
#[derive(Clone, Debug, Default)]
pub struct MailContent {
    pub subject: String,
    pub text: String,
    /// The same as HTML, for programs that show it.
    pub html: Option<String>,
}

/// From whom and to whom, in addresses that the server takes.
pub struct Envelope {
    pub from: Address,
    sender: Mailbox,
    /// For each recipient its address, or why the server does not take it.
    pub to: Vec<Result<Mailbox, String>>,
}

impl Envelope {
    /// # Errors
    /// When the server does not take the sender's address.
    pub fn new(
        from: &Mailbox,
        to: &[(String, Mailbox)],
        takes_utf8: bool,
    ) -> Result<Envelope, String> {
        let usable = |mailbox: &Mailbox| {
            let mailbox = with_ascii_domain(mailbox);
            match takes_utf8 || is_ascii(&mailbox.email) {
                true => Ok(mailbox),
                false => Err(format!("cannot use {}: {NEEDS_SMTPUTF8}", mailbox.email)),
            }
        };
        let sender = usable(from)?;
        Ok(Envelope {
            from: sender.email.clone(),
            sender,
            to: to.iter().map(|(_, mailbox)| usable(mailbox)).collect(),
        })
    }

    /// Returns the parameters of the command MAIL. An address that is not ASCII is in
    /// the head of the mail, too.
    pub fn parameters(&self, hello: &Reply) -> &'static str {
        let mut recipients = self.to.iter().flatten();
        let is_plain = is_ascii(&self.from) && recipients.all(|to| is_ascii(&to.email));
        match (is_plain, hello.offers("8BITMIME")) {
            (true, _) => "",
            (false, true) => " SMTPUTF8 BODY=8BITMIME",
            (false, false) => " SMTPUTF8",
        }
    }
}

fn is_ascii(address: &Address) -> bool {
    AsRef::<str>::as_ref(address).is_ascii()
}

/// Writes the domain as the domain name system has it, which every server takes.
fn with_ascii_domain(mailbox: &Mailbox) -> Mailbox {
    let address = &mailbox.email;
    let ascii = idna::domain_to_ascii(address.domain()).ok();
    let email = ascii.and_then(|domain| Address::new(address.user(), domain).ok());
    Mailbox::new(
        mailbox.name.clone(),
        email.unwrap_or_else(|| address.clone()),
    )
}

/// Returns the mail as it is sent: plain text, in 7 bits if it is ASCII, and with HTML
/// two alternatives (RFC 2046, 5.1.4), of which a program shows the last one that it can.
/// A header marks it as made by a program, so that no program answers it (RFC 3834).
pub fn format(envelope: &Envelope, content: &MailContent) -> Result<Vec<u8>> {
    let charset = match content.text.is_ascii() {
        true => "us-ascii",
        false => "utf-8",
    };
    let plain = ContentType::parse(&format!("text/plain; charset={charset}"))
        .context("cannot set the content type")?;
    let auto_submitted = HeaderName::new_from_ascii_str("Auto-Submitted");
    let mut builder = Message::builder()
        .from(envelope.sender.clone())
        .subject(single_line(&content.subject))
        .date_now()
        .message_id(None)
        .header(MIME_VERSION_1_0)
        .raw_header(HeaderValue::new(
            auto_submitted,
            "auto-generated".to_owned(),
        ));
    for to in envelope.to.iter().flatten() {
        builder = builder.to(to.clone());
    }
    let text = content.text.clone();
    let message = match &content.html {
        None => builder.header(plain).body(text),
        Some(html) => builder.multipart(
            MultiPart::alternative()
                .singlepart(SinglePart::builder().header(plain).body(text))
                .singlepart(SinglePart::html(html.clone())),
        ),
    };
    Ok(message.context("cannot build the mail")?.formatted())
}

fn single_line(subject: &str) -> String {
    subject.replace(|char: char| char.is_control(), " ")
}
