//! One line at the foot of a terminal: the position of the run, and since when
//! the stack is down. The run sets a few values and a thread draws them, so the
//! line goes on while the run waits. Without [`show`] nothing is drawn.
//!
//! A process that works for another one [forwards](forward_to) its events to it, and
//! counts what it has done, so that the other one notices when nothing moves any more.
//!
//! Errors of the terminal are ignored, here and in [`print_above`]: a terminal
//! that goes away must not end a run that has stacks to start. The crate
//! `nutmeg` panics then.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sys::format::{human_bytes, human_duration, without_commands};
use crate::sys::outlet;

const DRAW_INTERVAL: Duration = Duration::from_millis(250);
/// No rate is shown earlier, because it would still vary too much.
const RATE_DELAY: Duration = Duration::from_secs(1);
/// Width of a terminal that does not tell its own, in columns.
const DEFAULT_WIDTH: usize = 80;
const CLEAR_LINE: &str = "\r\x1b[K";

/// Bytes of the archive written so far. The writer's threads add to it.
static WRITTEN_BYTES: AtomicU64 = AtomicU64::new(0);
/// Units of work done so far, apart from the written bytes: directory entries read,
/// blocks compared, and the like.
static STEPS: AtomicU64 = AtomicU64::new(0);
/// Where events go instead of the terminal.
static FORWARD: OnceLock<Forward> = OnceLock::new();
/// The position of the run; `None` when no line is shown. Its lock also
/// serializes writes to the terminal.
static POSITION: Mutex<Option<Position>> = Mutex::new(None);

#[derive(Clone, Debug, Default)]
struct Position {
    /// Number of the stack, from 1; 0 before the first one.
    number: usize,
    stack_count: usize,
    stack: String,
    phase: Option<String>,
    down_since: Option<Instant>,
    /// The archive that is being written.
    archive: Option<ArchiveSize>,
}

#[derive(Clone, Copy, Debug)]
struct ArchiveSize {
    bytes: u64,
    member_count: u64,
    since: Instant,
}

type Forward = Box<dyn Fn(Event) + Send + Sync>;

/// What happens in a stack's backup, for the process that shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    BeginPhase(String),
    /// Whether the stack is down.
    Down(bool),
    BeginArchive {
        bytes: u64,
        member_count: u64,
    },
    /// Something was done since the last event of this kind.
    Moved {
        written_bytes: u64,
    },
}

/// Forwards all events from now on, and regularly says whether anything moves.
///
/// # Errors
/// When there is no room for a thread.
pub fn forward_to(forward: impl Fn(Event) + Send + Sync + 'static) -> io::Result<()> {
    let _ = FORWARD.set(Box::new(forward));
    let tell = || {
        let mut before = (0, 0);
        loop {
            thread::sleep(DRAW_INTERVAL);
            let written_bytes = WRITTEN_BYTES.load(Ordering::Relaxed);
            let now = (written_bytes, STEPS.load(Ordering::Relaxed));
            if now != before {
                before = now;
                tell(Event::Moved { written_bytes });
            }
        }
    };
    thread::Builder::new().spawn(tell).map(drop)
}

/// Shows an event, or forwards it.
pub fn tell(event: Event) {
    if let Some(forward) = FORWARD.get() {
        return forward(event);
    }
    match event {
        Event::BeginPhase(name) => change(|position| {
            position.phase = Some(name);
            position.archive = None;
        }),
        Event::Down(is_down) => {
            change(|position| position.down_since = is_down.then(Instant::now));
        }
        Event::BeginArchive {
            bytes,
            member_count,
        } => {
            let since = Instant::now();
            change(|position| {
                position.archive = Some(ArchiveSize {
                    bytes,
                    member_count,
                    since,
                });
            });
        }
        Event::Moved { written_bytes } => WRITTEN_BYTES.store(written_bytes, Ordering::Relaxed),
    }
}

