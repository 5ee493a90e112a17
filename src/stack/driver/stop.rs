//! Stopping containers, dependants before their dependencies.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::engine::{self, Container, Engine, Status};
use crate::stack::running::WasRunning;
use crate::sys::signals::Signals;

/// Groups the containers, by position, in the order in which they are stopped:
/// no container of a group is needed by one of a later group. Containers that
/// need each other share a group. Compose refuses such a cycle, but the labels
/// of two compose files may form one.
fn stop_order(containers: &[WasRunning]) -> Vec<Vec<usize>> {
    let mut left: BTreeSet<usize> = (0..containers.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let is_needed = |&i: &usize| {
            left.iter()
                .any(|&other| containers[other].needs(&containers[i]))
        };
        let mut group: Vec<usize> = left.iter().copied().filter(|i| !is_needed(i)).collect();
        if group.is_empty() {
            group = left.iter().copied().collect();
        }
        left.retain(|i| !group.contains(i));
        order.push(group);
    }
    order
}

/// Stops the containers, dependants first. `grace` overrides their own stop
/// timeouts. After a signal that asks the program to end, no further group is
/// stopped. When this returns `Ok`, no stop is under way.
///
/// # Errors
/// When any container was not stopped. If the error is a
/// [refusal](engine::was_refused), no stop is under way either.
pub(super) fn stop_in_order(
    engine: &Engine,
    containers: &[WasRunning],
    grace: Option<Duration>,
    signals: &Signals,
) -> Result<()> {
    for group in stop_order(containers) {
        if signals.received().is_some() {
            break;
        }
        let group: Vec<&WasRunning> = group.into_iter().map(|i| &containers[i]).collect();
        let ids: Vec<String> = group.iter().map(|c| c.id.clone()).collect();
        let own = group.iter().map(|c| c.stop_timeout_secs).max().unwrap_or(0);
        let longest_grace = grace.unwrap_or(Duration::from_secs(own));
        let names: Vec<&str> = group.iter().map(|c| c.name.as_str()).collect();
        tracing::debug!(containers = names.join(" "), "stopping");
        engine.stop(&ids, grace, longest_grace)?;
    }
    Ok(())
}

/// Stops those of the containers that run, all at once, each with its own stop
/// timeout.
pub fn stop_at_once(engine: &Engine, containers: &[Container]) -> Result<()> {
    let running = containers.iter().filter(|c| c.status != Status::Stopped);
    let (ids, timeouts): (Vec<String>, Vec<Duration>) =
        running.map(|c| (c.id.clone(), c.stop_timeout)).unzip();
    match timeouts.into_iter().max() {
        Some(longest_grace) => engine.stop(&ids, None, longest_grace),
        None => Ok(()),
    }
}

/// Pauses the containers, all at once. They need no order, because none of them
/// notices. Containers that were paused before stay paused.
pub(super) fn pause(engine: &Engine, containers: &[WasRunning]) -> Result<()> {
    engine::combine_errors(engine::in_parallel(containers, |was| {
        engine
            .pause(&was.id)
            .with_context(|| format!("cannot pause {}", was.name))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(containers: &[WasRunning]) -> Vec<Vec<&str>> {
        stop_order(containers)
            .into_iter()
            .map(|group| {
                group
                    .into_iter()
                    .map(|i| containers[i].service.as_str())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn dependants_stop_before_what_they_need() {
        let chain = [
            WasRunning::example("db", &[], &[]),
            WasRunning::example("api", &[("db", "service_healthy")], &[]),
            WasRunning::example("front", &[("api", "service_started")], &[]),
            WasRunning::example("sidecar", &[], &["api"]),
            WasRunning::example("alone", &[], &[]),
        ];
        assert_eq!(
            names(&chain),
            [vec!["front", "sidecar", "alone"], vec!["api"], vec!["db"]]
        );
    }

    #[test]
    fn a_dependency_that_does_not_run_does_not_count() {
        let app = [WasRunning::example(
            "app",
            &[("migrate", "service_completed_successfully")],
            &[],
        )];
        assert_eq!(names(&app), [["app"]]);
    }

    #[test]
    fn a_cycle_is_stopped_together() {
        let cycle = [
            WasRunning::example("a", &[("b", "service_started")], &[]),
            WasRunning::example("b", &[("a", "service_started")], &[]),
            WasRunning::example("top", &[("a", "service_started")], &[]),
        ];
        assert_eq!(names(&cycle), [vec!["top"], vec!["a", "b"]]);
    }
}
