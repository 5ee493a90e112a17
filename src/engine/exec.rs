//! Processes in running containers, by the Engine's API for `exec`.
//!
//! The Engine has no request that ends such a process. It goes on when its client goes
//! away, until it ends by itself or its container does. Where the Engine's processes are
//! processes of this machine, they can be killed like any other.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};
use rustix::process::{self, PidfdFlags};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::Engine;
use super::api::{Api, RawExec};
use super::http::Received;
use crate::sys::process::{Exit, OUTPUT_LIMIT};
use crate::sys::progress;

/// How long output is waited for at a time.
const RECEIVE_WAIT: Duration = Duration::from_millis(100);
/// Pause between two looks at a process.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How often the Engine is asked about a process that prints nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a process that was killed may take to end, and how long the request to start
/// one may be under way after its client has died.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// How much output is kept.
const TAIL_BYTES: usize = 64 << 10;

/// What to run in a container.
pub struct ExecOptions<'a> {
    pub argv: &'a [String],
    /// Default: the container's own.
    pub user: Option<&'a str>,
    /// Added to the container's own, each as `NAME=value`.
    pub environment: &'a [String],
}

/// A process that is prepared in a container, runs there, or ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Exec(String);

/// What became of a process.
enum State {
    /// It is prepared only.
    Created,
    Running(RawExec),
    Ended(i64),
    /// The Engine does not know it: its container has ended.
    Gone,
}

impl Exec {
    /// Prepares a process. It does not run yet.
    ///
    /// # Errors
    /// When the container does not run, or there is no Engine's socket.
    pub fn create(engine: &Engine, container: &str, options: &ExecOptions<'_>) -> Result<Exec> {
        let body = json!({
            "AttachStdout": true,
            "AttachStderr": true,
            "Cmd": options.argv,
            "User": options.user.unwrap_or_default(),
            "Env": options.environment,
        });
        api_of(engine)?.create_exec(container, &body).map(Exec)
    }

    /// Runs the process to its end, or kills it after `limit` or when `is_interrupted`.
    /// Returns how it ended, and the end of its output.
    ///
    /// # Errors
    /// When the Engine does not answer, or the process cannot be killed.
    pub fn run(
        &self,
        engine: &Engine,
        limit: Duration,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<(Exit, Vec<u8>)> {
        let deadline = Instant::now() + limit;
        let mut stream = api_of(engine)?.start_exec(&self.0)?;
        let mut output = Demultiplexer::default();
        let mut looked = Instant::now();
        let mut is_open = true;
        let exit = loop {
            progress::step();
            match is_open.then(|| stream.receive(RECEIVE_WAIT)).transpose()? {
                Some(Received::Bytes(bytes)) => output.push(&bytes),
                Some(Received::End) => is_open = false,
                Some(Received::Nothing) => {}
                None => thread::sleep(LOOK_PAUSE),
            }
            // What it has started may hold its output open after its end.
            if !is_open || looked.elapsed() > LOOK_INTERVAL {
                looked = Instant::now();
                match self.state(engine)? {
                    State::Ended(0) => break Exit::Success,
                    State::Ended(code) => break Exit::Failure(code as i32),
                    State::Gone => bail!("its container has ended"),
                    State::Created | State::Running(_) => {}
                }
            }
            let reason = match () {
                () if is_interrupted() => Exit::Interrupted,
                () if Instant::now() > deadline => Exit::TimedOut(limit),
                () if output.total_bytes > OUTPUT_LIMIT => Exit::TooMuchOutput,
                () => continue,
            };
            self.end(engine, SETTLE_LIMIT)
                .with_context(|| match reason {
                    Exit::TimedOut(limit) => format!("still running after {} s", limit.as_secs()),
                    _ => reason.to_string(),
                })?;
            break reason;
        };
        Ok((exit, output.tail))
    }

    /// Makes sure that the process does not run any more. It is killed if it does.
    ///
    /// # Errors
    /// When it still runs after `limit`, or the Engine does not answer.
    pub fn end(&self, engine: &Engine, limit: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            progress::step();
            match self.state(engine)? {
                State::Ended(_) | State::Gone => return Ok(()),
                // The client may have died right after its request to start it.
                State::Created if began.elapsed() > SETTLE_LIMIT => return Ok(()),
                State::Running(exec) => {
                    // The Engine of a user could name any process.
                    let killed = match engine.is_of_root() {
                        true => kill_process(&exec),
                        false => Err(anyhow!(OUT_OF_REACH)),
                    };
                    if began.elapsed() > limit {
                        killed?;
                        bail!("process {} does not end although it was killed", exec.pid);
                    }
                }
                State::Created => {}
            }
            thread::sleep(LOOK_PAUSE);
        }
    }

