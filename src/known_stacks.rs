//! The stacks that the last run of all stacks found, with `"stacks": "all"`: so the next one
//! sees which are new, and which are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::config::StackOptions;
use crate::config::plan::{Plan, StackPlan};
use crate::outcome::{GoneStack, RunOutcome};
use crate::sys::state_file::{self, State};

const FORMAT_VERSION: u32 = 1;

/// Stacks by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KnownStacks {
    format_version: u32,
    stacks: BTreeMap<String, KnownStack>,
}

/// What is needed to look at a stack when the Engine does not tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KnownStack {
    path: PathBuf,
    project: Option<String>,
    files: Vec<PathBuf>,
    env_files: Vec<PathBuf>,
}

impl State for KnownStacks {
    const NAME: &'static str = "the list of known stacks";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;
}

impl Default for KnownStacks {
    fn default() -> KnownStacks {
        KnownStacks {
            format_version: FORMAT_VERSION,
            stacks: BTreeMap::new(),
        }
    }
}

impl KnownStacks {
    /// Returns the stacks as they would be configured.
    pub fn options(&self) -> impl Iterator<Item = StackOptions> {
        self.stacks.iter().map(|(name, known)| StackOptions {
            name: Some(name.clone()),
            path: Some(known.path.clone()),
            project: known.project.clone(),
            files: known.files.clone(),
            env_files: known.env_files.clone(),
            ..StackOptions::default()
        })
    }

    fn of(stacks: &[StackPlan]) -> KnownStacks {
        let known = |stack: &StackPlan| {
            let known = KnownStack {
                path: stack.dir().to_owned(),
                project: stack.compose.name.clone(),
                files: stack.compose.files.clone(),
                env_files: stack.compose.env_files.clone(),
            };
            (stack.name.clone(), known)
        };
        KnownStacks {
            stacks: stacks.iter().map(known).collect(),
            ..KnownStacks::default()
        }
    }
}

/// Reads the list; `None` if there was no run of all stacks yet.
///
/// # Errors
/// When the file cannot be read or parsed.
pub fn read(state_dir: &Path) -> Result<Option<KnownStacks>> {
    state_file::read(&path(state_dir))
}

/// Adds to the outcome of a run which stacks are new, and which are gone. Says nothing of a
/// run of some stacks, or of stacks that are configured by name.
///
/// # Errors
/// When the list of known stacks cannot be read.
pub fn compare(plan: &Plan, outcome: &mut RunOutcome) -> Result<()> {
    let Some(known) = read(&plan.state_dir)?.filter(|_| is_of_all(plan)) else {
        return Ok(());
    };
    for stack in &mut outcome.stacks {
        if !known.stacks.contains_key(&stack.stack) {
            let warning = "it is new: the run before did not find it, and it is backed up because \
                           `stacks` is \"all\"";
            tracing::warn!(stack = stack.stack, "{warning}");
            stack.warnings.push(warning.to_owned());
        }
    }
    let found: BTreeSet<&str> = plan.configured.iter().map(String::as_str).collect();
    let gone = known
        .stacks
        .iter()
        .filter(|(name, _)| !found.contains(&***name));
    for (name, known) in gone {
        let warning = format!(
            "it is gone: neither a container nor a compose file of it was found ({}); its archives \
             stay, and are not pruned",
            known.path.display()
        );
        tracing::warn!(stack = name, "{warning}");
        outcome.gone.push(GoneStack {
            stack: name.clone(),
            warnings: vec![warning],
        });
    }
    Ok(())
}

/// Remembers the stacks of a run that has told what is new.
///
/// # Errors
/// When the list cannot be written.
pub fn remember(plan: &Plan) -> Result<()> {
    match is_of_all(plan) {
        true => state_file::write(&path(&plan.state_dir), &KnownStacks::of(&plan.stacks)),
        false => Ok(()),
    }
}

fn is_of_all(plan: &Plan) -> bool {
    plan.takes_all && plan.stacks.len() == plan.configured.len()
}

fn path(state_dir: &Path) -> PathBuf {
    state_file::path(state_dir, "known-stacks")
}
