//! Sends the queued messages of one channel, in their order.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::message::Message;
use super::queue::{NewsQueue, Stored};
use super::target::NewsTarget;
use crate::email::Undelivered;
use crate::outcome::{ChannelOutcome, ChannelStatus};
use crate::sys::signals;
use crate::sys::time::OffsetTime;

const HOUR_SECS: i64 = 3600;
/// After this time a message is given up, as mail servers do. It must have been tried a
/// few times, because the clock may have been wrong.
const GIVE_UP_SECS: i64 = 5 * 24 * HOUR_SECS;
const GIVE_UP_TRIES: u32 = 5;
/// A heartbeat that comes later says that all is well at a time of which nothing is
/// known.
const STALE_HEARTBEAT_SECS: i64 = 12 * HOUR_SECS;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub struct Courier<'a> {
    pub target: &'a NewsTarget,
    pub queue: &'a NewsQueue,
    /// The pauses between attempts. When they are used up, or as much time has passed as
    /// they take together, the message stays queued.
    pub pauses: &'a [Duration],
}

/// What is known of the messages of one call.
#[derive(Default)]
struct Round {
    /// Could not be written to the queue.
    unqueued: Vec<Stored>,
    /// Files that are left alone: the server does not want the message, and that does not
    /// hold up the others; or it was sent, and cannot be removed.
    passed_over: BTreeSet<PathBuf>,
    was_tried: bool,
    has_lost: bool,
    /// An error that a later success does not mend.
    lasting: Option<String>,
    /// The last failure of a message that is tried again.
    passing: Option<String>,
}

impl Courier<'_> {
    /// Sends what is queued, and then `unqueued`, which could not be written to the
    /// queue. Returns `None` if there was nothing to send.
    pub fn work(&self, unqueued: Vec<Stored>) -> Option<ChannelOutcome> {
        let mut round = Round {
            unqueued,
            ..Round::default()
        };
        let mut pauses = self.pauses.iter();
        let retry_until = Instant::now() + self.pauses.iter().sum::<Duration>();
        while let Some(stored) = self.next(&round) {
            if is_stale(&stored.message, &OffsetTime::now()) {
                self.give_up(&stored, &mut round);
                continue;
            }
            round.was_tried = true;
            let Err(undelivered) = self.target.send(&stored.message) else {
                round.passing = None;
                round.remove(&stored, self.queue.remove(&stored));
                continue;
            };
            tracing::warn!(channel = self.target.name(), "{}", undelivered.reason);
            let is_temporary = undelivered.is_temporary;
            self.keep(stored, undelivered, &mut round);
            let mut may_wait =
                || Instant::now() < retry_until && pauses.next().is_some_and(|p| wait(*p));
            if is_temporary && round.passing.is_some() && !may_wait() {
                break;
            }
        }
        self.outcome(round)
    }

    /// Notes why a message was not delivered, and keeps it for those who are to get it
    /// still.
    fn keep(&self, mut stored: Stored, undelivered: Undelivered, round: &mut Round) {
        let Undelivered {
            reason,
            is_temporary,
            missing,
        } = undelivered;
        let is_mail = stored.message.kind.is_none();
        if is_mail && missing.is_empty() {
            // Whoever else is to get it has it.
            round.lasting = Some(reason);
            round.remove(&stored, self.queue.remove(&stored));
            return;
        }
        stored.message.to = is_mail.then_some(missing);
        stored.message.try_count += 1;
        stored.message.last_error = Some(reason.clone());
        if let Err(error) = self.queue.update(&stored) {
            tracing::error!("{error:#}");
        }
        match (is_temporary, stored.path) {
            (true, _) => round.passing = Some(reason),
            (false, Some(path)) => {
                round.lasting = Some(reason);
                round.passed_over.insert(path);
            }
            (false, None) => {
                round.lasting = Some(reason);
                round.has_lost = true;
                round.unqueued.remove(0);
            }
        }
    }

    fn next(&self, round: &Round) -> Option<Stored> {
        let queued = self.queue.messages_of(self.target.name());
        let queued = queued.unwrap_or_else(|error| {
            tracing::error!("{error:#}");
            Vec::new()
        });
        let is_open = |stored: &Stored| {
            let path = stored.path.as_ref();
            path.is_some_and(|path| !round.passed_over.contains(path))
        };
        let queued = queued.into_iter().find(is_open);
        queued.or_else(|| round.unqueued.first().cloned())
    }

    fn give_up(&self, stored: &Stored, round: &mut Round) {
        let title = &stored.message.title;
        tracing::warn!(channel = self.target.name(), title, "giving up a message");
        if !stored.message.is_heartbeat() {
            round.was_tried = true;
            round.has_lost = true;
            let error = stored.message.last_error.clone();
            round.lasting = Some(error.unwrap_or_else(|| "given up".to_owned()));
        }
        round.remove(stored, self.queue.give_up(stored));
    }

    fn outcome(&self, round: Round) -> Option<ChannelOutcome> {
        if !round.was_tried {
            return None;
        }
        let waiting = self.queue.messages_of(self.target.name());
        let status = match waiting {
            _ if round.has_lost || !round.unqueued.is_empty() => ChannelStatus::Lost,
            Ok(waiting) if !waiting.is_empty() => ChannelStatus::Waiting,
            _ => ChannelStatus::Sent,
        };
        Some(ChannelOutcome {
            channel: self.target.name().to_owned(),
            status,
            error: round.lasting.or(round.passing),
        })
    }
}

impl Round {
    /// Forgets a message that was removed from the queue. One that could not be removed
    /// must not be sent once more by this call, and so without end.
    fn remove(&mut self, stored: &Stored, removed: Result<()>) {
        match (&stored.path, removed) {
            (None, _) => {
                self.unqueued.remove(0);
            }
            (Some(path), Err(error)) => {
                tracing::error!("{error:#}");
                self.lasting = Some(format!("{error:#}"));
                self.passed_over.insert(path.clone());
            }
            (Some(_), Ok(())) => {}
        }
    }
}

/// Whether a message is not to be sent any more.
fn is_stale(message: &Message, now: &OffsetTime) -> bool {
    let age_secs = now.duration_since(&message.queued).as_secs();
    match message.is_good_heartbeat() {
        true => age_secs > STALE_HEARTBEAT_SECS,
        false => age_secs > GIVE_UP_SECS && message.try_count >= GIVE_UP_TRIES,
    }
}

/// Returns whether the pause has passed; a signal ends it.
fn wait(pause: Duration) -> bool {
    let deadline = Instant::now() + pause;
    while Instant::now() < deadline {
        if signals::received().is_some() {
            return false;
        }
        sleep(POLL_INTERVAL.min(pause));
    }
    true
}
