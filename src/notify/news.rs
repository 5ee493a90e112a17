//! What there is to tell, and the message that a channel gets of it.

use anyhow::Result;
use serde_json::json;

use super::condition::{Condition, Level, Occasion};
use super::message::{Lost, Message, bounded, html_beside};
use super::target::{NewsTarget, gotify_json};
use crate::config::{ChannelKind, MailLog};
use crate::outcome::{DrillOutcome, RunOutcome};
use crate::report;
use crate::sys::state_file::State as _;
use crate::sys::time::OffsetTime;

/// A longer JSON text is sent without the log.
const MAX_JSON_BYTES: usize = 256 * 1024;

pub enum News<'a> {
    Run(&'a RunOutcome),
    /// The drills of all stacks. Mail and notifications tell of them; monitors and
    /// `webhook` are for runs.
    Drills {
        results: &'a [DrillOutcome],
        host: &'a str,
        started: &'a OffsetTime,
    },
}

impl News<'_> {
    pub fn condition(&self) -> Condition {
        match self {
            News::Run(run) => Condition::of_run(run),
            News::Drills { results, .. } => Condition::of_drills(results),
        }
    }

    pub fn concerns(&self, target: &NewsTarget) -> bool {
        match (self, target.kind()) {
            (News::Run(_), _) => true,
            (News::Drills { .. }, kind) => matches!(
                kind,
                None | Some(ChannelKind::Ntfy) | Some(ChannelKind::Gotify)
            ),
        }
    }

    /// Returns the message for a channel.
    pub fn message(
        &self,
        target: &NewsTarget,
        level: Level,
        occasion: &Occasion,
        lost: Option<Lost>,
    ) -> Result<Message> {
        let mut notices = Vec::new();
        if let Occasion::Reminder { since } = occasion {
            let since = since.strftime("%F %H:%M");
            notices.push(format!("REMINDER: the same fails since {since}"));
        }
        notices.extend(lost.as_ref().map(Lost::text));
        let title = self.title(target);
        let text = match target.kind() {
            Some(ChannelKind::Gotify) => gotify_json(level, &title, &self.brief(&notices)),
            Some(ChannelKind::Webhook) => self.json(&notices)?,
            Some(ChannelKind::Ntfy | ChannelKind::UptimeKuma) => self.brief(&notices),
            Some(ChannelKind::Healthchecks) => self.report(&notices, true),
            None => self.report(&notices, self.has_log(target, level)),
        };
        let html = target.wants_html().then(|| {
            let html = self.html(&notices, self.has_log(target, level));
            html_beside(&text, html)
        });
        Ok(Message {
            format_version: Message::FORMAT_VERSION,
            channel: target.name().to_owned(),
            kind: target.kind(),
            queued: OffsetTime::now(),
            level,
            title,
            text: bounded(text),
            html: html.flatten(),
            run_id: match self {
                News::Run(run) => Some(run_id(run)),
                News::Drills { .. } => None,
            },
            to: None,
            lost,
            try_count: 0,
            last_error: None,
        })
    }

    fn title(&self, target: &NewsTarget) -> String {
        let tag = match target {
            NewsTarget::Mail(email) => &*email.subject_tag,
            NewsTarget::Web(_) => "",
        };
        match self {
            News::Run(run) => report::run_subject(run, tag),
            News::Drills { results, host, .. } => report::drills_subject(results, host, tag),
        }
    }

    fn has_log(&self, target: &NewsTarget, level: Level) -> bool {
        let NewsTarget::Mail(email) = target else {
            return false;
        };
        match email.log {
            MailLog::Always => true,
            MailLog::Failure => level >= Level::Failure,
            MailLog::Never => false,
        }
    }

    fn report(&self, notices: &[String], with_log: bool) -> String {
        match self {
            News::Run(run) => report::mail_text(run, notices, with_log),
            News::Drills {
                results,
                host,
                started,
            } => report::drills_text(results, host, started, notices),
        }
    }

    /// Returns the same as HTML.
    fn html(&self, notices: &[String], with_log: bool) -> String {
        match self {
            News::Run(run) => report::mail_html(run, notices, with_log),
            News::Drills {
                results,
                host,
                started,
            } => report::drills_html(results, host, started, notices),
        }
    }

    fn brief(&self, notices: &[String]) -> String {
        match self {
            News::Run(run) => report::brief_text(run, notices),
            News::Drills { results, .. } => report::drills_brief(results, notices),
        }
    }

    fn json(&self, notices: &[String]) -> Result<String> {
        let News::Run(run) = self else {
            return Ok(String::new());
        };
        let mut value = serde_json::to_value(run)?;
        value["notices"] = json!(notices);
        let text = value.to_string();
        if text.len() <= MAX_JSON_BYTES {
            return Ok(text);
        }
        value["log"] = json!([]);
        let text = value.to_string();
        if text.len() <= MAX_JSON_BYTES {
            return Ok(text);
        }
        // What was cut would not be JSON.
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, field| !field.is_array() && !field.is_object());
            fields.insert("isCut".to_owned(), json!(true));
        }
        Ok(value.to_string())
    }
}

/// Returns an id of the run in the form of a UUID. `recover` makes the same of the
/// outcome that a killed run has left.
pub fn run_id(run: &RunOutcome) -> String {
    let hash = blake3::hash(format!("{}\n{}", run.host, run.started).as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    // Version 4 and the usual variant (RFC 9562).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
