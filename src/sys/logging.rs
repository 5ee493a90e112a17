//! One line a log event, to three places: stderr (for a person, or for the
//! journal), the log file, and the outcome of the run.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::ZonedDateTime;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::sys::progress;

/// More than this is dropped from a report: it is for reading.
const KEPT_LINES: usize = 2000;

/// What one run logged, and where its log file is.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    file: OnceLock<PathBuf>,
    file_error: OnceLock<String>,
}

impl Log {
    /// Lines from here on are appended to the file, too. It is opened anew for
    /// each line, so that it may be rotated at any time.
    pub fn append_to(&self, file: PathBuf) {
        let _ = self.0.file.set(file);
    }

    /// All lines so far, at level info and above, with their times.
    pub fn lines(&self) -> Vec<String> {
        self.0
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Why a line could not be appended to the log file, if one could not.
    pub fn file_error(&self) -> Option<&str> {
        self.0.file_error.get().map(String::as_str)
    }

    fn keep(&self, level: Level, line: &str) {
        let line = format!(
            "{} {level:<5} {line}",
            ZonedDateTime::now().strftime("%F %T")
        );
        if let Some(path) = self.0.file.get() {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                .open(path);
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
                let _ = self
                    .0
                    .file_error
                    .set(format!("write {}: {error}", path.display()));
            }
        }
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < KEPT_LINES {
            lines.push(line);
        }
    }
}

/// Starts logging: `verbosity` -1 shows warnings, 0 what happens, 1 every
/// command that is run.
///
/// # Panics
/// When called twice.
pub fn init(verbosity: i8) -> Log {
    let log = Log::default();
    let shown = match verbosity {
        ..0 => Level::WARN,
        0 => Level::INFO,
        _ => Level::DEBUG,
    };
    let layer = Lines {
        log: log.clone(),
        shown,
        stderr: Stderr::detect(),
    };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .expect("logging is started once, at the start of main");
    log
}

#[derive(Clone, Copy)]
enum Stderr {
    Terminal,
    /// systemd's journal: it keeps the time itself, and takes the level from
    /// a prefix (sd-daemon(3)).
    Journal,
    Plain,
}

impl Stderr {
    fn detect() -> Stderr {
        if io::stderr().is_terminal() {
            Stderr::Terminal
        } else if stderr_is_journal() {
            Stderr::Journal
        } else {
            Stderr::Plain
        }
    }

    fn print(self, level: Level, line: &str) {
        let color = std::env::var_os("NO_COLOR").is_none();
        let line = match self {
            Stderr::Journal => format!("<{}>{line}\n", syslog_priority(level)),
            Stderr::Terminal if color => match level {
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

/// `$JOURNAL_STREAM` is inherited also by programs whose stderr goes elsewhere,
/// and so names device and inode (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else {
        return false;
    };
    let itself = format!("{}:{}", stat.st_dev, stat.st_ino);
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == itself)
}

fn syslog_priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

struct Lines {
    log: Log,
    shown: Level,
    stderr: Stderr,
}

/// The stack a span is about, shown in front of each of its lines.
struct StackName(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = Text::default();
        attributes.record(&mut text);
        if let (Some(stack), Some(span)) = (text.stack, context.span(id)) {
            span.extensions_mut().insert(StackName(stack));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut text = Text::default();
        event.record(&mut text);
        let stack = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| span.extensions().get::<StackName>().map(|s| s.0.clone()))
        });
        let line = match stack.or(text.stack) {
            Some(stack) => format!("{stack}: {}{}", text.message, text.fields),
            None => format!("{}{}", text.message, text.fields),
        };
        let line = line.replace(['\n', '\r'], " ");
        if level <= self.shown {
            self.stderr.print(level, &line);
        }
        if level <= Level::INFO {
            self.log.keep(level, &line);
        }
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) && *metadata.level() <= Level::DEBUG
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    stack: Option<String>,
}

impl Visit for Text {
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
