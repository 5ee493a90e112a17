//! Renders a proposal as a NixOS module, in the layout of nixfmt.

use serde_json::{Map, Value};

use super::proposal::{Proposal, ProposedStack};
use crate::sys::format::{one_line, without_commands};

/// Words that are not a name in Nix.
const KEYWORDS: [&str; 10] = [
    "assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with",
];

/// Returns a NixOS module with the notes as comments.
pub fn nix_module(proposal: &Proposal) -> String {
    let mut text = String::from("{\n");
    comments(&mut text, 1, &proposal.notes);
    text.push_str("  services.docker-stack-backup = {\n    enable = true;\n");
    for (name, value) in &proposal.fields {
        binding(&mut text, 2, name, value);
    }
    match proposal.stacks.as_slice() {
        [] => text.push_str("    stacks = { };\n"),
        stacks => {
            text.push_str("    stacks = {\n");
            stacks.iter().for_each(|one| stack(&mut text, one));
            text.push_str("    };\n");
        }
    }
    text.push_str("  };\n}\n");
    text
}

fn stack(text: &mut String, stack: &ProposedStack) {
    comments(text, 3, &stack.notes);
    binding(text, 3, &stack.name, &Value::Object(stack.options.clone()));
}

/// A note has names from containers in it, which must not end the comment.
fn comments(text: &mut String, depth: usize, notes: &[String]) {
    for note in notes {
        let note = without_commands(&one_line(note)).replace('\r', "\\r");
        text.push_str(&format!("{}# {note}\n", indent(depth)));
    }
}

fn binding(text: &mut String, depth: usize, name: &str, value: &Value) {
    text.push_str(&format!("{}{} = ", indent(depth), attribute(name)));
    render(text, depth, value);
    text.push_str(";\n");
}

fn render(text: &mut String, depth: usize, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::String(string) => text.push_str(&quoted(string)),
        Value::Array(items) => list(text, depth, items),
        Value::Object(fields) => set(text, depth, fields),
    }
}

fn list(text: &mut String, depth: usize, items: &[Value]) {
    match items {
        [] => text.push_str("[ ]"),
        [one @ (Value::String(_) | Value::Number(_) | Value::Bool(_))] => {
            text.push_str("[ ");
            render(text, depth, one);
            text.push_str(" ]");
        }
        items => {
            text.push_str("[\n");
            for item in items {
                text.push_str(&indent(depth + 1));
                render(text, depth + 1, item);
                text.push('\n');
            }
            text.push_str(&format!("{}]", indent(depth)));
        }
    }
}

fn set(text: &mut String, depth: usize, fields: &Map<String, Value>) {
    if fields.is_empty() {
        text.push_str("{ }");
        return;
    }
    text.push_str("{\n");
    for (name, value) in fields {
        binding(text, depth + 1, name, value);
    }
    text.push_str(&format!("{}}}", indent(depth)));
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

fn attribute(name: &str) -> String {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_plain = |c: char| is_first(c) || c.is_ascii_digit() || c == '-';
    let is_name = name.starts_with(is_first) && name.chars().all(is_plain);
    match is_name && !KEYWORDS.contains(&name) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

fn quoted(string: &str) -> String {
    let escaped = string
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace("${", "\\${")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_module_has_the_values_and_the_notes_as_comments() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let proposal = Proposal {
            fields: object(json!({"backupDir": "/srv/${x}\"\\", "email": {"to": ["a", "b"]}})),
            stacks: vec![
                ProposedStack {
                    name: "web".to_owned(),
                    options: Map::new(),
                    notes: vec!["a volume\n} of two lines".to_owned()],
                },
                ProposedStack {
                    name: "1st.in".to_owned(),
                    options: object(json!({"files": ["x.yml"], "path": "/p", "drill": false})),
                    notes: Vec::new(),
                },
            ],
            notes: Vec::new(),
        };
        let expected = r#"{
  services.docker-stack-backup = {
    enable = true;
    backupDir = "/srv/\${x}\"\\";
    email = {
      to = [
        "a"
        "b"
      ];
    };
    stacks = {
      # a volume\n} of two lines
      web = { };
      "1st.in" = {
        drill = false;
        files = [ "x.yml" ];
        path = "/p";
      };
    };
  };
}
"#;
        assert_eq!(nix_module(&proposal), expected);
    }

    #[test]
    fn a_name_that_is_a_word_of_nix_is_quoted() {
        for (name, expected) in [("in", "\"in\""), ("inn", "inn"), ("a.b", "\"a.b\"")] {
            assert_eq!(attribute(name), expected);
        }
    }
}
