//! A channel, and how a message is sent on it.

use std::time::Duration;

use serde_json::json;

use super::condition::Level;
use super::message::Message;
use super::web::{ChannelAddress, OutgoingRequest};
use crate::config::plan::Plan;
use crate::config::{Channel, ChannelKind, Email, When, notify::MAIL_CHANNEL};
use crate::email::{self, MailContent, Undelivered};
use crate::sys::secret::credentials_dir;

/// The longest text in a push of Uptime Kuma, which is a part of the URL.
const MAX_KUMA_LENGTH: usize = 200;

#[derive(Clone)]
pub enum NewsTarget {
    Mail(Email),
    Web(Channel),
}

impl NewsTarget {
    /// Returns the configured channels; mail is the first.
    pub fn all(plan: &Plan) -> Vec<NewsTarget> {
        let mail = plan.email.clone().map(NewsTarget::Mail);
        let others = plan.notify.iter().cloned().map(NewsTarget::Web);
        mail.into_iter().chain(others).collect()
    }

    pub fn name(&self) -> &str {
        match self {
            NewsTarget::Mail(_) => MAIL_CHANNEL,
            NewsTarget::Web(channel) => channel.name(),
        }
    }

    pub fn kind(&self) -> Option<ChannelKind> {
        match self {
            NewsTarget::Mail(_) => None,
            NewsTarget::Web(channel) => Some(channel.kind),
        }
    }

    pub fn when(&self) -> When {
        match self {
            NewsTarget::Mail(email) => email.when,
            NewsTarget::Web(channel) => channel.when(),
        }
    }

    pub fn remind_days(&self) -> u32 {
        match self {
            NewsTarget::Mail(email) => email.remind_days,
            NewsTarget::Web(channel) => channel.remind_days,
        }
    }

    /// Whether a message has its text a second time, as HTML.
    pub fn wants_html(&self) -> bool {
        matches!(self, NewsTarget::Mail(email) if email.html)
    }

    /// How long one attempt takes at most.
    pub fn attempt_limit(&self) -> Duration {
        match self {
            NewsTarget::Mail(email) => email::total_timeout(email),
            NewsTarget::Web(channel) => Duration::from_secs(channel.timeout.into()),
        }
    }

    /// Returns the same channel with a lower limit for an attempt.
    pub fn with_timeout(mut self, limit: Duration) -> NewsTarget {
        let limit_secs = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
        match &mut self {
            NewsTarget::Mail(email) => email.timeout = email.timeout.min(limit_secs),
            NewsTarget::Web(channel) => channel.timeout = channel.timeout.min(limit_secs),
        }
        self
    }

    /// Sends a message, and waits until the server has accepted it.
    ///
    /// # Errors
    /// They contain no secret.
    pub fn send(&self, message: &Message) -> Result<(), Undelivered> {
        match self {
            NewsTarget::Mail(email) => {
                let to = message.to.clone().unwrap_or_else(|| email.to.clone());
                let email = Email {
                    to,
                    ..email.clone()
                };
                let content = MailContent {
                    subject: message.title.clone(),
                    text: message.text.clone(),
                    html: message.html.clone(),
                };
                email::send(&email, content)
            }
            NewsTarget::Web(channel) => push(channel, &request(channel.kind, message)),
        }
    }

    /// Sends a message to try the channel. It changes no state of a monitor that can
    /// take it otherwise.
    pub fn send_test(&self, message: &Message) -> Result<(), Undelivered> {
        match self {
            NewsTarget::Web(channel) if channel.kind == ChannelKind::Healthchecks => {
                push(channel, &ping("/log", message))
            }
            _ => self.send(message),
        }
    }

    /// Tells a monitor that measures durations that a run has begun.
    pub fn send_start(&self, run_id: &str) -> Option<Result<(), Undelivered>> {
        match self {
            NewsTarget::Web(channel) if channel.kind == ChannelKind::Healthchecks => {
                let request = OutgoingRequest {
                    is_post: true,
                    suffix: "/start",
                    parameters: vec![("rid", run_id.to_owned())],
                    ..OutgoingRequest::default()
                };
                Some(push(channel, &request))
            }
            _ => None,
        }
    }
}

fn push(channel: &Channel, request: &OutgoingRequest<'_>) -> Result<(), Undelivered> {
    let address = ChannelAddress::load(channel, credentials_dir().as_deref());
    let address = address.map_err(|error| Undelivered {
        reason: format!("{error:#}"),
        is_temporary: false,
        missing: Vec::new(),
    })?;
    let timeout = Duration::from_secs(channel.timeout.into());
    address.send(request, channel.ca_file.as_deref(), timeout)
}

fn request(kind: ChannelKind, message: &Message) -> OutgoingRequest<'_> {
    match kind {
        ChannelKind::Healthchecks => match message.level {
            Level::Ok | Level::Warning => ping("", message),
            Level::Failure | Level::Down => ping("/fail", message),
        },
        ChannelKind::UptimeKuma => {
            let status = match message.level {
                Level::Ok | Level::Warning => "up",
                Level::Failure | Level::Down => "down",
            };
            let text: String = message.title.chars().take(MAX_KUMA_LENGTH).collect();
            OutgoingRequest {
                parameters: vec![("status", status.to_owned()), ("msg", text)],
                ..OutgoingRequest::default()
            }
        }
        ChannelKind::Ntfy => {
            let (priority, tag) = match message.level {
                Level::Ok => ("2", "white_check_mark"),
                Level::Warning => ("3", "warning"),
                Level::Failure => ("4", "x"),
                Level::Down => ("5", "rotating_light"),
            };
            OutgoingRequest {
                is_post: true,
                headers: vec![
                    ("Title", message.title.clone()),
                    ("Priority", priority.to_owned()),
                    ("Tags", tag.to_owned()),
                    ("Content-Type", "text/plain; charset=utf-8".to_owned()),
                ],
                body: &message.text,
                ..OutgoingRequest::default()
            }
        }
        ChannelKind::Gotify | ChannelKind::Webhook => OutgoingRequest {
            is_post: true,
            headers: vec![("Content-Type", "application/json".to_owned())],
            body: &message.text,
            ..OutgoingRequest::default()
        },
    }
}

fn ping<'a>(suffix: &'a str, message: &'a Message) -> OutgoingRequest<'a> {
    let run_id = message.run_id.iter();
    OutgoingRequest {
        is_post: true,
        suffix,
        parameters: run_id.map(|id| ("rid", id.clone())).collect(),
        headers: vec![("Content-Type", "text/plain; charset=utf-8".to_owned())],
        body: &message.text,
    }
}

/// Returns the text of a message for Gotify.
pub fn gotify_json(level: Level, title: &str, text: &str) -> String {
    let priority = match level {
        Level::Ok => 2,
        Level::Warning => 5,
        Level::Failure => 8,
        Level::Down => 10,
    };
    json!({ "title": title, "message": text, "priority": priority }).to_string()
}
