//! Each log event is one line, which goes to three places: stderr (for a person
//! or systemd's journal), the log file, and the report of the run.

use std::fmt::{self, Write as _};
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::libc;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::format::without_commands;
use super::terminal::wants_color;
use super::time::OffsetTime;
use crate::sys::progress;

/// A report has only the first lines of a longer log, so that it stays readable.
const MAX_REPORT_LINES: usize = 2000;

/// A line of a process that works for another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardedLine {
    level: String,
    text: String,
}

/// How long the log file is waited for in all. It may be on a mount that hangs.
const FILE_LIMIT: Duration = Duration::from_secs(5);

/// The log lines of one run, and its log file.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    /// Leads to the thread that writes the log file.
    file: OnceLock<Sender<ToFile>>,
    file_error: OnceLock<String>,
    stderr: OnceLock<Stderr>,
}

enum ToFile {
    Line(String),
    /// Answered when all lines before it are written.
    Flush(Sender<()>),
}

impl Log {
    /// Appends the lines from now on to a file as well. Its directory is created
    /// if it is missing. The file is opened anew for each line, so that it can be
    /// rotated at any time. Errors are not fatal: they end up in the outcome,
    /// because a log that cannot be written must not prevent a backup.
    ///
    /// A thread of its own writes the file, so that a mount that hangs does not
    /// keep a stack down.
    pub fn append_to(&self, path: PathBuf) {
        let (sender, receiver) = mpsc::channel();
        let log = self.clone();
        let name = path.display().to_string();
        let spawned = thread::Builder::new().spawn(move || log.write_file(&path, receiver));
        match spawned {
            Ok(_) => drop(self.0.file.set(sender)),
            Err(error) => self.set_file_error(&name, &error),
        }
    }

    /// Returns all lines so far of level info and above, with their times.
    pub fn lines(&self) -> Vec<String> {
        self.0
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the first error of writing to the log file, once all lines so far
    /// are written.
    pub fn file_error(&self) -> Option<&str> {
        self.flush();
        self.0.file_error.get().map(String::as_str)
    }

    /// Logs a line of a process that works for this one.
    pub fn repeat(&self, line: &ForwardedLine) {
        let level = line.level.parse().unwrap_or(Level::INFO);
        if let Some(stderr) = self.0.stderr.get() {
            stderr.log(self, level, &without_commands(&line.text));
        }
    }

    /// Waits until all lines so far are in the log file, unless it hangs.
    pub fn flush(&self) {
        let Some(file) = self.0.file.get() else {
            return;
        };
        let (sender, written) = mpsc::channel();
        let hangs = file.send(ToFile::Flush(sender)).is_ok()
            && self.0.file_error.get().is_none()
            && written.recv_timeout(FILE_LIMIT).is_err();
        if hangs {
            let secs = FILE_LIMIT.as_secs();
            let error = format!("cannot write to the log file: no answer within {secs} s");
            let _ = self.0.file_error.set(error);
        }
    }

    fn set_file_error(&self, path: &str, error: &io::Error) {
        let error = format!("cannot write to the log file {path}: {error}");
        let _ = self.0.file_error.set(error);
    }

    fn write_file(&self, path: &Path, received: Receiver<ToFile>) {
        if let Some(dir) = path.parent() {
            let _ = fs::create_dir_all(dir);
        }
        for message in received {
            let line = match message {
                ToFile::Line(line) => line,
                ToFile::Flush(written) => {
                    // Nobody may wait for it any more.
                    let _ = written.send(());
                    continue;
                }
            };
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                // A pipe that nobody reads would hang, and a link might lead anywhere.
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path);
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
                self.set_file_error(&path.display().to_string(), &error);
            }
        }
    }

    fn record(&self, level: Level, line: &str) {
        let line = format!("{} {level:<5} {line}", OffsetTime::now().strftime("%F %T"));
        if let Some(file) = self.0.file.get() {
            let _ = file.send(ToFile::Line(line.clone()));
        }
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MAX_REPORT_LINES {
            lines.push(line);
        }
    }
}

