//! The containers of all Engines that the stacks of a plan name.

use std::time::Duration;

use anyhow::Result;

use crate::config::plan::{StackPlan, engines};
use crate::engine::{Container, Engine};

/// How long an Engine may take to list its containers.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks each Engine for all of its containers.
pub fn containers(stacks: &[StackPlan]) -> Vec<(Engine, Result<Vec<Container>>)> {
    let engines = engines(stacks).into_iter();
    engines
        .map(|engine| {
            let containers = engine.containers_within(LIMIT);
            (engine, containers)
        })
        .collect()
}

/// The same, if every Engine answers.
///
/// # Errors
/// When one does not.
pub fn all_containers(stacks: &[StackPlan]) -> Result<Vec<(Engine, Vec<Container>)>> {
    let asked = containers(stacks).into_iter();
    asked
        .map(|(engine, containers)| Ok((engine, containers?)))
        .collect()
}
