//! What a terminal shows: its width, and colour for words that say how something is.

use std::env;
use std::io::{self, IsTerminal as _};

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Words that say how something is, where they stand alone in a column.
const WORDS: [(&str, &str); 25] = [
    ("ok", GREEN),
    ("running", GREEN),
    ("keep", GREEN),
    ("FAILED", RED),
    ("DOWN", RED),
    ("NEVER", RED),
    ("DAMAGED", RED),
    ("INCOMPLETE", RED),
    ("REFUSED", RED),
    ("UNHEALTHY", RED),
    ("RESTARTING", RED),
    ("HOOK LEFT", RED),
    ("HALF UPDATED", RED),
    ("DATED IN THE FUTURE", RED),
    ("FAILURES", RED),
    ("IS DOWN", RED),
    ("MAY BE DOWN", RED),
    ("MAY BE HALF UPDATED", RED),
    ("warning", YELLOW),
    ("WARNINGS", YELLOW),
    ("skipped", YELLOW),
    ("not run", YELLOW),
    ("paused", YELLOW),
    ("unknown", YELLOW),
    ("in a backup", YELLOW),
];

/// Whether colour is wanted where `is_terminal` says whether a terminal reads it.
/// `NO_COLOR` (no-color.org) and `CLICOLOR_FORCE` (bixense.com/clicolors) decide, the first
/// before the second.
pub fn wants_color(is_terminal: bool) -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("NO_COLOR") {
        return false;
    }
    let is_forced =
        is_set("CLICOLOR_FORCE") && env::var_os("CLICOLOR_FORCE").is_some_and(|v| v != "0");
    is_forced || is_terminal && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether colour is wanted on stdout.
pub fn stdout_wants_color() -> bool {
    wants_color(io::stdout().is_terminal())
}

/// Returns the width of lines on stdout: that of the terminal, or `COLUMNS`; `None` if
/// lines may have any length, because a program reads them.
pub fn stdout_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let of_terminal = size.map(|size| usize::from(size.ws_col));
    let given = || env::var("COLUMNS").ok()?.parse().ok();
    of_terminal.or_else(given).filter(|width| *width > 0)
}

/// Colours the words of a text that say how something is, where they stand alone between
/// columns, or before a colon.
pub fn colored(text: &str) -> String {
    text.split_inclusive('\n').map(colored_line).collect()
}

fn colored_line(line: &str) -> String {
    let mut colored = String::with_capacity(line.len());
    let mut rest = line;
    // What comes before `rest` is the begin of the line, or two spaces.
    let mut is_begin = true;
    while !rest.is_empty() {
        let found = WORDS.iter().filter(|(word, _)| {
            let is_anywhere = word.ends_with("IS DOWN") || word.ends_with("BE DOWN");
            let ends = |after: &str| {
                after.is_empty()
                    || ["\n", "  ", ":", ","]
                        .iter()
                        .any(|end| after.starts_with(end))
            };
            (is_begin || is_anywhere)
                && rest
                    .strip_prefix(word)
                    .is_some_and(|after| is_anywhere || ends(after))
        });
        match found.max_by_key(|(word, _)| word.len()) {
            Some((word, color)) => {
                colored += &format!("\x1b[{color}m{word}\x1b[0m");
                rest = &rest[word.len()..];
                is_begin = false;
            }
            None => {
                let first = rest.chars().next().map_or(0, char::len_utf8);
                colored += &rest[..first];
                is_begin = colored.ends_with("  ") || is_begin && &rest[..first] == " ";
                rest = &rest[first..];
            }
        }
    }
    colored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_say_how_something_is_are_coloured_and_others_are_not() {
        let red = |word: &str| format!("\x1b[31m{word}\x1b[0m");
        let green = |word: &str| format!("\x1b[32m{word}\x1b[0m");
        assert_eq!(
            colored("web  running  3 h\n"),
            format!("web  {}  3 h\n", green("running"))
        );
        assert_eq!(
            colored("FAILED  docker: ok\nok      a\n"),
            format!("{}  docker: ok\n{}      a\n", red("FAILED"), green("ok"))
        );
        assert_eq!(
            colored("web IS DOWN (app)"),
            format!("web {} (app)", red("IS DOWN"))
        );
        assert_eq!(colored("a  DOWN"), format!("a  {}", red("DOWN")));
        for plain in [
            "ok-stack  x",
            "not ok",
            "runningly  x",
            "a DOWN b",
            "",
            "é  ü\n",
        ] {
            assert_eq!(colored(plain), plain);
        }
    }
}
