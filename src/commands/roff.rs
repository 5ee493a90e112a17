//! Text as man(7) has it.

use std::fmt::Write as _;

/// Returns a section with an item for each name.
pub fn section(title: &str, items: &[(&str, &str)]) -> String {
    let mut text = format!(".SH {title}\n");
    for (name, meaning) in items {
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            ".TP\n\\fB{}\\fR\n{}\n",
            escaped(name),
            escaped(meaning)
        );
    }
    text
}

/// Returns a section whose lines are not filled.
pub fn example_section(title: &str, lines: &str) -> String {
    format!(".SH {title}\n{}", verbatim(lines))
}

fn verbatim(lines: &str) -> String {
    let lines = lines.lines().map(|line| format!("{}\n", escaped(line)));
    format!(".PP\n.nf\n{}.fi\n", lines.collect::<String>())
}

/// Makes a page of a document with headings, paragraphs, lists, tables and code blocks.
pub fn from_markdown(document: &str, name: &str, number: u8) -> String {
    let mut page = format!(
        ".TH {} {number}\n.SH NAME\n{} \\- ",
        escaped(name),
        escaped(name)
    );
    page += "the configuration file of docker\\-stack\\-backup\n.SH DESCRIPTION\n";
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            page += &verbatim(&block.join("\n"));
        } else if let Some(title) = line.strip_prefix("### ") {
            let _ = writeln!(page, ".SS {}", inline(title));
        } else if let Some(title) = line.strip_prefix("## ") {
            let _ = writeln!(page, ".SH {}", inline(&title.to_uppercase()));
        } else if line.starts_with("# ") || line.starts_with("|---") || line.is_empty() {
            // The name has the title; a table has no rules.
        } else if line.starts_with('|') {
            // The line above the rule has the titles of the columns.
            if !lines.peek().is_some_and(|next| next.starts_with("|---")) {
                page += &row(line);
            }
        } else if let Some(item) = line.strip_prefix("- ") {
            let _ = writeln!(page, ".IP \\(bu 2\n{}", inline(item));
        } else {
            let _ = writeln!(page, ".PP\n{}", inline(line));
        }
    }
    page
}

/// Turns a row of a table into an item: its name, what stands between in parentheses, and
/// its meaning.
fn row(line: &str) -> String {
    let line = line.trim_matches('|').replace("\\|", "\u{1}");
    let cells: Vec<String> = line
        .split('|')
        .map(|cell| inline(&cell.trim().replace('\u{1}', "|")))
        .collect();
    match cells.as_slice() {
        [name, between @ .., meaning] => {
            let between: String = between.iter().map(|cell| format!(" ({cell})")).collect();
            format!(".TP\n{name}{between}\n{meaning}\n")
        }
        _ => String::new(),
    }
}

/// Turns code and bold text into bold, and links into their text.
fn inline(text: &str) -> String {
    let mut roff = String::new();
    let text = without_links(text).replace("**", "`");
    for (i, part) in text.split('`').enumerate() {
        match i % 2 {
            0 => roff += &escaped(part),
            _ => roff += &format!("\\fB{}\\fR", escaped(part)),
        }
    }
    // A line must not begin like a request.
    match roff.starts_with(['.', '\'']) {
        true => format!("\\&{roff}"),
        false => roff,
    }
}

/// Leaves the text of each link.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        match (before.rsplit_once('['), after.split_once(')')) {
            (Some((before, name)), Some((_, after))) => {
                plain.extend([before, name]);
                rest = after;
            }
            _ => {
                plain.extend([before, "]("]);
                rest = after;
            }
        }
    }
    plain + rest
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_document_becomes_a_page() {
        let document = "# Title\n\nSee [the `stacks`](x.md#y) of **all**.\n\n## Top-level\n\n\
            | field | default | meaning |\n|---|---|---|\n| `a` | `[]` | A \\| b. |\n\n\
            - one\n\n```json\n{ \"a\": \"\\n\" }\n.x\n```\n";
        assert_snapshot!(from_markdown(document, "x-config", 5), @r#"
        .TH x\-config 5
        .SH NAME
        x\-config \- the configuration file of docker\-stack\-backup
        .SH DESCRIPTION
        .PP
        See the \fBstacks\fR of \fBall\fR\&.
        .SH TOP\-LEVEL
        .TP
        \fBa\fR (\fB[]\fR)
        A | b.
        .IP \(bu 2
        one
        .PP
        .nf
        { "a": "\en" }
        \&.x
        .fi
        "#);
    }
}
