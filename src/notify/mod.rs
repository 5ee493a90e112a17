//! News of runs and drills: decides who is told, queues the messages, and sends them by
//! mail and to the channels of `notify`.
//!
//! No channel keeps a run from ending, and none keeps another from being told: each has
//! a thread of its own, and all have a limit in total.

mod condition;
mod courier;
mod message;
mod news;
mod queue;
mod target;
#[cfg(test)]
mod tests;
mod web;

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::config::ChannelKind;
use crate::config::plan::Plan;
use crate::email;
use crate::outcome::{ChannelOutcome, ChannelStatus, RunOutcome};
use crate::report;
use crate::sys::format::count;
use crate::sys::secret::credentials_dir;
use crate::sys::state_file::State as _;
use crate::sys::time::OffsetTime;
use condition::{Condition, Level, Memory};
use courier::Courier;
use message::{Message, html_beside};
use news::run_id;
use queue::{Adding, NewsQueue, Stored, Told};
use target::NewsTarget;
use web::ChannelAddress;

pub use news::News;

/// The pauses between the attempts of one command. A mail server that greylists takes
/// the second one; one that is a stack itself needs some time after its start.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// For what takes time beside the attempts, and is not limited itself.
const SLACK: Duration = Duration::from_secs(10);
/// A start that is told this late would hold up the run.
const START_LIMIT: Duration = Duration::from_secs(10);
const UNREADABLE_AGE: Duration = Duration::from_secs(10 * 24 * 3600);

/// Messages that are queued, and are to be sent.
pub struct Outbox {
    targets: Vec<NewsTarget>,
    queue: NewsQueue,
    /// Those that could not be written to the queue, each with the reason.
    unqueued: Vec<(Stored, String)>,
}

/// Decides which channels are told, and queues their messages. From then on they are
/// not lost, even if this process is killed.
pub fn prepare(plan: &Plan, news: &News<'_>) -> Outbox {
    let mut outbox = Outbox {
        targets: NewsTarget::all(plan),
        queue: NewsQueue::of(&plan.state_dir),
        unqueued: Vec::new(),
    };
    if outbox.targets.is_empty() {
        return outbox;
    }
    let condition = news.condition();
    let prepared = outbox.queue.change(|adding, told| {
        let targets = outbox.targets.iter();
        let messages = targets
            .filter(|target| news.concerns(target))
            .filter_map(|target| {
                queue_message(target, news, &condition, Some(adding), told).transpose()
            });
        messages.collect::<Result<Vec<_>>>()
    });
    let unqueued = prepared.unwrap_or_else(|error| {
        // What was told is not known. Then every channel is told rather than none.
        tracing::error!("{error:#}");
        let targets = outbox.targets.iter();
        let messages = targets
            .filter(|target| news.concerns(target))
            .filter_map(|target| {
                let mut told = Told::default();
                let message = queue_message(target, news, &condition, None, &mut told);
                let (stored, _) = message.ok()??;
                Some((stored, format!("{error:#}")))
            });
        messages.collect()
    });
    outbox.unqueued = unqueued
        .into_iter()
        .filter(|(stored, _)| stored.path.is_none())
        .collect();
    outbox
}

/// Returns the message for a channel that is to be told, and why it is not in the queue.
fn queue_message(
    target: &NewsTarget,
    news: &News<'_>,
    condition: &Condition,
    adding: Option<&Adding<'_>>,
    told: &mut Told,
) -> Result<Option<(Stored, String)>> {
    let now = OffsetTime::now();
    let channel = told.channels.entry(target.name().to_owned()).or_default();
    let memory: &mut Option<Memory> = match news {
        News::Run(_) => &mut channel.run,
        News::Drills { .. } => &mut channel.drills,
    };
    let (when, remind_days) = (target.when(), target.remind_days());
    let mut occasion = condition.occasion(when, remind_days, memory.as_ref(), &now);
    if channel.lost.is_some() {
        // That something was lost is news.
        occasion = occasion.or(Some(condition::Occasion::News));
    }
    *memory = Some(condition.remembered(memory.as_ref(), occasion.is_some(), &now));
    let Some(occasion) = occasion else {
        return Ok(None);
    };
    let lost = channel.lost.take();
    let message = news.message(target, condition.level, &occasion, lost)?;
    let (stored, error) = match adding {
        Some(adding) => adding.add(message, told),
        None => (
            Stored {
                path: None,
                message,
            },
            None,
        ),
    };
    let error = error.map(|error| format!("{error:#}"));
    Ok(Some((stored, error.unwrap_or_default())))
}

