//! SIGTERM, SIGINT and SIGHUP ask for an early end: what was stopped is
//! started, the partial is removed, and the exit status says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

#[derive(Clone, Debug, Default)]
pub struct Signals {
    flag: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// From here on these signals do no more than raise the flag.
    pub fn install() -> Result<Signals> {
        let signals = Signals::default();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let number = signal as i32;
            signal_hook::flag::register_usize(number, signals.number.clone(), number as usize)
                .and_then(|_| signal_hook::flag::register(number, signals.flag.clone()))
                .with_context(|| format!("handle {signal}"))?;
        }
        Ok(signals)
    }

    /// For loops that look at it often.
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// The signal that asked for an end, if one did.
    pub fn received(&self) -> Option<&'static str> {
        if !self.flag.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.number.load(Ordering::Relaxed) as i32;
        Some(Signal::try_from(number).map_or("a signal", Signal::as_str))
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
