//! What a shell offers for an argument: names of stacks, and times of their archives. An
//! error offers nothing.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter as _};

use crate::config::plan::Plan;
use crate::config::{Config, DEFAULT_CONFIG_FILE};
use crate::known_stacks;
use crate::store::Store;

/// Offers the configured stacks.
pub fn stacks(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(plan) = plan() else {
        return Vec::new();
    };
    beginning_with(current, names(plan))
}

/// Offers stacks, after an `@` the times of their archives, and after a slash files.
pub fn archives(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    if text.contains('/') {
        return PathCompleter::any().complete(current);
    }
    let Some(plan) = plan() else {
        return Vec::new();
    };
    let Some((stack, _)) = text.split_once('@') else {
        return beginning_with(current, names(plan));
    };
    let stored = Store::open(&plan.backup_dir).and_then(|store| store.list(stack));
    let times = stored.unwrap_or_default().into_iter().rev().map(|archive| {
        let time = archive.name.time.strftime("%Y%m%d_%H%M%S");
        format!("{stack}@{time}")
    });
    beginning_with(current, times)
}

/// Returns the names of the stacks. Those of `"stacks": "all"` are as the last run found
/// them, so that nobody waits for an Engine.
fn names(plan: Plan) -> Vec<String> {
    if !plan.takes_all {
        return plan.configured;
    }
    let known = known_stacks::read(&plan.state_dir).ok().flatten();
    let known = known.unwrap_or_default();
    known.options().filter_map(|stack| stack.name).collect()
}

fn beginning_with(
    current: &OsStr,
    names: impl IntoIterator<Item = String>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let names = names.into_iter();
    names
        .filter(|name| name.starts_with(&*current))
        .map(CompletionCandidate::new)
        .collect()
}

/// Reads the configuration that the command line or the environment names.
fn plan() -> Option<Plan> {
    let words: Vec<String> = env::args().collect();
    let named = words.iter().enumerate().find_map(|(i, word)| {
        let joined = word.strip_prefix("--config=");
        let apart = || {
            matches!(&**word, "--config" | "-c")
                .then(|| words.get(i + 1))
                .flatten()
        };
        joined.map(str::to_owned).or_else(|| apart().cloned())
    });
    let named = named.or_else(|| env::var("DOCKER_STACK_BACKUP_CONFIG").ok());
    let path = named.map_or_else(|| PathBuf::from(DEFAULT_CONFIG_FILE), PathBuf::from);
    Plan::new(Config::load(&path).ok()?).ok()
}
