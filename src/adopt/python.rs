//! Reads the assignments of a Python file whose values are literals. Nothing is run.

use std::collections::{BTreeMap, BTreeSet};

/// A literal.
#[derive(Clone, Debug, PartialEq)]
pub enum PyValue {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// A list, a tuple or a set.
    List(Vec<PyValue>),
    Dict(Vec<(PyValue, PyValue)>),
}

/// The assignments outside of functions, by name: the value of the last one, or why it
/// was not read.
pub type Assignments = BTreeMap<String, Result<PyValue, String>>;

/// Methods that change a list or a dictionary.
const CHANGING_METHODS: [&str; 8] = [
    ".append(", ".extend(", ".insert(", ".remove(", ".update(", ".pop(", ".clear(", ".sort(",
];

/// Reads all assignments at the outermost level of a file. What is also set or changed in
/// another way, such as in a condition, has no value.
pub fn assignments(text: &str) -> Assignments {
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        changed: BTreeSet::new(),
    };
    let mut found = Assignments::new();
    while parser.at < parser.text.len() {
        let begin = parser.at;
        let target = parser.target();
        let has_target = target.is_some();
        if let Some(name) = target {
            let value = parser.whole_value();
            found.insert(name, value);
        }
        parser.at = begin;
        parser.skip_statement(has_target);
    }
    for name in parser.changed {
        let reason = "it is set or changed in a way that is not read";
        found.insert(name, Err(reason.to_owned()));
    }
    found
}

struct Parser {
    text: Vec<char>,
    at: usize,
    /// Names that a statement sets or changes in another way than by a plain assignment.
    changed: BTreeSet<String>,
}

