//! One line at the foot of a terminal that says where a run is, and how long
//! the stack is down already. The run writes a few numbers; a thread draws
//! them. Nothing is drawn, and next to nothing spent, unless [`show`] was
//! called.

use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::sys::format::{human_bytes, human_duration};

const TICK: Duration = Duration::from_millis(250);
/// No rate is told before: it would jump.
const SETTLE: Duration = Duration::from_secs(1);
const WIDTH: usize = 80;
const CLEAR: &str = "\r\x1b[K";

/// Bytes of the archive that are written; the writer's threads add to it.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Also the lock of whoever writes to the terminal; `None` when nothing is shown.
static NOW: Mutex<Option<Now>> = Mutex::new(None);

#[derive(Clone, Debug, Default)]
struct Now {
    /// From 1.
    number: usize,
    count: usize,
    stack: String,
    phase: Option<&'static str>,
    down_since: Option<Instant>,
    /// Of the archive that is being written.
    archive: Option<Archive>,
}

#[derive(Clone, Copy, Debug)]
struct Archive {
    bytes: u64,
    members: u64,
    since: Instant,
}

/// Shows the line until dropped.
pub struct ProgressLine {
    ends: Arc<AtomicBool>,
    drawer: Option<JoinHandle<()>>,
}

/// Shows the line, if stderr is a terminal that can erase one.
pub fn show() -> Option<ProgressLine> {
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if !io::stderr().is_terminal() || is_dumb {
        return None;
    }
    *lock() = Some(Now::default());
    let ends = Arc::new(AtomicBool::new(false));
    let is_over = ends.clone();
    let draw = move || {
        while !is_over.load(Ordering::Relaxed) {
            draw(&lock());
            thread::park_timeout(TICK);
        }
    };
    Some(ProgressLine {
        ends,
        drawer: Some(thread::spawn(draw)),
    })
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(drawer) = self.drawer.take() {
            drawer.thread().unpark();
            let _ = drawer.join();
        }
        *lock() = None;
        let _ = io::stderr().write_all(CLEAR.as_bytes());
    }
}

pub fn begin_stack(number: usize, count: usize, name: &str) {
    change(|now| {
        *now = Now {
            number,
            count,
            stack: name.to_owned(),
            ..Now::default()
        };
    });
}

/// A phase begins; the archive of the one before is no longer shown.
pub fn begin_phase(name: &'static str) {
    change(|now| {
        now.phase = Some(name);
        now.archive = None;
    });
}

/// From here on, or no longer, the stack is down.
pub fn set_down_since(since: Option<Instant>) {
    change(|now| now.down_since = since);
}

/// An archive of this length is begun.
pub fn begin_archive(bytes: u64, members: u64) {
    WRITTEN.store(0, Ordering::Relaxed);
    let since = Instant::now();
    change(|now| {
        now.archive = Some(Archive {
            bytes,
            members,
            since,
        });
    });
}

/// So much more of it is written.
pub fn add_written_bytes(bytes: u64) {
    WRITTEN.fetch_add(bytes, Ordering::Relaxed);
}

/// Writes a whole line to stderr, above the one that is shown. A closed stderr
/// must not end a run that has stacks to start.
pub fn print_above(line: &str) {
    let now = lock();
    let line = match *now {
        Some(_) => format!("{CLEAR}{line}"),
        None => line.to_owned(),
    };
    let _ = io::stderr().write_all(line.as_bytes());
    draw(&now);
}

fn lock() -> std::sync::MutexGuard<'static, Option<Now>> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(act: impl FnOnce(&mut Now)) {
    let mut now = lock();
    if let Some(now) = now.as_mut() {
        act(now);
    }
    draw(&now);
}

fn draw(now: &Option<Now>) {
    let Some(now) = now.as_ref().filter(|now| now.number > 0) else {
        return;
    };
    let width = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col.into());
    let width = if width == 0 { WIDTH } else { width };
    let text = line(now, WRITTEN.load(Ordering::Relaxed), Instant::now());
    // One column is left: a terminal may wrap when the last is filled.
    let text: String = text.chars().take(width - 1).collect();
    let _ = io::stderr().write_all(format!("{CLEAR}{text}").as_bytes());
}

/// `[2/5] immich: DOWN 12 s: archive 1.2 GiB of 4.0 GiB in 812 members, ...`
fn line(now: &Now, written: u64, time: Instant) -> String {
    let mut parts = vec![format!("[{}/{}] {}", now.number, now.count, now.stack)];
    if let Some(since) = now.down_since {
        let seconds = time.saturating_duration_since(since).as_secs();
        parts.push(format!("DOWN {seconds} s"));
    }
    match now.archive {
        Some(archive) => parts.push(archive_line(archive, written, time)),
        None => parts.extend(now.phase.map(str::to_owned)),
    }
    parts.join(": ")
}

fn archive_line(archive: Archive, written: u64, time: Instant) -> String {
    let done = human_bytes(written);
    let all = human_bytes(archive.bytes);
    let mut line = format!("archive {done} of {all} in {} members", archive.members);
    let elapsed = time.saturating_duration_since(archive.since);
    if elapsed >= SETTLE && written > 0 {
        let rate = written as f64 / elapsed.as_secs_f64();
        let left = archive.bytes.saturating_sub(written) as f64 / rate;
        let left = human_duration((left * 1000.0) as u64);
        line += &format!(", {}/s, {left} left", human_bytes(rate as u64));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_where_a_run_is_and_since_when_the_stack_is_down() {
        let time = Instant::now();
        let ago = |seconds| time.checked_sub(Duration::from_secs(seconds));
        let up = Now {
            number: 2,
            count: 5,
            stack: "immich".to_owned(),
            phase: Some("measure"),
            ..Now::default()
        };
        let down = Now {
            phase: Some("stop"),
            down_since: ago(12),
            ..up.clone()
        };
        let archive = |seconds| Now {
            phase: Some("archive"),
            archive: Some(Archive {
                bytes: 4 << 30,
                members: 812,
                since: ago(seconds).unwrap(),
            }),
            ..down.clone()
        };
        let started = Now {
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
        for (now, written, expected) in cases {
            assert_eq!(line(&now, written, time), expected);
        }
    }
}
