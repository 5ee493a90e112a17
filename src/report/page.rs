//! Builds a page twice, as plain text and as HTML with the same words. The text is printable
//! ASCII, in lines of at most 72 columns.

use super::html::escaped;
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

/// Mail programs know little of CSS: no variables, and some drop all of it.
const MAIL_STYLE: &str = include_str!("mail.css");

/// A page under construction. It escapes and wraps all text that is added, so no
/// caller can break its promise.
pub struct Page {
    text: String,
    width: usize,
    /// What stands in the body of the HTML.
    html: String,
}

impl Page {
    pub fn new(width: usize) -> Page {
        Page {
            text: String::new(),
            width,
            html: String::new(),
        }
    }

    /// Sets the greatest length of the lines that are added from now on.
    pub fn set_width(&mut self, width: usize) {
        self.width = width;
    }

    /// Adds the first line, which says whether all is well. So does its class.
    pub fn headline(&mut self, text: &str, class: &str) {
        self.wrap("", 2, text);
        self.element("h1", class, text);
    }

    /// Adds a blank line and a heading.
    pub fn section(&mut self, title: &str) {
        self.text.push('\n');
        self.wrap("", 2, title);
        self.element("h2", "", title);
    }

    /// Adds a blank line and the last line, which says what has made the page.
    pub fn footer(&mut self, text: &str) {
        self.text.push('\n');
        self.wrap("", 2, text);
        self.element("p", "faint", text);
    }

    /// Adds a paragraph. Its continuation lines are indented by two columns more. More than
    /// two columns of `indent` mean that it belongs to the paragraph before it.
    pub fn line(&mut self, indent: &str, text: &str) {
        self.wrap(indent, indent.len() + 2, text);
        let class = if indent.len() > 2 { "more" } else { "" };
        self.element("p", class, text);
    }

    /// Adds a line that a program has written, or that is typed as it is.
    pub fn literal(&mut self, indent: &str, hang: usize, text: &str) {
        self.wrap(indent, hang, text);
        self.element("p", "literal", text);
    }

    /// Adds a paragraph after `label`. Its continuation lines are indented by
    /// `hang` columns.
    pub fn item(&mut self, label: &str, hang: usize, text: &str) {
        self.wrap(label, hang, text);
        self.labelled(label, text);
    }

    fn element(&mut self, tag: &str, class: &str, text: &str) {
        let class = match class {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        };
        let text = escaped(&ascii(text));
        self.html += &format!("<{tag}{class}>{text}</{tag}>\n");
    }

    fn labelled(&mut self, label: &str, text: &str) {
        let (label, text) = (escaped(&ascii(label.trim())), escaped(&ascii(text)));
        self.html += &format!("<p><b>{label}</b> {text}</p>\n");
    }

    /// Adds lines to the text, with `label` before the first one.
    fn wrap(&mut self, label: &str, hang: usize, text: &str) {
        let (label, text) = (ascii(label), ascii(text));
        // What is indented more than what follows would stand out.
        let label = match label.trim() {
            "" => " ".repeat(label.len().min(self.width / 2)),
            _ => label,
        };
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
        self.labelled(label, &items.join(", "));
        let indent = " ".repeat(hang.min(self.width / 2));
        let mut line = ascii(label);
        let mut is_empty = true;
        for (index, item) in items.iter().enumerate() {
            let comma = if index + 1 < items.len() { "," } else { "" };
            let item = ascii(item) + comma;
            if !is_empty && line.len() + 1 + item.len() > self.width {
                self.wrap("", hang, &line);
                line.clone_from(&indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line += &item;
            is_empty = false;
        }
        self.wrap("", hang, &line);
    }

    /// Adds a table. The first row is its header; from the third column on there are
    /// figures. A name that is too long for the first column has a line of its own.
    pub fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        self.html += "<table>\n";
        for (i, row) in rows.iter().enumerate() {
            let tag = if i == 0 { "th" } else { "td" };
            self.html += "<tr>";
            for (column, cell) in row.iter().enumerate() {
                let class = if column < 2 { "" } else { "figure" };
                self.element(tag, class, cell);
            }
            self.html += "</tr>\n";
        }
        self.html += "</table>\n";

        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let figures: usize = (1..N).map(|column| width(column) + 2).sum();
        let name_width = width(0).min(self.width.saturating_sub(figures + 2));
        for row in rows {
            let mut name = row[0].as_str();
            if name.len() > name_width {
                self.wrap("  ", 4, name);
                name = "";
            }
            let mut line = format!("  {name:name_width$}  {:1$}", row[1], width(1));
            for (column, cell) in row.iter().enumerate().skip(2) {
                line += &format!("  {cell:>0$}", width(column));
            }
            self.wrap("", 2, &line);
        }
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

    /// Returns the HTML, which needs nothing else: no script, no font, no file of another
    /// host.
    pub fn finish_html(self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"supported-color-schemes\" content=\"light dark\">\n\
             <style>\n{MAIL_STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
            self.html
        )
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