impl Outbox {
    /// Sends all that is queued, and tries again for half a minute. Returns what
    /// became of it, for each channel that had something to send.
    pub fn send(self) -> Vec<ChannelOutcome> {
        self.send_with(&PAUSES)
    }

    fn send_with(self, pauses: &'static [Duration]) -> Vec<ChannelOutcome> {
        self.queue.remove_unreadable(UNREADABLE_AGE);
        let Outbox {
            targets,
            queue,
            unqueued,
        } = self;
        let limit =
            |target: &NewsTarget| pauses.iter().sum::<Duration>() + target.attempt_limit() + SLACK;
        let begun = Instant::now();
        let longest = targets.iter().map(limit).max().unwrap_or_default();
        let _sending = match queue.lock_sending(begun + longest) {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!("{error:#}");
                return Vec::new();
            }
        };
        let begun = Instant::now();
        let threads: Vec<_> = targets
            .into_iter()
            .map(|target| {
                let own = unqueued.iter();
                let own = own.filter(|(stored, _)| stored.message.channel == target.name());
                let (own, reasons): (Vec<Stored>, Vec<String>) = own.cloned().unzip();
                let deadline = begun + limit(&target);
                let queue = queue.clone();
                let thread = ChannelThread::start(target, move |target| {
                    let courier = Courier {
                        target,
                        queue: &queue,
                        pauses,
                    };
                    courier.work(own)
                });
                (thread, deadline, reasons)
            })
            .collect();
        let outcomes = threads
            .into_iter()
            .filter_map(|(thread, deadline, reasons)| {
                let (channel, outcome) = thread.receive(deadline);
                let outcome = outcome.unwrap_or_else(|error| {
                    tracing::warn!(channel, "{error:#}");
                    Some(ChannelOutcome {
                        channel,
                        status: ChannelStatus::Waiting,
                        error: Some(format!("{error:#}")),
                    })
                });
                Some(with_reason(outcome?, &reasons))
            });
        outcomes.collect()
    }
}

/// A thread in which a channel is told something. One that hangs is left running, and
/// ends with the process.
struct ChannelThread<T> {
    channel: String,
    answer: Result<mpsc::Receiver<T>>,
}

impl<T: Send + 'static> ChannelThread<T> {
    fn start(
        target: NewsTarget,
        work: impl FnOnce(&NewsTarget) -> T + Send + 'static,
    ) -> ChannelThread<T> {
        let channel = target.name().to_owned();
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name("news".to_owned());
        let started = thread.spawn(move || sender.send(work(&target)));
        ChannelThread {
            channel,
            answer: started.context("cannot start a thread").map(|_| receiver),
        }
    }

    /// Waits for the answer until `deadline`. Returns it with the channel's name.
    fn receive(self, deadline: Instant) -> (String, Result<T>) {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self.answer.and_then(|receiver| {
            let received = receiver.recv_timeout(left);
            received.map_err(|_| anyhow!("it was not done in time"))
        });
        (self.channel, answer)
    }
}

/// Adds why a message that was not sent is not in the queue either.
fn with_reason(mut outcome: ChannelOutcome, reasons: &[String]) -> ChannelOutcome {
    if let (ChannelStatus::Lost, Some(error), Some(reason)) =
        (outcome.status, &mut outcome.error, reasons.first())
    {
        *error = format!("{error}; and it cannot be kept: {reason}");
    }
    outcome
}

/// Sends what earlier commands have left in the queue.
pub fn send_queued(plan: &Plan) -> Vec<ChannelOutcome> {
    let outbox = Outbox {
        targets: NewsTarget::all(plan),
        queue: NewsQueue::of(&plan.state_dir),
        unqueued: Vec::new(),
    };
    outbox.send_with(&[])
}

/// Tells monitors that measure durations that the run has begun. It is not queued,
/// because it is worth nothing later.
pub fn begun(plan: &Plan, run: &RunOutcome) {
    let id = run_id(run);
    let deadline = Instant::now() + START_LIMIT;
    let threads: Vec<_> = NewsTarget::all(plan)
        .into_iter()
        .filter(|target| target.kind().is_some_and(ChannelKind::is_heartbeat))
        .map(|target| {
            let id = id.clone();
            ChannelThread::start(target.with_timeout(START_LIMIT), move |target| {
                if let Some(Err(undelivered)) = target.send_start(&id) {
                    tracing::warn!(channel = target.name(), "{}", undelivered.reason);
                }
            })
        })
        .collect();
    for thread in threads {
        // Its end is told all the same.
        let _ = thread.receive(deadline);
    }
}

