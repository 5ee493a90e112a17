//! Text for people: sizes, durations, counts, and names and paths without
//! control characters.

use std::borrow::Cow;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How much of a line of a log is shown.
const LINE_CHARS: usize = 300;

/// Escapes every character that is not printable ASCII: `\u{e9}`, `\n`, `\u{1b}`.
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

/// Escapes a path like [`ascii`]. Bytes that are not UTF-8 become `\xff`.
pub fn ascii_path(path: &Path) -> String {
    let mut escaped = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        escaped.push_str(&ascii(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(escaped, "\\x{byte:02x}"); // writing to a String cannot fail
        }
    }
    escaped
}

/// Escapes what commands a terminal or shows text as other text than it is: control
/// characters but newlines and tabs, and marks that change the direction of text.
/// Everything that is written to a terminal, a log or the journal goes through here,
/// because it may have names and lines that containers or archives chose.
pub fn without_commands(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_command) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_command(character) {
            true => escaped.extend(character.escape_unicode()),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Does the same for JSON, whose strings alone can have such characters.
pub fn json_without_commands(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match is_command(character) {
            // All of them have four digits at most.
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => escaped.push(character),
        }
    }
    escaped
}

fn is_command(character: char) -> bool {
    let is_direction = || {
        matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
    };
    (character.is_control() && !matches!(character, '\n' | '\t')) || is_direction()
}

/// Formats a path for messages, always as one line: escapes control characters
/// and backslashes, and replaces bytes that are not UTF-8 by U+FFFD.
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

/// Shows line breaks as `\\n`, so that a name or a message is no line of its own.
pub fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// Returns the last lines of what a program has logged or printed, without empty ones, and
/// each cut at a sane length. Whoever wrote them chose how many and how long they are.
pub fn last_lines(text: &str, count: usize) -> Vec<String> {
    let lines = text.lines().rev().filter(|line| !line.trim().is_empty());
    let cut = |line: &str| match line.char_indices().nth(LINE_CHARS) {
        Some((end, _)) => format!("{} [cut]", &line[..end]),
        None => line.to_owned(),
    };
    let mut lines: Vec<String> = lines.take(count).map(cut).collect();
    lines.reverse();
    lines
}

/// Formats a size: `512 B`, `1.0 KiB`, `12.3 GiB`.
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
    unreachable!("the last unit has no upper limit")
}

/// Formats a duration, rounded: `4.2 s`, `3 min 5 s`, `2 h 0 min`, `3 d 4 h`.
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

/// Formats a time in seconds since 1970 and nanoseconds, as RFC 3339 does. A year outside
/// of the calendar is shown as a number; it is not worth an error.
pub fn instant(seconds: i64, nanoseconds: u32) -> String {
    // The cast is lossless: nanoseconds are less than a billion.
    match jiff::Timestamp::new(seconds, nanoseconds as i32) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{seconds}.{nanoseconds:09}"),
    }
}

/// Formats a number of things: `1 stack`, `2 stacks`.
pub fn count(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Joins names: `a, b, c`, or `a, b and 5 more` when there are more than
/// `max_count`.
pub fn list_names<S: AsRef<str>>(names: &[S], max_count: usize) -> String {
    let shown: Vec<&str> = names.iter().take(max_count).map(AsRef::as_ref).collect();
    let more = names.len() - shown.len();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_escaped_and_text_is_not() {
        let text = "é ü 漢\tx\n";
        assert_eq!(without_commands(text), text);
        assert_eq!(json_without_commands(text), text);
        for (command, escaped, json) in [
            (
                "\x1b]52;c;eA==\x07",
                "\\u{1b}]52;c;eA==\\u{7}",
                r"\u001b]52;c;eA==\u0007",
            ),
            ("a\rb\x08", "a\\u{d}b\\u{8}", r"a\u000db\u0008"),
            ("\u{9b}2J\x7f", "\\u{9b}2J\\u{7f}", r"\u009b2J\u007f"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe", r"\u202etxt.exe"),
        ] {
            assert_eq!(without_commands(command), escaped);
            assert_eq!(without_commands(escaped), escaped);
            assert_eq!(json_without_commands(command), json);
        }
    }

    #[test]
    fn the_last_lines_of_a_log_are_few_and_not_long() {
        let line = "é".repeat(LINE_CHARS);
        let text = format!("first\n{line}\n \n{line}x\n");
        assert_eq!(
            last_lines(&text, 2),
            [line.clone(), format!("{line} [cut]")]
        );
        assert_eq!(last_lines(&text, 9)[0], "first");
        assert_eq!(last_lines("\n\n", 9), [""; 0]);
    }

    #[test]
    fn sizes_have_one_decimal_and_a_binary_unit() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1_048_524, "1023.9 KiB"),
            ((12 << 30) + (1 << 30) / 3, "12.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn durations_have_at_most_two_units_and_are_rounded() {
        let table = [
            (0, "0.0 s"),
            (49, "0.0 s"),
            (4_249, "4.2 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min 0 s"),
            (185_000, "3 min 5 s"),
            (3_599_499, "59 min 59 s"),
            (3_599_500, "1 h 0 min"),
            (86_369_999, "23 h 59 min"),
            (86_370_000, "1 d 0 h"),
            (100 * 3_600_000, "4 d 4 h"),
        ];
        for (duration_ms, text) in table {
            assert_eq!(human_duration(duration_ms), text);
        }
    }
}
