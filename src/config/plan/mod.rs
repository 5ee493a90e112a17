//! Turns a configuration into a plan: fills in defaults, and checks everything
//! that can be checked without touching the host. Pure functions.

mod conflicts;
mod stack;
#[cfg(test)]
mod tests;
mod units;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::{
    Channel, Config, Email, NameGlobs, OffsiteRepository, Retention, Stack, StackOptions, Stacks,
    email, handover, notify,
};
use crate::engine::Engine;
use crate::sys::similar::did_you_mean;
use conflicts::{conflicts, misplaced_repositories};
use stack::{check_options, single_stack_fields};

pub use stack::{StackPlan, check_name};

/// A configuration with its defaults filled in, and checked. Another process gets it
/// without `email` and `notify`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub backup_dir: PathBuf,
    pub require_mount: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub log_file: Option<PathBuf>,
    pub metrics_file: Option<PathBuf>,
    /// `None` keeps everything.
    pub retention: Option<Retention>,
    #[serde(skip)]
    pub email: Option<Email>,
    #[serde(skip)]
    pub notify: Vec<Channel>,
    pub handover: Vec<OffsiteRepository>,
    /// Projects that may run without a stack.
    pub ignore_projects: Vec<String>,
    pub fail_on_warning: bool,
    pub stacks: Vec<StackPlan>,
    /// The names of all configured stacks, also of those that are not selected.
    pub configured: Vec<String>,
    /// Whether the stacks are all that were found on this host, and were not named.
    pub takes_all: bool,
    /// A sentence for each Compose project that was found and cannot be backed up.
    pub passed_over: Vec<String>,
}

impl Plan {
    /// # Errors
    /// The error lists all problems of the configuration, one a line.
    pub fn new(config: Config) -> Result<Plan> {
        let mut problems = relative_paths(&config);
        let (stacks, takes_all) = match config.stacks {
            Stacks::Listed(stacks) => (stacks, false),
            Stacks::All(stacks) => (stacks, true),
        };
        let (mut stacks, stack_problems) = plan_stacks(stacks, config.defaults.0, &config.base_dir);
        problems.extend(stack_problems);
        match NameGlobs::new(&named(&config.ignore_projects)) {
            Ok(globs) => problems.extend(ignored_stacks(&stacks, &globs)),
            Err(error) => problems.push(format!("`ignoreProjects`: {error:#}")),
        }
        problems.extend(conflicts(&stacks, &config.backup_dir, &config.state_dir));
        if config
            .retention
            .as_ref()
            .is_some_and(Retention::keeps_nothing)
        {
            problems.push(
                "`retention`: keeps nothing; set a rule above 0, or `null` to keep everything"
                    .to_owned(),
            );
        }
        if let Some(Err(error)) = config.email.as_ref().map(email::validate) {
            problems.push(format!("`email`: {error:#}"));
        }
        problems.extend(notify::problems(&config.notify));
        problems.extend(handover::problems(&config.handover));
        problems.extend(misplaced_repositories(
            &config.handover,
            &stacks,
            &config.backup_dir,
        ));
        if !problems.is_empty() {
            bail!(problems.join("\n"));
        }
        let trees: Vec<Vec<PathBuf>> = stacks.iter().map(StackPlan::directories).collect();
        let engines = engines(&stacks);
        for (i, stack) in stacks.iter_mut().enumerate() {
            let others = trees.iter().enumerate().filter(|(other, _)| *other != i);
            stack.other_stacks = others.flat_map(|(_, dirs)| dirs.clone()).collect();
            stack.other_stacks.retain(|dir| !trees[i].contains(dir));
            let others = engines
                .iter()
                .filter(|other| !other.is_same(&stack.compose.engine));
            stack.other_engines = others.cloned().collect();
            stack.own_dirs = vec![config.backup_dir.clone(), config.state_dir.clone()];
        }
        Ok(Plan {
            backup_dir: config.backup_dir,
            require_mount: config.require_mount,
            state_dir: config.state_dir,
            log_file: config.log_file,
            metrics_file: config.metrics_file,
            retention: config.retention,
            email: config.email,
            notify: config.notify,
            handover: config.handover,
            ignore_projects: config.ignore_projects,
            fail_on_warning: config.fail_on_warning,
            configured: stacks.iter().map(|stack| stack.name.clone()).collect(),
            stacks,
            takes_all,
            passed_over: Vec::new(),
        })
    }

