//! SIGTERM, SIGINT, SIGHUP, SIGQUIT and SIGXCPU ask the program to end early. It then starts what
//! it has stopped, removes the unfinished archive and reports the signal by its
//! exit status. A second signal also ends the wait for healthy containers.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use signal_hook::iterator;

/// The signals that ask a process to end. SIGXCPU comes a while before a limit on CPU
/// time kills.
const ENDING: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGXCPU,
];

/// Signals that end a process by default, and ask nothing of this one. Without a
/// handler, the one for a file beyond the limit on its size would leave a stack down.
const WITHOUT_A_MEANING: [Signal; 8] = [
    Signal::SIGXFSZ,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// Lets the process outlive signals without a meaning: a `write` beyond the limit on
/// the size of a file fails with EFBIG. They are handled and not ignored, because a
/// child would inherit that.
///
/// # Errors
/// When a handler cannot be installed.
pub fn outlive_those_without_a_meaning() -> Result<()> {
    outlive(&WITHOUT_A_MEANING)
}

/// Does the same for the signals that ask the process to end.
///
/// # Errors
/// When a handler cannot be installed.
pub fn outlive_those_that_ask_to_end() -> Result<()> {
    outlive(&ENDING)
}

fn outlive(signals: &[Signal]) -> Result<()> {
    for signal in signals {
        signal_hook::flag::register(*signal as i32, Arc::default())
            .context("cannot handle signals")?;
    }
    Ok(())
}

/// The signals that have arrived. All clones share them; the default never
/// receives any.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Received>);

/// Those of the process.
static INSTALLED: OnceLock<Signals> = OnceLock::new();

/// The name of the first signal that this process has handled.
pub fn received() -> Option<&'static str> {
    INSTALLED.get().and_then(Signals::received)
}

#[derive(Debug, Default)]
struct Received {
    is_received: AtomicBool,
    /// Number of the first signal.
    first: AtomicI32,
    count: AtomicUsize,
}

impl Signals {
    /// Starts to record signals, which no longer end the process by themselves.
    /// A signal that is ignored stays ignored: `nohup` relies on that for
    /// SIGHUP.
    pub fn install() -> Result<Signals> {
        Signals::install_with(Received::log)
    }

    /// Does the same for a command that stops no stack, and logs nothing.
    pub fn install_silently() -> Result<Signals> {
        Signals::install_with(|_, _| ())
    }

    fn install_with(log: fn(&Received, i32)) -> Result<Signals> {
        let signals = Signals::default();
        let numbers = ENDING.map(|signal| signal as i32);
        let numbers = numbers.into_iter().filter(|number| !is_ignored(*number));
        let mut pending = iterator::Signals::new(numbers).context("cannot handle signals")?;
        let received = signals.0.clone();
        let receiver = thread::Builder::new().name("signals".to_owned());
        let receive = move || {
            for number in pending.forever() {
                received.record(number);
                log(&received, number);
            }
        };
        receiver.spawn(receive).context("cannot handle signals")?;
        let _ = INSTALLED.set(signals.clone());
        Ok(signals)
    }

    /// Records a signal as if it had arrived.
    pub fn record(&self, number: i32) {
        self.0.record(number);
    }

    /// Returns the numbers of the signals that have arrived, without the first `known`
    /// ones. All after the first count as the same signal.
    pub fn numbers_from(&self, known: usize) -> impl Iterator<Item = i32> {
        let first = self.0.first.load(Ordering::Relaxed);
        let count = match self.received() {
            Some(_) => self.0.count.load(Ordering::Relaxed),
            None => 0,
        };
        (known..count).map(move |_| first)
    }

    /// Whether a signal has arrived, for loops that check it often.
    pub fn flag(&self) -> &AtomicBool {
        &self.0.is_received
    }

    /// The name of the first signal that has arrived.
    pub fn received(&self) -> Option<&'static str> {
        if !self.0.is_received.load(Ordering::Acquire) {
            return None;
        }
        Some(name(self.0.first.load(Ordering::Relaxed)))
    }

    /// Whether a second signal has arrived.
    pub fn is_repeated(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 1
    }

    /// # Errors
    /// When a signal has arrived.
    pub fn check(&self) -> Result<()> {
        match self.received() {
            Some(signal) => bail!("interrupted by {signal}"),
            None => Ok(()),
        }
    }
}

impl Received {
    fn record(&self, number: i32) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.store(number, Ordering::Relaxed);
            self.is_received.store(true, Ordering::Release);
        }
    }

    fn log(&self, number: i32) {
        if self.count.load(Ordering::Relaxed) == 1 {
            tracing::warn!(
                signal = name(number),
                "ending early, after stopped containers are started and healthy; a second signal \
                 ends the wait for their health"
            );
        } else {
            tracing::warn!(
                signal = name(number),
                "no longer waiting for healthy containers"
            );
        }
    }
}

/// Reads the mask of ignored signals in /proc/self/status (proc_pid_status(5)).
fn is_ignored(number: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}

fn name(number: i32) -> &'static str {
    Signal::try_from(number).map_or("a signal", Signal::as_str)
}
