//! Problems between stacks that are valid by themselves.

use std::collections::BTreeMap;
use std::path::Path;

use super::stack::StackPlan;
use crate::config::OffsiteRepository;

/// Returns the conflicts between stacks, and between stacks and the program's own
/// directories.
pub fn conflicts(stacks: &[StackPlan], backup_dir: &Path, state_dir: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dirs: BTreeMap<&Path, &str> = BTreeMap::new();
    for stack in stacks {
        *names.entry(&stack.name).or_default() += 1;
        // Two projects may use one directory (`docker compose -p`).
        if let Some(other) = dirs.insert(stack.dir(), &stack.name)
            && other != stack.name
            && stacks
                .iter()
                .filter(|s| s.dir() == stack.dir())
                .any(|s| s.compose.name.is_none() && s.compose.files.is_empty())
        {
            problems.push(format!(
                "stacks {other} and {} have the same path {}",
                stack.name,
                stack.dir().display()
            ));
        }
        for source in std::iter::once(stack.dir()).chain(stack.include_binds.iter().map(|b| &**b)) {
            if backup_dir.starts_with(source) {
                problems.push(format!(
                    "stack {}: would archive its own archives, because `backupDir` {} lies in {}",
                    stack.name,
                    backup_dir.display(),
                    source.display()
                ));
            } else if source.starts_with(backup_dir) {
                problems.push(format!(
                    "stack {}: {} lies in `backupDir` {}, where archives would lie among the \
                     stack's files; choose a directory that holds no stack",
                    stack.name,
                    source.display(),
                    backup_dir.display()
                ));
            }
            if state_dir.starts_with(source) {
                problems.push(format!(
                    "stack {}: a restore would replace the journal that it needs for a rollback, \
                     because `stateDir` {} lies in {}; move `stateDir` elsewhere",
                    stack.name,
                    state_dir.display(),
                    source.display()
                ));
            }
        }
    }
    problems.extend(shared_units(stacks));
    let twice = names.iter().filter(|(_, count)| **count > 1);
    problems.extend(twice.map(|(name, _)| format!("stack {name} is configured twice")));
    problems
}

/// A repository on this machine in a stack would be archived into itself, and one in the store
/// would be taken for a stack.
pub fn misplaced_repositories(
    repositories: &[OffsiteRepository],
    stacks: &[StackPlan],
    backup_dir: &Path,
) -> Vec<String> {
    let sources = stacks.iter().flat_map(|stack| {
        let dirs = stack.directories().into_iter();
        dirs.map(|dir| (format!("the stack {}", stack.name), dir))
    });
    let store = ("`backupDir`".to_owned(), backup_dir.to_owned());
    let others: Vec<_> = sources.chain([store]).collect();
    let mut problems = Vec::new();
    for repository in repositories {
        let Some(path) = repository.local_path() else {
            continue;
        };
        let overlapping = others
            .iter()
            .filter(|(_, dir)| path.starts_with(dir) || dir.starts_with(path));
        problems.extend(overlapping.map(|(what, dir)| {
            format!(
                "`handover` ({}): the repository {} and {what} ({}) lie in one another; choose \
                 another directory, on another disk",
                repository.name(),
                path.display(),
                dir.display()
            )
        }));
    }
    problems
}

/// Each of two stacks would start such a unit while the other one copies its data.
fn shared_units(stacks: &[StackPlan]) -> Vec<String> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut problems = Vec::new();
    for stack in stacks {
        for unit in &stack.units {
            match owners.insert(unit, &stack.name) {
                Some(other) if other != stack.name => problems.push(format!(
                    "stacks {other} and {} have the same unit {unit}",
                    stack.name
                )),
                _ => {}
            }
        }
    }
    problems
}
