//! The worker's side.

use std::io::{self, BufRead, BufReader, Stdin, Write};
use std::process::exit;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::{Message, Order};
use crate::cycle::Observer;
use crate::engine;
use crate::outcome::{Phase, StackOutcome};
use crate::stack::journal::JournalEntry;
use crate::sys::logging;
use crate::sys::progress;
use crate::sys::signals::{self, Signals};

/// Does what stdin asks for. Must be called instead of starting to log otherwise.
///
/// # Errors
/// When this process was not started by a [watch](super::Watch).
pub fn serve() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot ask to be killed with the parent")?;
    let mut orders = BufReader::new(io::stdin());
    let mut line = String::new();
    orders
        .read_line(&mut line)
        .context("cannot read the order")?;
    let order: Order = serde_json::from_str(&line).context("this command is for internal use")?;
    ensure!(
        rustix::process::getppid().is_some_and(|pid| pid.as_raw_pid() as u32 == order.watch_pid),
        "the run that started this worker has ended"
    );
    logging::forward_to(|line| send(&Message::Log(line)));
    progress::forward_to(|event| send(&Message::Progress(event)))
        .context("cannot start a thread")?;
    let signals = Signals::default();
    receive_signals(orders, signals.clone())?;
    // Those that go to all processes of a control group are for the watch, too.
    signals::outlive_those_that_ask_to_end()?;
    engine::set_compose_plugin(order.compose_plugin);
    let done = order.task.perform(&order.plan, &signals, &Told);
    send(&Message::Done(done.map_err(|error| format!("{error:#}"))));
    Ok(())
}

/// The signals come from the watch alone, one number a line: a signal that goes to a whole
/// process group or control group must not count twice.
fn receive_signals(orders: BufReader<Stdin>, signals: Signals) -> Result<()> {
    let receive = move || {
        for number in orders.lines() {
            match number.as_deref().map(str::parse) {
                Ok(Ok(number)) => signals.record(number),
                _ => break,
            }
        }
    };
    let receiver = thread::Builder::new().name("signals".to_owned());
    receiver.spawn(receive).context("cannot start a thread")?;
    Ok(())
}

/// Sends a message whole. Without a watch there is nothing to work for.
fn send(message: &Message) {
    static STDOUT: Mutex<()> = Mutex::new(());
    let mut line = match serde_json::to_vec(message) {
        Ok(line) => line,
        Err(error) => panic!("a message is not JSON: {error}"),
    };
    line.push(b'\n');
    let _whole = STDOUT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stdout = io::stdout();
    if stdout
        .write_all(&line)
        .and_then(|()| stdout.flush())
        .is_err()
    {
        exit(1);
    }
}

/// Tells the watch what it needs to start the stack.
struct Told;

impl Observer for Told {
    fn phase(&self, phase: Phase, so_far: &StackOutcome) {
        send(&Message::Phase(phase, Box::new(so_far.clone())));
    }

    fn journalled(&self, entry: &JournalEntry) {
        send(&Message::Journalled(Box::new(entry.clone())));
    }

    fn journal_closed(&self) {
        send(&Message::JournalClosed);
    }
}
