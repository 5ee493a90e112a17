//! One line at the foot of a terminal: the position of the run, and since when
//! the stack is down. The run sets a few values and a thread draws them, so the
//! line goes on while the run waits. Without [`show`] nothing is drawn.
//!
//! Errors of the terminal are ignored, here and in [`print_above`]: a terminal
//! that goes away must not end a run that has stacks to start. The crate
//! `nutmeg` panics then.

use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::sys::format::{human_bytes, human_duration};

const DRAW_INTERVAL: Duration = Duration::from_millis(250);
/// No rate is shown earlier, because it would still vary too much.
const RATE_DELAY: Duration = Duration::from_secs(1);
/// Width of a terminal that does not tell its own, in columns.
const DEFAULT_WIDTH: usize = 80;
const CLEAR_LINE: &str = "\r\x1b[K";

/// Bytes of the archive written so far. The writer's threads add to it.
static WRITTEN_BYTES: AtomicU64 = AtomicU64::new(0);
/// The position of the run; `None` when no line is shown. Its lock also
/// serializes writes to the terminal.
static POSITION: Mutex<Option<Position>> = Mutex::new(None);

#[derive(Clone, Debug, Default)]
struct Position {
    /// Number of the stack, from 1; 0 before the first one.
    number: usize,
    stack_count: usize,
    stack: String,
    phase: Option<&'static str>,
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
    Some(ProgressLine {
        is_over,
        thread: Some(thread::spawn(draw_repeatedly)),
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
        let _ = io::stderr().write_all(CLEAR_LINE.as_bytes());
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
pub fn begin_phase(name: &'static str) {
    change(|position| {
        position.phase = Some(name);
        position.archive = None;
    });
}

/// Shows since when the stack is down; `None` when it is up.
pub fn set_down_since(since: Option<Instant>) {
    change(|position| position.down_since = since);
}

/// Begins an archive, and shows how much of it is written.
pub fn begin_archive(bytes: u64, member_count: u64) {
    WRITTEN_BYTES.store(0, Ordering::Relaxed);
    let since = Instant::now();
    change(|position| {
        position.archive = Some(ArchiveSize {
            bytes,
            member_count,
            since,
        });
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
    let _ = io::stderr().write_all(line.as_bytes());
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
    let text = line(
        position,
        WRITTEN_BYTES.load(Ordering::Relaxed),
        Instant::now(),
    );
    // The last column stays empty: some terminals wrap once it is filled.
    let text: String = text.chars().take(width - 1).collect();
    let _ = io::stderr().write_all(format!("{CLEAR_LINE}{text}").as_bytes());
}

/// `[2/5] immich: DOWN 12 s: archive 1.2 GiB of 4.0 GiB in 812 members, ...`
fn line(position: &Position, written_bytes: u64, now: Instant) -> String {
    let mut parts = vec![format!(
        "[{}/{}] {}",
        position.number, position.stack_count, position.stack
    )];
    if let Some(since) = position.down_since {
        let seconds = now.saturating_duration_since(since).as_secs();
        parts.push(format!("DOWN {seconds} s"));
    }
    match position.archive {
        Some(archive) => parts.push(archive_text(archive, written_bytes, now)),
        None => parts.extend(position.phase.map(str::to_owned)),
    }
    parts.join(": ")
}

fn archive_text(archive: ArchiveSize, written_bytes: u64, now: Instant) -> String {
    let mut text = format!(
        "archive {} of {} in {} members",
        human_bytes(written_bytes),
        human_bytes(archive.bytes),
        archive.member_count
    );
    let elapsed = now.saturating_duration_since(archive.since);
    if elapsed >= RATE_DELAY && written_bytes > 0 {
        let bytes_per_second = written_bytes as f64 / elapsed.as_secs_f64();
        let seconds_left = archive.bytes.saturating_sub(written_bytes) as f64 / bytes_per_second;
        text += &format!(
            ", {}/s, {} left",
            human_bytes(bytes_per_second as u64),
            human_duration((seconds_left * 1000.0) as u64)
        );
    }
    text
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
            phase: Some("measure"),
            ..Position::default()
        };
        let down = Position {
            phase: Some("stop"),
            down_since: ago(12),
            ..up.clone()
        };
        let archive = |seconds| Position {
            phase: Some("archive"),
            archive: Some(ArchiveSize {
                bytes: 4 << 30,
                member_count: 812,
                since: ago(seconds).unwrap(),
            }),
            ..down.clone()
        };
        let started = Position {
            phase: Some("start"),
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
            assert_eq!(line(&position, written_bytes, now), expected);
        }
    }
}