/// Nested deeper than this, a value is not read.
const DEPTH_MAX: usize = 32;

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn starts_with(&self, word: &str) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let mut rest = rest.iter();
        word.chars().all(|c| rest.next() == Some(&c))
    }

    fn take(&mut self, word: &str) -> bool {
        let is_there = self.starts_with(word);
        if is_there {
            self.at += word.chars().count();
        }
        is_there
    }

    /// Reads the name at the beginning of a line, and the `=` after it, with a type
    /// between them or not. `None` if the line is no assignment to one name.
    fn target(&mut self) -> Option<String> {
        let name = self.word();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.blanks();
        if self.take(":") {
            while self
                .peek()
                .is_some_and(|c| c != '=' && c != '\n' && c != '#')
            {
                self.at += 1;
            }
        }
        (self.take("=") && self.peek() != Some('=')).then_some(name)
    }

    fn word(&mut self) -> String {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.at += 1;
        }
        self.text[begin..self.at].iter().collect()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|c| " \t\r".contains(c)) || self.starts_with("\\\n") {
            self.at += 1;
        }
    }

    /// Skips blanks, line breaks and comments, as within brackets.
    fn space(&mut self) {
        loop {
            self.blanks();
            match self.peek() {
                Some('#') => self.rest_of_line(),
                Some('\n') => self.at += 1,
                _ => return,
            }
        }
    }

    fn rest_of_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.at += 1;
        }
    }

    /// Reads a value with which the statement ends.
    fn whole_value(&mut self) -> Result<PyValue, String> {
        self.blanks();
        let mut items = vec![self.value(0)?];
        self.blanks();
        let mut is_tuple = false;
        while self.take(",") {
            is_tuple = true;
            self.blanks();
            if self.is_end() {
                break;
            }
            items.push(self.value(0)?);
            self.blanks();
        }
        if !self.is_end() {
            return Err("it is computed, and not a plain value".to_owned());
        }
        Ok(match is_tuple {
            true => PyValue::List(items),
            false => items.remove(0),
        })
    }

    fn is_end(&self) -> bool {
        self.peek().is_none_or(|c| "\n;#".contains(c))
    }

    fn value(&mut self, depth: usize) -> Result<PyValue, String> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deeply".to_owned());
        }
        match self.peek() {
            Some('[') => self
                .items("[", "]", depth)
                .map(|(items, _)| PyValue::List(items)),
            Some('(') => {
                let (mut items, has_comma) = self.items("(", ")", depth)?;
                Ok(match items.len() == 1 && !has_comma {
                    true => items.remove(0),
                    false => PyValue::List(items),
                })
            }
            Some('{') => self.dict(depth),
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => self.number(),
            Some(_) => self.word_or_string(),
            None => Err("it has no value".to_owned()),
        }
    }

    /// Reads items between brackets, and returns whether there was a comma.
    fn items(
        &mut self,
        open: &str,
        close: &str,
        depth: usize,
    ) -> Result<(Vec<PyValue>, bool), String> {
        self.take(open);
        let mut items = Vec::new();
        let mut has_comma = false;
        loop {
            self.space();
            if self.take(close) {
                return Ok((items, has_comma));
            }
            items.push(self.inner_value(depth)?);
            self.space();
            match self.take(",") {
                true => has_comma = true,
                false if self.take(close) => return Ok((items, has_comma)),
                false => return Err("it is computed, and not a plain value".to_owned()),
            }
        }
    }

    /// A value within brackets. Strings there may be continued on the next line.
    fn inner_value(&mut self, depth: usize) -> Result<PyValue, String> {
        let mut value = self.value(depth + 1)?;
        while let PyValue::Str(text) = &mut value {
            let before = self.at;
            self.space();
            match self.string() {
                Some(more) => text.push_str(&more?),
                None => {
                    self.at = before;
                    break;
                }
            }
        }
        Ok(value)
    }

    /// A dictionary, or a set.
    fn dict(&mut self, depth: usize) -> Result<PyValue, String> {
        self.take("{");
        let mut pairs = Vec::new();
        let mut items = Vec::new();
        loop {
            self.space();
            if self.take("}") {
                break;
            }
            let key = self.inner_value(depth)?;
            self.space();
            if self.take(":") {
                self.space();
                pairs.push((key, self.inner_value(depth)?));
                self.space();
            } else {
                items.push(key);
            }
            if !self.take(",") && self.peek() != Some('}') {
                return Err("it is computed, and not a plain value".to_owned());
            }
        }
        match (pairs.is_empty(), items.is_empty()) {
            (_, true) => Ok(PyValue::Dict(pairs)),
            (true, false) => Ok(PyValue::List(items)),
            (false, false) => Err("it is neither a dictionary nor a set".to_owned()),
        }
    }

    fn number(&mut self) -> Result<PyValue, String> {
        let begin = self.at;
        while self
            .peek()
            .is_some_and(|c| c.is_alphanumeric() || "+-._".contains(c))
        {
            self.at += 1;
        }
        let text: String = self.text[begin..self.at]
            .iter()
            .filter(|c| **c != '_')
            .collect();
        let whole = text.parse().map(PyValue::Int);
        let number = whole.or_else(|_| text.parse().map(PyValue::Float));
        number.map_err(|_| format!("{text} is not a plain number"))
    }

    fn word_or_string(&mut self) -> Result<PyValue, String> {
        if let Some(string) = self.string() {
            let mut string = string?;
            // Strings beside each other are one.
            loop {
                let before = self.at;
                self.blanks();
                match self.string() {
                    Some(more) => string.push_str(&more?),
                    None => {
                        self.at = before;
                        return Ok(PyValue::Str(string));
                    }
                }
            }
        }
        match self.word().as_str() {
            "None" => Ok(PyValue::Null),
            "True" => Ok(PyValue::Bool(true)),
            "False" => Ok(PyValue::Bool(false)),
            "" => Err("it is not a plain value".to_owned()),
            word => Err(format!("it is computed (`{word}`), and not a plain value")),
        }
    }

    /// Reads one string. `None`, and nothing is read, if there is none.
    fn string(&mut self) -> Option<Result<String, String>> {
        let begin = self.at;
        let prefix = self.word().to_lowercase();
        let quote = self.peek().filter(|c| "'\"".contains(*c));
        let is_prefix = ["", "r", "u", "b", "f", "rb", "br", "rf", "fr"].contains(&&*prefix);
        let Some(quote) = quote.filter(|_| is_prefix) else {
            self.at = begin;
            return None;
        };
        let text = self.quoted(quote, prefix.contains('r'));
        Some(match (text, prefix.contains('f')) {
            (Some(_), true) => Err("it is an f-string, which is computed".to_owned()),
            (Some(text), false) => Ok(text),
            (None, _) => Err("its string has no end".to_owned()),
        })
    }

    /// Reads up to the closing quote; `None` if there is none.
    fn quoted(&mut self, quote: char, is_raw: bool) -> Option<String> {
        let triple: String = [quote; 3].iter().collect();
        let single = quote.to_string();
        let end = if self.take(&triple) {
            &triple
        } else {
            self.take(&single);
            &single
        };
        let mut text = String::new();
        loop {
            if self.take(end) {
                return Some(text);
            }
            let c = self.peek()?;
            self.at += 1;
            if c == '\n' && end.len() == 1 {
                return None;
            }
            match c {
                '\\' if is_raw => {
                    text.push(c);
                    text.push(self.peek()?);
                    self.at += 1;
                }
                '\\' => text.push_str(&self.escaped()?),
                c => text.push(c),
            }
        }
    }

    /// What the characters after a backslash stand for.
    fn escaped(&mut self) -> Option<String> {
        let c = self.peek()?;
        self.at += 1;
        let digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' => return Some("\n".to_owned()),
            't' => return Some("\t".to_owned()),
            'r' => return Some("\r".to_owned()),
            '\n' => return Some(String::new()),
            '\\' | '\'' | '"' => return Some(c.to_string()),
            c => return Some(format!("\\{c}")),
        };
        let code: String = self.text.get(self.at..self.at + digits)?.iter().collect();
        self.at += digits;
        let character = char::from_u32(u32::from_str_radix(&code, 16).ok()?)?;
        Some(character.to_string())
    }

    /// Skips a statement with the lines that belong to it: those within brackets and
    /// strings, and the indented ones, which are no statements of the outermost level.
    /// Notes the names that it sets or changes, except those of functions, and except its
    /// first word if that was read as an assignment.
    fn skip_statement(&mut self, has_target: bool) {
        let begin = self.at;
        let is_local = matches!(self.word().as_str(), "def" | "class" | "async");
        self.at = begin;
        if has_target {
            self.target();
        }
        let mut changed: Vec<String> = Vec::new();
        let mut depth = 0_usize;
        // Those with a comma after them, which an assignment to several names may follow.
        let mut listed: Vec<String> = Vec::new();
        let mut last = String::new();
        while let Some(c) = self.peek() {
            if "'\"".contains(c) {
                let begin = self.at;
                if self.quoted(c, true).is_none() && self.at < self.text.len() {
                    // Where a string has no end, the next line begins.
                    self.at = begin;
                    self.rest_of_line();
                }
                continue;
            }
            if depth == 0 && (c.is_alphabetic() || c == '_') {
                let is_attribute = self.at > 0 && self.text[self.at - 1] == '.';
                last = self.word();
                let effect = self.effect();
                if is_attribute || effect == Effect::None {
                    listed.clear();
                } else if effect == Effect::Listed {
                    listed.push(last.clone());
                } else {
                    changed.append(&mut listed);
                    changed.push(last.clone());
                }
                continue;
            }
            match c {
                '#' => {
                    self.rest_of_line();
                    continue;
                }
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                    if depth == 0 && c == ']' && self.effect() == Effect::Changed {
                        changed.push(last.clone());
                    }
                    continue;
                }
                '\\' if self.starts_with("\\\n") => self.at += 1,
                '\n' if depth == 0 => {
                    listed.clear();
                    self.at += 1;
                    if !self.peek().is_some_and(|c| c.is_whitespace()) {
                        break;
                    }
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        if !is_local {
            self.changed.extend(changed);
        }
    }

    /// What happens to the name or item that was just read. Nothing is read.
    fn effect(&mut self) -> Effect {
        let begin = self.at;
        self.blanks();
        let rest: String = self.text[self.at..].iter().take(10).collect();
        self.at = begin;
        let operator = rest.trim_start_matches(|c| "+-*/%@&|^<>".contains(c));
        let is_comparison = rest.starts_with("<=") || rest.starts_with(">=");
        let is_assigned = operator.starts_with('=') && !operator.starts_with("==");
        let is_changed = CHANGING_METHODS
            .iter()
            .any(|method| rest.starts_with(method));
        match rest.starts_with(',') {
            true => Effect::Listed,
            false if is_changed || is_assigned && !is_comparison => Effect::Changed,
            false => Effect::None,
        }
    }
}

/// What follows a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// An assignment, or a call that changes it.
    Changed,
    /// A comma.
    Listed,
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> PyValue {
        PyValue::Str(text.to_owned())
    }

    fn value(text: &str) -> Result<PyValue, String> {
        assignments(&format!("X = {text}\n")).remove("X").unwrap()
    }

    #[test]
    fn literals_of_every_kind_are_read() {
        for (text, expected) in [
            (r#""a\n\x41é""#, string("a\nAé")),
            (r"r'\d\''", string(r"\d\'")),
            ("'a' \"b\" # c", string("ab")),
            ("'''a\nb'''", string("a\nb")),
            ("(\n  'a'  # one\n  'b'\n)", string("ab")),
            ("1_000;", PyValue::Int(1000)),
            ("-1.5", PyValue::Float(-1.5)),
            ("None", PyValue::Null),
            ("True", PyValue::Bool(true)),
            (
                "['a', # x\n 'b',\n]",
                PyValue::List(vec![string("a"), string("b")]),
            ),
            ("'a', 'b'", PyValue::List(vec![string("a"), string("b")])),
            ("('a',)", PyValue::List(vec![string("a")])),
            ("{'a', 'b'}", PyValue::List(vec![string("a"), string("b")])),
            (
                "{'a': '/x', 'b': [1]}",
                PyValue::Dict(vec![
                    (string("a"), string("/x")),
                    (string("b"), PyValue::List(vec![PyValue::Int(1)])),
                ]),
            ),
            ("{}", PyValue::Dict(Vec::new())),
        ] {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_computed_is_refused_with_a_reason() {
        for (text, expected) in [
            ("f'{BASE}/x'", "f-string"),
            ("os.environ['X']", "computed (`os`)"),
            ("BASE", "computed (`BASE`)"),
            ("'a' + B", "computed"),
            ("['a', BASE]", "computed (`BASE`)"),
            ("['a' for a in b]", "computed"),
            ("'a", "no end"),
            ("0x1f", "not a plain number"),
            ("{'a': 1, 'b'}", "neither"),
            ("", "not a plain value"),
            (&"[".repeat(100_000), "nested too deeply"),
        ] {
            let error = value(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn only_assignments_of_the_outermost_level_count() {
        let text = "#!/usr/bin/env python3\n\"\"\"A = 'in a string'\nB = 1\n\"\"\"\nimport os\n\
                    A: str = 'a'\nB=2\nif True:\n    C = 3\n\n    D = 4\nE == 5\nF += 6\n\
                    call(\nG = 7\n)\ndef f(x='it''s'):\n    H = \"unfinished\nI = 9\nI = 10\n";
        let found = assignments(text);
        let read = found.iter().filter(|(_, value)| value.is_ok());
        let names: Vec<&str> = read.map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B", "I"]);
        assert_eq!(found["A"], Ok(string("a")));
        assert_eq!(found["I"], Ok(PyValue::Int(10)));
        // What a condition sets is known to be set, and not to what.
        let unread: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(unread, ["A", "B", "C", "D", "F", "I"]);
    }

    #[test]
    fn what_is_also_changed_in_another_way_has_no_value() {
        let statements = [
            "X += ['b']",
            "X.append('b')",
            "X['b'] = 1",
            "X[0]['b'] = 1",
            "X, Y = 1, 2",
            "Y, X = 1, 2",
            "Y = X = 1",
            "Y = 1; X = 2",
            "if Y == 1:\n    pass\n    X = 2",
            "if Y: X = 2",
            "for X in Y: pass\nelse:\n  X = 2",
        ];
        for statement in statements {
            for text in [
                format!("X = 'a'\n{statement}\nZ = 1\n"),
                format!("{statement}\nX = 'a'\nZ = 1\n"),
            ] {
                let found = assignments(&text);
                let error = found["X"].as_ref().unwrap_err();
                assert!(error.contains("not read"), "{text}: {error}");
                assert_eq!(found["Z"], Ok(PyValue::Int(1)));
            }
        }
        // The controls.
        let statements = [
            "def f():\n    X = 2\n\n    X.append(1)",
            "f(X=2, y=X)",
            "if X: Y = 2",
            "Y.X = 2",
            "Y = X == 1 or X <= 2 or X != 3",
            "print(X[0], X.index(1))",
            "'X = 2'  # X = 2",
        ];
        for statement in statements {
            let text = format!("X = 'a'\n{statement}\nZ = 1\n");
            assert_eq!(assignments(&text)["X"], Ok(string("a")), "{text}");
        }
    }

    #[test]
    fn strings_without_an_end_take_linear_time() {
        let began = std::time::Instant::now();
        assignments(&"\\\"\"\"\n".repeat(200_000));
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}
