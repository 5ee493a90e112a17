//! A message as it is queued: complete but for the address, which is a secret.

use serde::{Deserialize, Serialize};

use super::condition::Level;
use crate::config::ChannelKind;
use crate::sys::state_file::State;
use crate::sys::time::OffsetTime;

/// The longest text of a message. What is cut is in the report of the run.
const MAX_TEXT_BYTES: usize = 512 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub format_version: u32,
    pub channel: String,
    /// `None` for mail.
    pub kind: Option<ChannelKind>,
    pub queued: OffsetTime,
    pub level: Level,
    pub title: String,
    pub text: String,
    /// The same as HTML, for a mail that is to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Tells a heartbeat to which start it belongs.
    pub run_id: Option<String>,
    /// The recipients of a mail who have not got it yet; `None` for all.
    pub to: Option<Vec<String>>,
    /// Earlier messages that this one tells to be lost.
    pub lost: Option<Lost>,
    pub try_count: u32,
    pub last_error: Option<String>,
}

/// Messages that were given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    pub count: u64,
    /// When the first of them was queued.
    pub since: OffsetTime,
    /// Why the last one could not be sent.
    pub error: String,
}

impl State for Message {
    const NAME: &'static str = "the queued message";
    const FORMAT_VERSION: u32 = 1;
}

impl Lost {
    /// Adds a message that was given up to those before.
    pub fn add(before: Option<Lost>, message: &Message) -> Lost {
        let carried = message.lost.as_ref();
        let counts = [before.as_ref(), carried].into_iter().flatten();
        let first = [before.as_ref(), carried].into_iter().flatten().next();
        Lost {
            count: 1 + counts.map(|lost| lost.count).sum::<u64>(),
            since: first.map_or(&message.queued, |lost| &lost.since).clone(),
            error: message.last_error.clone().unwrap_or_default(),
        }
    }

    /// Returns the sentence that the next message begins with.
    pub fn text(&self) -> String {
        let (messages, were) = match self.count {
            1 => ("1 message".to_owned(), "was"),
            n => (format!("{n} messages"), "were"),
        };
        let since = self.since.strftime("%F %H:%M");
        format!(
            "LOST: {messages} of {since} or later {were} not delivered: {}",
            self.error
        )
    }
}

impl Message {
    /// Whether it says that all is well. Late, that would be wrong.
    pub fn is_good_heartbeat(&self) -> bool {
        self.is_heartbeat() && self.level < Level::Failure
    }

    pub fn is_heartbeat(&self) -> bool {
        self.kind.is_some_and(ChannelKind::is_heartbeat)
    }
}

/// Returns the HTML that is sent beside a text. There is none if either is too long, since
/// what is cut would not be HTML, and both say the same.
pub fn html_beside(text: &str, html: String) -> Option<String> {
    (text.len().max(html.len()) <= MAX_TEXT_BYTES).then_some(html)
}

/// Cuts a text that is too long for the queue.
pub fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("\n...\n");
    }
    text
}