    fn state(&self, engine: &Engine) -> Result<State> {
        let found = api_of(engine)?.inspect_exec(&self.0)?;
        Ok(match found {
            None => State::Gone,
            Some(exec) if exec.running => State::Running(exec),
            Some(exec) => exec.exit_code.map_or(State::Created, State::Ended),
        })
    }
}

fn api_of(engine: &Engine) -> Result<&'static Api> {
    engine.api()?.context(
        "commands in containers need the Engine's socket; it does not answer, or the Engine is \
         reached in another way",
    )
}

const OUT_OF_REACH: &str =
    "it cannot be killed from here, and goes on until it ends or its container is stopped";

/// Kills a process and its process group.
///
/// # Errors
/// When it is not a process of this machine.
fn kill_process(exec: &RawExec) -> Result<()> {
    ensure!(exec.pid > 1, OUT_OF_REACH);
    let pid = Pid::from_raw(exec.pid);
    // The handle stays that of this process, should its number go to another one.
    let handle = process::Pid::from_raw(exec.pid)
        .map(|pid| process::pidfd_open(pid, PidfdFlags::empty()))
        .context(OUT_OF_REACH)?
        .with_context(|| format!("cannot open process {pid}"))?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    // Else the number means another process: the Engine's are in another namespace.
    ensure!(cgroup.contains(&exec.container_id), OUT_OF_REACH);
    let is_leader = getpgid(Some(pid)) == Ok(pid);
    process::pidfd_send_signal(&handle, process::Signal::KILL)
        .with_context(|| format!("cannot kill process {pid}"))?;
    // The signal has found the process, so the number is still its own, or its group's.
    if is_leader {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    Ok(())
}

/// Takes a stream of stdout and stderr apart, and keeps the end of both as they came.
///
/// Each frame has a header of 8 bytes: the kind, three zeros, and the length, big-endian.
#[derive(Default)]
struct Demultiplexer {
    /// What has come of the present frame's header.
    header: Vec<u8>,
    /// Bytes that are still to come of the present frame.
    frame_bytes: usize,
    total_bytes: usize,
    tail: Vec<u8>,
}

impl Demultiplexer {
    fn push(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.frame_bytes > 0 {
                let (of_frame, rest) = bytes.split_at(self.frame_bytes.min(bytes.len()));
                self.frame_bytes -= of_frame.len();
                self.keep(of_frame);
                bytes = rest;
                continue;
            }
            self.header.push(first);
            bytes = rest;
            if let Ok(header) = <[u8; 8]>::try_from(self.header.as_slice()) {
                let [_, _, _, _, length @ ..] = header;
                self.frame_bytes = u32::from_be_bytes(length) as usize;
                self.header.clear();
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.total_bytes += bytes.len();
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, text: &[u8]) -> Vec<u8> {
        let length = (text.len() as u32).to_be_bytes();
        [&[kind, 0, 0, 0], &length[..], text].concat()
    }

    #[test]
    fn a_stream_is_taken_apart_in_any_pieces() {
        let stream = [frame(1, b"out\n"), frame(2, b""), frame(2, b"err\n")].concat();
        for piece in 1..=stream.len() {
            let mut output = Demultiplexer::default();
            for bytes in stream.chunks(piece) {
                output.push(bytes);
            }
            assert_eq!(output.tail, b"out\nerr\n", "pieces of {piece}");
            assert_eq!(output.total_bytes, 8);
        }
    }

    #[test]
    fn only_the_end_of_much_output_is_kept() {
        let mut output = Demultiplexer::default();
        for i in 0..1000_u32 {
            output.push(&frame(1, format!("{i:>1000}").as_bytes()));
        }
        assert_eq!(output.total_bytes, 1_000_000);
        assert!(output.tail.len() <= 2 * TAIL_BYTES);
        assert!(output.tail.ends_with(b" 999"));
    }

    #[test]
    fn a_process_of_another_container_is_not_killed() {
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let exec = |pid| RawExec {
            running: true,
            exit_code: None,
            pid,
            container_id: "0123456789abcdef".to_owned(),
        };
        for pid in [sleep.id() as i32, 0, 1, -1] {
            let error = kill_process(&exec(pid)).unwrap_err().to_string();
            assert!(error.contains("cannot be killed from here"), "{error}");
        }
        assert!(sleep.try_wait().unwrap().is_none());
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }
}