/// Counts a unit of work. A process that does none for too long is given up.
pub fn step() {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// Shows the line until it is dropped.
pub struct ProgressLine {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Shows the line. Returns `None` if stderr is no terminal, or one that cannot
/// erase a line (`TERM=dumb`).
pub fn show() -> Option<ProgressLine> {
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if !io::stderr().is_terminal() || is_dumb {
        return None;
    }
    *lock() = Some(Position::default());
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = is_over.clone();
    let draw_repeatedly = move || {
        while !ends.load(Ordering::Relaxed) {
            draw(&lock());
            thread::park_timeout(DRAW_INTERVAL);
        }
    };
    // Without a thread the line is drawn when something happens.
    Some(ProgressLine {
        is_over,
        thread: thread::Builder::new().spawn(draw_repeatedly).ok(),
    })
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        *lock() = None;
        outlet::write_stderr(CLEAR_LINE.as_bytes());
    }
}

/// Begins a stack; `number` counts from 1.
pub fn begin_stack(number: usize, stack_count: usize, name: &str) {
    change(|position| {
        *position = Position {
            number,
            stack_count,
            stack: name.to_owned(),
            ..Position::default()
        };
    });
}

/// Begins a phase of the stack. An archive of the phase before is no longer
/// shown.
pub fn begin_phase(name: &str) {
    tell(Event::BeginPhase(name.to_owned()));
}

/// Shows for how long the stack is down, from now on, or that it is up.
pub fn set_down(is_down: bool) {
    tell(Event::Down(is_down));
}

/// Begins an archive, and shows how much of it is written.
pub fn begin_archive(bytes: u64, member_count: u64) {
    WRITTEN_BYTES.store(0, Ordering::Relaxed);
    tell(Event::BeginArchive {
        bytes,
        member_count,
    });
}

/// Adds to the bytes of the archive that are written.
pub fn add_written_bytes(bytes: u64) {
    WRITTEN_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// Writes a whole line of the log to stderr, above the progress line if one is
/// shown.
pub fn print_above(line: &str) {
    let position = lock();
    let line = match *position {
        Some(_) => format!("{CLEAR_LINE}{line}"),
        None => line.to_owned(),
    };
    outlet::write_stderr(line.as_bytes());
    draw(&position);
}

fn lock() -> MutexGuard<'static, Option<Position>> {
    POSITION.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(act: impl FnOnce(&mut Position)) {
    let mut position = lock();
    if let Some(position) = position.as_mut() {
        act(position);
    }
    draw(&position);
}

fn draw(position: &Option<Position>) {
    let Some(position) = position.as_ref().filter(|position| position.number > 0) else {
        return;
    };
    let width = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col.into());
    let width = if width == 0 { DEFAULT_WIDTH } else { width };
    // The last column stays empty: some terminals wrap once it is filled.
    let text = line(
        position,
        WRITTEN_BYTES.load(Ordering::Relaxed),
        Instant::now(),
        width - 1,
    );
    outlet::write_stderr(format!("{CLEAR_LINE}{text}").as_bytes());
}

/// `[2/5] immich: DOWN 12 s: archive 1.2 GiB of 4.0 GiB in 812 members, ...`, or what matters
/// most of that, if it is more than `width` columns.
fn line(position: &Position, written_bytes: u64, now: Instant, width: usize) -> String {
    let number = format!("[{}/{}] ", position.number, position.stack_count);
    let name = without_commands(&position.stack);
    let down = position.down_since.map(|since| {
        let seconds = now.saturating_duration_since(since).as_secs();
        format!(": DOWN {seconds} s")
    });
    let down = down.unwrap_or_default();
    let texts = match (position.archive, &position.phase) {
        (Some(archive), _) => archive_texts(archive, written_bytes, now),
        (None, Some(phase)) => vec![phase.clone()],
        (None, None) => vec![String::new()],
    };
    let texts: Vec<String> = texts
        .iter()
        .map(|text| match text.as_str() {
            "" => down.clone(),
            text => format!("{down}: {text}"),
        })
        .collect();
    let room = |text: &String| width.saturating_sub(number.len() + text.chars().count());
    let fits = |text: &&String| name.chars().count() <= room(text);
    let Some(text) = texts.iter().find(fits).or(texts.last()) else {
        return number;
    };
    // A name of which the begin is left is still known.
    let name: String = name.chars().take(room(text)).collect();
    let whole = format!("{number}{name}{text}");
    whole.chars().take(width).collect()
}

/// Returns how far the archive is, the most detailed text first.
fn archive_texts(archive: ArchiveSize, written_bytes: u64, now: Instant) -> Vec<String> {
    let percent = u128::from(written_bytes) * 100 / u128::from(archive.bytes.max(1));
    let percent = format!("archive {percent} %");
    let size = format!(
        "archive {} of {}",
        human_bytes(written_bytes),
        human_bytes(archive.bytes)
    );
    let text = format!("{size} in {} members", archive.member_count);
    let elapsed = now.saturating_duration_since(archive.since);
    if elapsed < RATE_DELAY || written_bytes == 0 {
        return vec![text, size, percent];
    }
    let bytes_per_second = written_bytes as f64 / elapsed.as_secs_f64();
    let seconds_left = archive.bytes.saturating_sub(written_bytes) as f64 / bytes_per_second;
    let left = human_duration((seconds_left * 1000.0) as u64);
    let rate = human_bytes(bytes_per_second as u64);
    vec![
        format!("{text}, {rate}/s, {left} left"),
        format!("{size}, {left} left"),
        format!("{percent}, {left} left"),
        percent,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_stack_phase_downtime_and_rate() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let up = Position {
            number: 2,
            stack_count: 5,
            stack: "immich".to_owned(),
            phase: Some("measure".to_owned()),
            ..Position::default()
        };
        let down = Position {
            phase: Some("stop".to_owned()),
            down_since: ago(12),
            ..up.clone()
        };
        let archive = |seconds| Position {
            phase: Some("archive".to_owned()),
            archive: Some(ArchiveSize {
                bytes: 4 << 30,
                member_count: 812,
                since: ago(seconds).unwrap(),
            }),
            ..down.clone()
        };
        let started = Position {
            phase: Some("start".to_owned()),
            ..down.clone()
        };
        let cases = [
            (up, 0, "[2/5] immich: measure"),
            (down.clone(), 0, "[2/5] immich: DOWN 12 s: stop"),
            (
                archive(0),
                1 << 20,
                "[2/5] immich: DOWN 12 s: archive 1.0 MiB of 4.0 GiB in 812 members",
            ),
            (
                archive(4),
                1 << 30,
                "[2/5] immich: DOWN 12 s: archive 1.0 GiB of 4.0 GiB in 812 members, 256.0 MiB/s, \
                 12.0 s left",
            ),
            (started, 4 << 30, "[2/5] immich: DOWN 12 s: start"),
        ];
        for (position, written_bytes, expected) in cases {
            assert_eq!(line(&position, written_bytes, now, 120), expected);
        }
    }

    #[test]
    fn a_line_that_is_too_long_loses_details_first() {
        let now = Instant::now();
        let since = now.checked_sub(Duration::from_secs(4)).unwrap();
        let position = Position {
            number: 2,
            stack_count: 5,
            stack: "immich".to_owned(),
            phase: Some("archive".to_owned()),
            down_since: Some(since),
            archive: Some(ArchiveSize {
                bytes: 4 << 30,
                member_count: 812,
                since,
            }),
        };
        let at = |width| line(&position, 1 << 30, now, width);
        for (width, expected) in [
            (
                79,
                "[2/5] immich: DOWN 4 s: archive 1.0 GiB of 4.0 GiB, 12.0 s left",
            ),
            (50, "[2/5] immich: DOWN 4 s: archive 25 %, 12.0 s left"),
            (39, "[2/5] immich: DOWN 4 s: archive 25 %"),
            (34, "[2/5] immi: DOWN 4 s: archive 25 %"),
            (20, "[2/5] : DOWN 4 s: ar"),
        ] {
            assert_eq!(at(width), expected, "{width}");
        }
        for width in 0..120 {
            assert!(at(width).chars().count() <= width, "{width}");
        }
    }
}
