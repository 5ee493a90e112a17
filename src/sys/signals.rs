//! SIGTERM, SIGINT and SIGHUP ask for an early end: what was stopped is
//! started, the partial is removed, and the exit status says so. A second one
//! also ends the wait until what was started is healthy.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use signal_hook::iterator;

/// By default, none is ever received.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Received>);

#[derive(Debug, Default)]
struct Received {
    flag: AtomicBool,
    /// The first one.
    number: AtomicI32,
    count: AtomicUsize,
}

impl Signals {
    /// From here on these signals are noted, and do no more than that. One
    /// that is ignored stays so: `nohup` does that to SIGHUP.
    pub fn install() -> Result<Signals> {
        let signals = Signals::default();
        let numbers = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|s| s as i32);
        let numbers = numbers.into_iter().filter(|number| !is_ignored(*number));
        let mut pending = iterator::Signals::new(numbers).context("handle signals")?;
        let received = signals.0.clone();
        thread::spawn(move || {
            for number in pending.forever() {
                received.note(number);
            }
        });
        Ok(signals)
    }

    /// As if it had come.
    #[cfg(test)]
    pub fn note(&self, number: i32) {
        self.0.note(number);
    }

    /// For loops that look at it often.
    pub fn flag(&self) -> &AtomicBool {
        &self.0.flag
    }

    /// The signal that asked for an end, if one did.
    pub fn received(&self) -> Option<&'static str> {
        if !self.0.flag.load(Ordering::Acquire) {
            return None;
        }
        Some(name(self.0.number.load(Ordering::Relaxed)))
    }

    /// An end was asked for more than once.
    pub fn is_repeated(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 1
    }

    /// # Errors
    /// When an end was asked for.
    pub fn check(&self) -> Result<()> {
        match self.received() {
            Some(signal) => bail!("interrupted by {signal}"),
            None => Ok(()),
        }
    }
}

impl Received {
    fn note(&self, number: i32) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.number.store(number, Ordering::Relaxed);
            self.flag.store(true, Ordering::Release);
            tracing::warn!(
                signal = name(number),
                "ending, once what was stopped is up and healthy; a second signal ends that wait"
            );
        } else {
            tracing::warn!(signal = name(number), "no longer waiting for health");
        }
    }
}

/// By the mask in /proc/self/status (proc_pid_status(5)).
fn is_ignored(number: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}

fn name(number: i32) -> &'static str {
    Signal::try_from(number).map_or("a signal", Signal::as_str)
}
