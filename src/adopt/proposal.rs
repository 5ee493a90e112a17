//! A proposed configuration, with a note where a person must decide.

use serde_json::{Map, Value};

use crate::config::Config;
use crate::config::plan::Plan;
use crate::sys::format::{json_without_commands, one_line};
use anyhow::Result;

/// A configuration and the notes on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// The fields of the configuration, but for the stacks.
    pub fields: Map<String, Value>,
    pub stacks: Vec<ProposedStack>,
    /// Notes on the configuration as a whole.
    pub notes: Vec<String>,
}

/// One stack of a proposal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProposedStack {
    pub name: String,
    /// Its options, but for the name.
    pub options: Map<String, Value>,
    pub notes: Vec<String>,
}

impl Proposal {
    /// Returns the configuration as the program reads it.
    pub fn json(&self) -> Value {
        let stack = |stack: &ProposedStack| match stack.options.is_empty() {
            true => Value::from(stack.name.clone()),
            false => {
                let mut options = stack.options.clone();
                options.insert("name".to_owned(), stack.name.clone().into());
                Value::Object(options)
            }
        };
        let mut fields = self.fields.clone();
        fields.insert("stacks".to_owned(), self.stacks.iter().map(stack).collect());
        Value::Object(fields)
    }

    /// Returns the same as text, which is shown as it is: what would command a terminal, or
    /// turn the direction of text, is escaped as JSON has it.
    ///
    /// # Errors
    /// None: there are no keys but strings.
    pub fn json_text(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(&self.json())?;
        Ok(json_without_commands(&json) + "\n")
    }

    /// Checks the configuration as `check` does.
    ///
    /// # Errors
    /// Names all that is wrong.
    pub fn plan(&self) -> Result<Plan> {
        Plan::new(Config::parse(self.json().to_string().as_bytes())?)
    }

    /// Leaves out the stacks that are not valid, by themselves or beside those before them, with
    /// a note for each. One project of a strange kind must not keep the others from being
    /// proposed.
    pub fn keep_what_fits(&mut self) {
        if self.plan().is_ok() {
            return;
        }
        for stack in std::mem::take(&mut self.stacks) {
            let name = stack.name.clone();
            self.stacks.push(stack);
            if let Err(error) = self.plan() {
                self.stacks.pop();
                let reason = format!("{error:#}").replace('\n', "; ");
                self.notes.push(format!("{name} is left out: {reason}"));
            }
        }
    }

    /// Returns the notes, one a line, each with the stack that it is about.
    pub fn notes(&self) -> Vec<String> {
        let general = self.notes.iter().map(|note| one_line(note));
        let of_stacks = self.stacks.iter().flat_map(|stack| {
            let notes = stack.notes.iter();
            notes.map(|note| one_line(&format!("{}: {note}", stack.name)))
        });
        general.chain(of_stacks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::format::without_commands;

    #[test]
    fn a_project_that_cannot_be_a_stack_does_not_keep_others_from_being_proposed() {
        let stack = |name: &str, path: &str| ProposedStack {
            name: name.to_owned(),
            options: Map::from_iter([("path".to_owned(), path.into())]),
            notes: Vec::new(),
        };
        let mut proposal = Proposal {
            stacks: vec![
                stack("a", "/srv/a"),
                stack("all", "/"),
                stack("b", "/srv/b"),
            ],
            ..Proposal::default()
        };
        assert!(proposal.plan().is_err());
        proposal.keep_what_fits();
        let names: Vec<&str> = proposal.stacks.iter().map(|stack| &*stack.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(
            proposal.notes[0].contains("all is left out: "),
            "{:?}",
            proposal.notes
        );
        // The control.
        proposal.keep_what_fits();
        assert_eq!((proposal.stacks.len(), proposal.notes.len()), (2, 1));
    }

    #[test]
    fn a_path_that_turns_the_direction_of_text_is_the_same_path_as_json() {
        let path = "/srv/\u{202e}a\u{9b}b\n\u{1b}";
        let mut proposal = Proposal::default();
        proposal.fields.insert("baseDir".to_owned(), path.into());
        let text = proposal.json_text().unwrap();
        assert_eq!(without_commands(&text), text);
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["baseDir"], path);
    }
}