/// Starts logging. `verbosity` is -1 for warnings and errors only, 0 for progress
/// as well, and 1 for every command that is run.
///
/// # Panics
/// When it is called twice.
pub fn init(verbosity: i8) -> Log {
    let log = Log::default();
    let stderr_level = match verbosity {
        ..0 => Level::WARN,
        0 => Level::INFO,
        _ => Level::DEBUG,
    };
    let stderr = Stderr {
        kind: StderrKind::detect(),
        level: stderr_level,
    };
    let _ = log.0.stderr.set(stderr);
    let own = log.clone();
    start(move |level, line| stderr.log(&own, level, line));
    log
}

/// Starts logging in a process that works for another one: its lines go to `forward`.
///
/// # Panics
/// When logging was started before.
pub fn forward_to(forward: impl Fn(ForwardedLine) + Send + Sync + 'static) {
    start(move |level, line| {
        forward(ForwardedLine {
            level: level.as_str().to_owned(),
            text: line.to_owned(),
        });
    });
}

fn start(print: impl Fn(Level, &str) + Send + Sync + 'static) {
    let layer = LineLayer {
        print: Box::new(print),
    };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .expect("logging is started once, at the start of main");
}

/// This process's stderr, and what is printed there.
#[derive(Clone, Copy)]
struct Stderr {
    kind: StderrKind,
    level: Level,
}

impl Stderr {
    fn log(self, log: &Log, level: Level, line: &str) {
        if level <= self.level {
            self.kind.print(level, line);
        }
        if level <= Level::INFO {
            log.record(level, line);
        }
    }
}

#[derive(Clone, Copy)]
enum StderrKind {
    Terminal,
    /// systemd's journal, which records the time itself and takes the level from
    /// a prefix (sd-daemon(3)).
    Journal,
    Plain,
}

impl StderrKind {
    fn detect() -> StderrKind {
        if io::stderr().is_terminal() {
            StderrKind::Terminal
        } else if stderr_is_journal() {
            StderrKind::Journal
        } else {
            StderrKind::Plain
        }
    }

    fn print(self, level: Level, line: &str) {
        let color = wants_color(matches!(self, StderrKind::Terminal));
        let line = match self {
            StderrKind::Journal => format!("<{}>{line}\n", syslog_priority(level)),
            StderrKind::Terminal | StderrKind::Plain if color => match level {
                Level::ERROR => format!("\x1b[31m{line}\x1b[0m\n"),
                Level::WARN => format!("\x1b[33m{line}\x1b[0m\n"),
                Level::INFO => format!("{line}\n"),
                _ => format!("\x1b[2m{line}\x1b[0m\n"),
            },
            _ if level <= Level::WARN => format!("{}: {line}\n", level.as_str().to_lowercase()),
            _ => format!("{line}\n"),
        };
        progress::print_above(&line);
    }
}

/// Whether stderr goes to systemd's journal. `$JOURNAL_STREAM` alone does not say
/// so, because programs inherit it whose stderr is redirected; it therefore names
/// device and inode of the stream (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else {
        return false;
    };
    let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
    std::env::var("JOURNAL_STREAM").is_ok_and(|journal| journal == stream)
}

fn syslog_priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

type Print = Box<dyn Fn(Level, &str) + Send + Sync>;

/// Formats events, and hands their lines on.
struct LineLayer {
    print: Print,
}

/// The stack that a span belongs to. Its name begins each line of the span.
struct StackName(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = EventText::default();
        attributes.record(&mut text);
        if let (Some(stack), Some(span)) = (text.stack, context.span(id)) {
            span.extensions_mut().insert(StackName(stack));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut text = EventText::default();
        event.record(&mut text);
        let stack = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| span.extensions().get::<StackName>().map(|s| s.0.clone()))
        });
        let line = match stack.or(text.stack) {
            Some(stack) => format!("{stack}: {}{}", text.message, text.fields),
            None => format!("{}{}", text.message, text.fields),
        };
        let line = line.replace(['\n', '\r'], " ");
        (self.print)(level, &without_commands(&line));
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) && *metadata.level() <= Level::DEBUG
    }
}

/// The message of an event, and its other fields as ` name=value`.
#[derive(Default)]
struct EventText {
    message: String,
    fields: String,
    stack: Option<String>,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "stack" => self.stack = Some(value.to_owned()),
            "message" => self.message = value.to_owned(),
            name if value.contains(' ') => {
                let _ = write!(self.fields, " {name}={value:?}");
            }
            name => {
                let _ = write!(self.fields, " {name}={value}");
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
