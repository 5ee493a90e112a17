//! Messages on disk until they are sent, and what each channel was told.
//!
//! A message is written before it is sent, and removed afterwards. A process that is
//! killed between the two sends it a second time, and loses none.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::condition::Memory;
use super::message::{Lost, Message};
use crate::sys::durable::create_dir_durably;
use crate::sys::state_file::{self, State};

/// The most messages that wait for one channel. The oldest is given up for a new one.
const MAX_MESSAGES: usize = 30;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A message, and its file; `None` if it could not be written.
#[derive(Clone, Debug)]
pub struct Stored {
    pub path: Option<PathBuf>,
    pub message: Message,
}

/// The messages of all channels, in a directory of the state directory.
#[derive(Clone, Debug)]
pub struct NewsQueue {
    state_dir: PathBuf,
}

/// What the channels were told.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    format_version: u32,
    pub channels: BTreeMap<String, ToldChannel>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldChannel {
    pub run: Option<Memory>,
    pub drills: Option<Memory>,
    /// Messages that were given up, of which the next one tells.
    pub lost: Option<Lost>,
}

impl State for Told {
    const NAME: &'static str = "what the channels were told";
    const FORMAT_VERSION: u32 = 1;
}

impl NewsQueue {
    pub fn of(state_dir: &Path) -> NewsQueue {
        NewsQueue {
            state_dir: state_dir.to_owned(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.state_dir.join("news")
    }

    fn told_path(&self) -> PathBuf {
        state_file::path(&self.state_dir, "news")
    }

    /// Returns what the channels were told.
    ///
    /// # Errors
    /// When the file cannot be read or parsed.
    pub fn told(&self) -> Result<Told> {
        Ok(state_file::read(&self.told_path())?.unwrap_or_default())
    }

    /// Returns all messages in their order. Files that cannot be read are left alone,
    /// since a newer program may have written them.
    pub fn messages(&self) -> Result<Vec<Stored>> {
        let mut messages = Vec::new();
        for (_, path) in state_file::list(&self.dir())? {
            match state_file::read(&path) {
                Ok(Some(message)) => messages.push(Stored {
                    path: Some(path),
                    message,
                }),
                // Another process has sent it.
                Ok(None) => {}
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
        Ok(messages)
    }

    /// Returns the messages of one channel in their order.
    pub fn messages_of(&self, channel: &str) -> Result<Vec<Stored>> {
        let mut messages = self.messages()?;
        messages.retain(|stored| stored.message.channel == channel);
        Ok(messages)
    }

    /// Adds a message. A heartbeat replaces those before it, because only the last one
    /// means something; others are given up if too many wait.
    ///
    /// # Errors
    /// When it is not certain that the message is on stable storage.
    fn add(&self, message: Message, told: &mut Told) -> Result<Stored> {
        create_dir_durably(&self.dir())?;
        let names = state_file::list(&self.dir())?;
        let numbers = names.iter().filter_map(|(name, _)| number(name));
        let name = format!("{:010}-{}", numbers.max().unwrap_or(0) + 1, message.channel);
        let path = state_file::path(&self.dir(), &name);
        let before = self.messages_of(&message.channel)?;
        state_file::write(&path, &message)?;
        let room = match message.is_heartbeat() {
            true => 0,
            false => MAX_MESSAGES - 1,
        };
        for old in before.iter().take(before.len().saturating_sub(room)) {
            if !message.is_heartbeat() {
                note_lost(told, &old.message);
            }
            self.remove(old)?;
        }
        Ok(Stored {
            path: Some(path),
            message,
        })
    }

    /// Replaces a message that could not be sent.
    pub fn update(&self, stored: &Stored) -> Result<()> {
        match &stored.path {
            Some(path) => state_file::write(path, &stored.message),
            None => Ok(()),
        }
    }

    /// Removes a message that was sent.
    pub fn remove(&self, stored: &Stored) -> Result<()> {
        match &stored.path {
            Some(path) => state_file::remove(path),
            None => Ok(()),
        }
    }

    /// Removes a message that is not tried again. The next one tells of it.
    pub fn give_up(&self, stored: &Stored) -> Result<()> {
        if !stored.message.is_heartbeat() {
            self.change(|_, told| {
                note_lost(told, &stored.message);
                Ok(())
            })?;
        }
        self.remove(stored)
    }

    /// Changes what was told, and adds messages, while no other process does.
    ///
    /// # Errors
    /// Those of `act`, and when the lock cannot be taken.
    pub fn change<T>(
        &self,
        act: impl FnOnce(&mut Adding<'_>, &mut Told) -> Result<T>,
    ) -> Result<T> {
        let _lock = self.lock("news.lock", None)?;
        let path = self.told_path();
        let mut told = state_file::read(&path).unwrap_or_else(|error| {
            // Something is told twice then.
            tracing::warn!("{error:#}");
            None
        });
        let told = told.get_or_insert_default();
        let result = act(&mut Adding(self), told)?;
        told.format_version = Told::FORMAT_VERSION;
        if let Err(error) = state_file::write(&path, told) {
            // The messages are in the queue, or with the caller. Something may be told
            // twice.
            tracing::error!("{error:#}");
        }
        Ok(result)
    }

    /// Returns the lock of the process that sends. Waits for it until `deadline`.
    ///
    /// # Errors
    /// When another process has it still.
    pub fn lock_sending(&self, deadline: Instant) -> Result<Flock<File>> {
        self.lock("sending.lock", Some(deadline))
    }

    fn lock(&self, name: &str, deadline: Option<Instant>) -> Result<Flock<File>> {
        create_dir_durably(&self.state_dir)?;
        let path = self.state_dir.join(name);
        let context = || format!("cannot lock {}", path.display());
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).with_context(context)?;
        let argument = match deadline {
            Some(_) => FlockArg::LockExclusiveNonblock,
            None => FlockArg::LockExclusive,
        };
        loop {
            file = match (Flock::lock(file, argument), deadline) {
                (Ok(lock), _) => return Ok(lock),
                (Err((file, nix::errno::Errno::EWOULDBLOCK)), Some(deadline)) => {
                    if Instant::now() >= deadline {
                        return Err(anyhow!("another command is still sending"));
                    }
                    file
                }
                (Err((file, nix::errno::Errno::EINTR)), _) => file,
                (Err((_, errno)), _) => return Err(anyhow!(errno)).with_context(context),
            };
            sleep(POLL_INTERVAL);
        }
    }

    /// Removes the files that cannot be read and are older than `age`.
    pub fn remove_unreadable(&self, age: Duration) {
        for (_, path) in state_file::list(&self.dir()).unwrap_or_default() {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let is_old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed > age));
            if is_old && state_file::read::<Message>(&path).is_err() {
                tracing::warn!(path = %path.display(), "removing a message that cannot be read");
                let _ = state_file::remove(&path);
            }
        }
    }
}

/// A queue to which messages may be added.
pub struct Adding<'a>(&'a NewsQueue);

impl Adding<'_> {
    /// Adds a message; if that fails, it is returned with the error.
    pub fn add(&self, message: Message, told: &mut Told) -> (Stored, Option<anyhow::Error>) {
        match self.0.add(message.clone(), told) {
            Ok(stored) => (stored, None),
            Err(error) => (
                Stored {
                    path: None,
                    message,
                },
                Some(error),
            ),
        }
    }
}

fn note_lost(told: &mut Told, message: &Message) {
    let channel = told.channels.entry(message.channel.clone()).or_default();
    channel.lost = Some(Lost::add(channel.lost.take(), message));
}

fn number(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}
