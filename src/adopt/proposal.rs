//! A proposed configuration, with a note where a person must decide.

use serde_json::{Map, Value};

use crate::config::Config;
use crate::config::plan::Plan;
use crate::sys::format::one_line;
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

    /// Checks the configuration as `check` does.
    ///
    /// # Errors
    /// Names all that is wrong.
    pub fn plan(&self) -> Result<Plan> {
        Plan::new(Config::parse(self.json().to_string().as_bytes())?)
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
