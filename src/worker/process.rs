//! A worker's process, as the watch sees it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::stuck;
use super::{Message, Order};

/// The program that runs now, even if its file was replaced meanwhile.
const PROGRAM: &str = "/proc/self/exe";
/// The hidden command by which it becomes a worker.
pub const COMMAND: &str = "worker";
/// How long a worker that has nothing left to do may take to end.
const END_WAIT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub(super) struct Worker {
    child: Child,
    stdin: ChildStdin,
    messages: Receiver<Message>,
}

/// What was heard of a worker.
pub(super) enum Heard {
    Message(Message),
    Nothing,
    /// It has closed its stdout.
    End,
}

impl Worker {
    /// Starts a worker. Must be called by the main thread: the kernel kills the worker
    /// when the thread that started it ends.
    ///
    /// # Errors
    /// When there is no room for a process or a thread.
    pub(super) fn start(order: &Order) -> Result<Worker> {
        let mut child = Command::new(PROGRAM)
            .arg0(env!("CARGO_PKG_NAME"))
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A signal of the terminal is for the watch.
            .process_group(0)
            .spawn()
            .context("cannot start a process for the backup")?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are pipes");
        };
        let (sender, messages) = mpsc::channel();
        let reader = thread::Builder::new().spawn(move || read_messages(stdout, &sender));
        let mut worker = Worker {
            child,
            stdin,
            messages,
        };
        let ordered = reader.map(drop).and_then(|()| {
            let mut line = serde_json::to_vec(order)?;
            line.push(b'\n');
            worker.stdin.write_all(&line)
        });
        if let Err(error) = ordered {
            worker.kill();
            return Err(error).context("cannot use a process for the backup");
        }
        Ok(worker)
    }

    pub(super) fn hear(&self, wait: Duration) -> Heard {
        match self.messages.recv_timeout(wait) {
            Ok(message) => Heard::Message(message),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// Hands a signal on. A worker that has ended does not need it.
    pub(super) fn signal(&mut self, number: i32) {
        let _ = writeln!(self.stdin, "{number}");
    }

    /// Waits for the end of a worker that has said that it is done, or whose stdout is
    /// closed. Returns how it ended; `None` if it does not end.
    pub(super) fn end(&mut self) -> Option<String> {
        let deadline = Instant::now() + END_WAIT;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
                Ok(None) => {
                    self.kill();
                    return None;
                }
                Ok(Some(status)) => return Some(status.to_string()),
                Err(error) => return Some(error.to_string()),
            }
        }
    }

    /// Returns the path that the worker waits for, if that can be told.
    pub(super) fn waits_for(&self) -> Option<String> {
        stuck::path_waited_for(self.child.id())
    }

    /// Kills the worker. It may still wait for what cannot be interrupted, and ends when
    /// that does; its other threads end at once. So it is not waited for.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

fn read_messages(stdout: ChildStdout, messages: &Sender<Message>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(message) = line.map_err(drop).and_then(|line| {
            serde_json::from_str(&line).map_err(|error| {
                tracing::error!("a worker said what cannot be understood: {error}");
            })
        }) else {
            return;
        };
        if messages.send(message).is_err() {
            return;
        }
    }
}