    /// Keeps only the named stacks, in the configured order. Keeps all of them
    /// when no name is given.
    pub fn select(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            if self.stack(name).is_none() {
                bail!(self.unknown_stack(name));
            }
        }
        if !names.is_empty() {
            self.stacks.retain(|stack| names.contains(&stack.name));
        }
        Ok(())
    }

    /// Returns what to say about a name that is not that of a configured stack.
    pub fn unknown_stack(&self, name: &str) -> String {
        let known = self.configured.iter().map(String::as_str);
        let known_names = self.configured.join(", ");
        let hint = did_you_mean(name, known);
        format!("no stack `{name}` is configured (there are: {known_names}){hint}")
    }

    /// Whether no configured stack is left out by [`select`](Plan::select).
    pub fn is_whole(&self) -> bool {
        self.stacks.len() == self.configured.len()
    }

    /// Returns the stack with this name; `None` if it is not configured.
    pub fn stack(&self, name: &str) -> Option<&StackPlan> {
        self.stacks.iter().find(|stack| stack.name == name)
    }
}

/// Returns the globs that name something: `*` stands for all projects that are not listed.
fn named(globs: &[String]) -> Vec<String> {
    let named = globs.iter().filter(|glob| *glob != "*");
    named.cloned().collect()
}

/// Returns a problem for each stack that is to be backed up and is to be ignored.
fn ignored_stacks(stacks: &[StackPlan], globs: &NameGlobs) -> Vec<String> {
    let names = |stack: &StackPlan| [Some(stack.name.clone()), stack.compose.name.clone()];
    let is_ignored = |stack: &&StackPlan| {
        let mut names = names(stack).into_iter().flatten();
        names.any(|name| globs.matches(&name))
    };
    let ignored = stacks.iter().filter(is_ignored);
    ignored
        .map(|stack| {
            format!(
                "`ignoreProjects`: names the stack {}, which is to be backed up; take it out of \
                 one of the two",
                stack.name
            )
        })
        .collect()
}

/// Returns the Engines of the stacks, each once. A stack of units needs none, unless it
/// names one.
pub fn engines(stacks: &[StackPlan]) -> Vec<Engine> {
    let mut engines: Vec<Engine> = Vec::new();
    let needed = |stack: &&StackPlan| !stack.is_of_units() || !stack.compose.engine.is_default();
    for stack in stacks.iter().filter(needed) {
        let engine = &stack.compose.engine;
        if !engines.iter().any(|known| known.is_same(engine)) {
            engines.push(engine.clone());
        }
    }
    engines
}

fn relative_paths(config: &Config) -> Vec<String> {
    [
        ("baseDir", Some(&config.base_dir)),
        ("backupDir", Some(&config.backup_dir)),
        ("requireMount", config.require_mount.as_ref()),
        ("stateDir", Some(&config.state_dir)),
        ("logFile", config.log_file.as_ref()),
        ("metricsFile", config.metrics_file.as_ref()),
    ]
    .into_iter()
    .filter(|(_, path)| path.is_some_and(|path| !path.is_absolute()))
    .map(|(field, _)| format!("`{field}`: must be an absolute path"))
    .collect()
}

/// Returns the stacks that can be planned, and the problems of the others.
fn plan_stacks(
    stacks: Vec<Stack>,
    mut defaults: StackOptions,
    base_dir: &Path,
) -> (Vec<StackPlan>, Vec<String>) {
    let mut problems = Vec::new();
    if let Err(error) = check_options(&defaults) {
        problems.push(format!("`defaults`: {error:#}"));
        // Otherwise every stack would repeat the problem as its own.
        defaults = StackOptions::default();
    }
    problems
        .extend(single_stack_fields(&defaults).map(|field| {
            format!("`defaults.{field}`: cannot be a default, set it for each stack")
        }));
    let mut plans = Vec::new();
    for (i, Stack(options)) in stacks.into_iter().enumerate() {
        let name = match &options.name {
            Some(name) => format!(" ({name})"),
            None => String::new(),
        };
        match StackPlan::new(options, &defaults, base_dir) {
            Ok(plan) => plans.push(plan),
            Err(error) => problems.push(format!("`stacks[{i}]`{name}: {error:#}")),
        }
    }
    (plans, problems)
}
