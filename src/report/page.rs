//! Builds a page of plain text: printable ASCII, in lines of at most 72 columns.

use crate::sys::format::ascii;

/// The greatest length of a line, without its newline. It leaves room for the
/// quotation marks of a reply on a terminal of 80 columns.
pub const WIDTH: usize = 72;
/// The width of what has to be read on a telephone, which would break longer lines
/// once more.
pub const PHONE_WIDTH: usize = 40;

/// The most bytes of a notification. ntfy takes 4096 for a message, and makes a file of
/// more.
const MAX_BRIEF_BYTES: usize = 3600;

/// A page under construction. It escapes and wraps all text that is added, so no
/// caller can break its promise.
pub struct Page {
    text: String,
    width: usize,
}

impl Page {
    pub fn new(width: usize) -> Page {
        Page {
            text: String::new(),
            width,
        }
    }

    /// Sets the greatest length of the lines that are added from now on.
    pub fn set_width(&mut self, width: usize) {
        self.width = width;
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// Adds a blank line and a heading.
    pub fn section(&mut self, title: &str) {
        self.text.push('\n');
        self.line("", title);
    }

    /// Adds a paragraph. Its continuation lines are indented by two columns more.
    pub fn line(&mut self, indent: &str, text: &str) {
        self.item(indent, indent.len() + 2, text);
    }

    /// Adds a paragraph after `label`. Its continuation lines are indented by
    /// `hang` columns.
    pub fn item(&mut self, label: &str, hang: usize, text: &str) {
        let (label, text) = (ascii(label), ascii(text));
        // The first line never breaks before the text begins: a label alone on a
        // line says nothing.
        let blanks = text.len() - text.trim_start().len();
        let mut earliest = label.len() + blanks + 1;
        let whole = label + &text;
        let mut rest = whole.as_str();
        let hang = hang.min(self.width / 2);
        let mut indent = 0;
        loop {
            let room = self.width - indent;
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

    /// Adds items after `label`, separated by commas. Lines break between items,
    /// and within an item only if it is longer than a line.
    pub fn list(&mut self, label: &str, hang: usize, items: &[String]) {
        let indent = " ".repeat(hang.min(self.width / 2));
        let mut line = ascii(label);
        let mut is_empty = true;
        for (index, item) in items.iter().enumerate() {
            let comma = if index + 1 < items.len() { "," } else { "" };
            let item = ascii(item) + comma;
            if !is_empty && line.len() + 1 + item.len() > self.width {
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

    /// Adds what there is to say about the message itself.
    pub fn notices(&mut self, notices: &[String]) {
        if !notices.is_empty() {
            self.text.push('\n');
        }
        for notice in notices {
            self.line("", notice);
        }
    }

    /// Returns the text for a notification, cut where it is too long.
    pub fn brief(self) -> String {
        let mut text = self.text.trim_start().to_owned();
        // The text is ASCII.
        if text.len() > MAX_BRIEF_BYTES {
            text.truncate(MAX_BRIEF_BYTES);
            text.push_str("...\n");
        }
        text
    }

    /// Returns the text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// Splits ASCII text so that the first part has at most `room` columns: at the
/// last blank at or after `earliest`, else within a word.
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