/// Sends a test message on each channel, which is not queued. Returns what happened on
/// each, by its name.
pub fn test(plan: &Plan, last: Option<&RunOutcome>) -> Vec<(String, Result<()>)> {
    let begun = Instant::now();
    let targets = NewsTarget::all(plan).into_iter();
    let threads = targets.map(|target| {
        let message = test_message(&target, last);
        let deadline = begun + target.attempt_limit() + SLACK;
        let thread = ChannelThread::start(target, move |target| target.send_test(&message));
        (thread, deadline)
    });
    let threads: Vec<_> = threads.collect();
    let tested = threads.into_iter().map(|(thread, deadline)| {
        let (channel, sent) = thread.receive(deadline);
        let sent = sent.and_then(|sent| sent.map_err(|undelivered| anyhow!(undelivered.reason)));
        (channel, sent)
    });
    tested.collect()
}

fn test_message(target: &NewsTarget, last: Option<&RunOutcome>) -> Message {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let headline = format!(
        "TEST{}: this channel works",
        report::on_host(&host.to_string_lossy())
    );
    let level = last.map_or(Level::Ok, |run| Condition::of_run(run).level);
    let none = "There was no run yet.\n".to_owned();
    let brief = || last.map_or(none.clone(), |run| report::brief_text(run, &[]));
    let (title, text) = match target {
        NewsTarget::Mail(email) => (
            report::subject_line(&email.subject_tag, headline),
            last.map_or(none.clone(), |run| report::run_text(run, None)),
        ),
        NewsTarget::Web(channel) => {
            let text = match channel.kind {
                ChannelKind::Gotify => target::gotify_json(level, &headline, &brief()),
                ChannelKind::Webhook => {
                    serde_json::json!({ "test": true, "host": host.to_string_lossy() }).to_string()
                }
                _ => brief(),
            };
            (headline, text)
        }
    };
    let html = last.filter(|_| target.wants_html());
    Message {
        format_version: Message::FORMAT_VERSION,
        channel: target.name().to_owned(),
        kind: target.kind(),
        queued: OffsetTime::now(),
        level,
        title,
        html: html.and_then(|run| html_beside(&text, report::mail_html(run, &[], true))),
        text,
        run_id: None,
        to: None,
        lost: None,
        try_count: 0,
        last_error: None,
    }
}

/// Tries what can be tried without sending anything: logs in at the mail server, and
/// reads the addresses of the channels.
pub fn check(plan: &Plan) -> Vec<(String, Result<String>)> {
    let checked = NewsTarget::all(plan)
        .into_iter()
        .map(|target| match target {
            NewsTarget::Mail(email) => {
                let result =
                    email::try_login(&email).map(|()| format!("{} takes mail", email.host));
                ("email".to_owned(), result)
            }
            NewsTarget::Web(channel) => {
                let address = ChannelAddress::load(&channel, credentials_dir().as_deref());
                let result = address
                    .map(|address| format!("{} to {}", channel.kind.name(), address.origin()));
                (format!("notify {}", channel.name()), result)
            }
        });
    checked.collect()
}

/// Returns the channels that have messages waiting, or were not told of some that were
/// given up.
///
/// # Errors
/// When the queue cannot be read.
pub fn undelivered(plan: &Plan) -> Result<BTreeSet<String>> {
    let queue = NewsQueue::of(&plan.state_dir);
    let messages = queue.messages()?.into_iter();
    let waiting = messages.map(|stored| stored.message.channel);
    let told = queue.told()?.channels.into_iter();
    let lost = told.filter(|(_, channel)| channel.lost.is_some());
    Ok(waiting.chain(lost.map(|(name, _)| name)).collect())
}

/// Returns a line for each channel that has messages waiting.
///
/// # Errors
/// When the queue cannot be read.
pub fn waiting(plan: &Plan) -> Result<Vec<String>> {
    let messages = NewsQueue::of(&plan.state_dir).messages()?;
    let mut names: Vec<&str> = messages
        .iter()
        .map(|stored| &*stored.message.channel)
        .collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    let lines = names.into_iter().map(|name| {
        let own = messages.iter().map(|stored| &stored.message);
        let own: Vec<&Message> = own.filter(|message| message.channel == name).collect();
        let since = own[0].queued.strftime("%F %H:%M");
        let error = own[0].last_error.as_deref().unwrap_or("not tried yet");
        let count = count(own.len() as u64, "message");
        format!("{name}: {count} waiting since {since}: {error}")
    });
    Ok(lines.collect())
}
