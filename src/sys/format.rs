//! Plain text: ASCII only, lines of limited width, sizes and durations for
//! people.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The greatest length of a line, without its newline. Leaves room for the
/// quoting of a reply, and for terminals of 80 columns.
pub const WIDTH: usize = 72;

/// Replaces all but printable ASCII by escapes: `\u{e9}`, `\n`, `\u{1b}`.
pub fn ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            ' '..='~' => escaped.push(char),
            _ => escaped.extend(char.escape_default()),
        }
    }
    escaped
}

/// [`ascii`] of a path; bytes that are not UTF-8 become `\xff`.
pub fn ascii_path(path: &Path) -> String {
    let mut escaped = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        escaped.push_str(&ascii(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(escaped, "\\x{byte:02x}"); // a String takes all
        }
    }
    escaped
}

/// A path for messages: one line whatever is in it. Bytes that are not UTF-8
/// become U+FFFD, control characters and backslashes are escaped.
pub fn display_path(path: &[u8]) -> String {
    let mut shown = String::with_capacity(path.len());
    for character in String::from_utf8_lossy(path).chars() {
        if character.is_control() || character == '\\' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// `512 B`, `1.0 KiB`, `12.3 GiB`: powers of 1024, one decimal.
pub fn human_bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 1_u128 << 10;
    for name in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
        if tenths < 10240 || name == "EiB" {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        unit <<= 10;
    }
    unreachable!("the last unit takes all")
}

/// `4.2 s`, `3 min 5 s`, `2 h 0 min`, `3 d 4 h`, rounded.
pub fn human_duration(duration_ms: u64) -> String {
    let tenths = duration_ms.saturating_add(50) / 100;
    let seconds = duration_ms.saturating_add(500) / 1000;
    let minutes = duration_ms.saturating_add(30_000) / 60_000;
    let hours = duration_ms.saturating_add(1_800_000) / 3_600_000;
    if tenths < 600 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else if seconds < 3600 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else if minutes < 24 * 60 {
        format!("{} h {} min", minutes / 60, minutes % 60)
    } else {
        format!("{} d {} h", hours / 24, hours % 24)
    }
}

/// `1 stack`, `2 stacks`.
pub fn count(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// `a, b, c`, or `a, b and 5 more`.
pub fn list_names<S: AsRef<str>>(names: &[S], max_count: usize) -> String {
    let shown: Vec<&str> = names.iter().take(max_count).map(AsRef::as_ref).collect();
    let more = names.len() - shown.len();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Text under construction. All that goes in is escaped and wrapped, so no
/// caller can break the promise of the report.
#[derive(Default)]
pub struct Text {
    text: String,
}

impl Text {
    /// A blank line and a heading.
    pub fn section(&mut self, title: &str) {
        self.text.push('\n');
        self.line("", title);
    }

    /// One paragraph; continuation lines are indented by two more.
    pub fn line(&mut self, indent: &str, text: &str) {
        self.item(indent, indent.len() + 2, text);
    }

    /// One paragraph behind `label`; continuation lines are indented by
    /// `hang` columns.
    pub fn item(&mut self, label: &str, hang: usize, text: &str) {
        let (label, text) = (ascii(label), ascii(text));
        // Not before the text begins: a label alone on a line says nothing.
        let blanks = text.len() - text.trim_start().len();
        let mut earliest = label.len() + blanks + 1;
        let whole = label + &text;
        let mut rest = whole.as_str();
        let hang = hang.min(WIDTH / 2);
        let mut indent = 0;
        loop {
            let room = WIDTH - indent;
            let (line, next) = split(rest, room, earliest);
            self.text.extend(std::iter::repeat_n(' ', indent));
            self.text.push_str(line);
            self.text.truncate(self.text.trim_end_matches(' ').len());
            self.text.push('\n');
            if next.is_empty() {
                return;
            }
            (rest, indent, earliest) = (next, hang, 1);
        }
    }

    /// Behind `label`, items divided by commas; a line breaks only between
    /// them unless one is too long.
    pub fn list(&mut self, label: &str, hang: usize, items: &[String]) {
        let indent = " ".repeat(hang.min(WIDTH / 2));
        let mut line = ascii(label);
        let mut is_empty = true;
        for (index, item) in items.iter().enumerate() {
            let comma = if index + 1 < items.len() { "," } else { "" };
            let item = ascii(item) + comma;
            if !is_empty && line.len() + 1 + item.len() > WIDTH {
                self.item("", hang, &line);
                line.clone_from(&indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line += &item;
            is_empty = false;
        }
        self.item("", hang, &line);
    }

    pub fn finish(self) -> String {
        self.text
    }
}

/// Splits ASCII text so that the first part fits `room`: at the last blank at
/// or behind `earliest`, or hard.
fn split(text: &str, room: usize, earliest: usize) -> (&str, &str) {
    if text.len() <= room {
        return (text, "");
    }
    let blank = text[..=room].rfind(' ').filter(|at| *at >= earliest);
    match blank {
        Some(at) => (&text[..at], text[at..].trim_start_matches(' ')),
        None => text.split_at(room),
    }
}
