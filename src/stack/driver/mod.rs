//! Stopping what runs and starting exactly that again, in dependency order.
//!
//! The order is taken from the containers themselves (the label Compose puts
//! there, shared namespaces, `volumes_from`), so it is known when the compose
//! file no longer parses. Containers are started one by one rather than by
//! `docker compose start`, which would also start what a service depends on
//! and so run a finished one-shot service again.

mod start;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::engine;
use crate::stack::running::WasRunning;
use crate::sys::signals::Signals;
pub use start::start;

/// Positions of the containers, grouped so that each group needs only groups
/// after it: the order in which they are stopped. Members of a cycle, which
/// Compose refuses but labels of two compose files may add up to, share a group.
pub fn stop_order(containers: &[WasRunning]) -> Vec<Vec<usize>> {
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

/// Freezes the containers, all at once; those that were paused before are so
/// already. There is no order: none of them notices.
pub fn pause(containers: &[WasRunning]) -> Result<()> {
    engine::combine_errors(engine::in_parallel(containers, |was| {
        engine::pause(&was.id).with_context(|| format!("pause {}", was.name))
    }))
}

/// Stops the containers, dependants first. `grace` overrides their own stop
/// timeouts. No further group is stopped once an end is asked for; when this
/// returns `Ok`, no stop is under way.
pub fn stop(containers: &[WasRunning], grace: Option<Duration>, signals: &Signals) -> Result<()> {
    for group in stop_order(containers) {
        if signals.received().is_some() {
            break;
        }
        let group: Vec<&WasRunning> = group.into_iter().map(|i| &containers[i]).collect();
        let ids: Vec<String> = group.iter().map(|c| c.id.clone()).collect();
        let own = group.iter().map(|c| c.stop_timeout_secs).max().unwrap_or(0);
        let longest = grace.unwrap_or(Duration::from_secs(own));
        let names: Vec<&str> = group.iter().map(|c| c.name.as_str()).collect();
        tracing::debug!(containers = names.join(" "), "stopping");
        engine::stop(&ids, grace, longest)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Dependency;
    use crate::stack::running::StateBefore;

    pub(super) fn was(service: &str, depends_on: &[(&str, &str)], joins: &[&str]) -> WasRunning {
        WasRunning {
            id: format!("id-{service}"),
            name: format!("p-{service}-1"),
            service: service.to_owned(),
            number: 1,
            depends_on: depends_on
                .iter()
                .map(|(service, condition)| Dependency {
                    service: (*service).to_owned(),
                    condition: (*condition).to_owned(),
                })
                .collect(),
            joins: joins
                .iter()
                .map(|service| format!("id-{service}"))
                .collect(),
            before: StateBefore::Running,
            stop_timeout_secs: 10,
        }
    }

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
            was("db", &[], &[]),
            was("api", &[("db", "service_healthy")], &[]),
            was("front", &[("api", "service_started")], &[]),
            was("sidecar", &[], &["api"]),
            was("alone", &[], &[]),
        ];
        assert_eq!(
            names(&chain),
            [vec!["front", "sidecar", "alone"], vec!["api"], vec!["db"]]
        );
    }

    #[test]
    fn a_dependency_that_does_not_run_does_not_count() {
        let app = [was(
            "app",
            &[("migrate", "service_completed_successfully")],
            &[],
        )];
        assert_eq!(names(&app), [["app"]]);
    }

    #[test]
    fn a_cycle_is_stopped_together() {
        let cycle = [
            was("a", &[("b", "service_started")], &[]),
            was("b", &[("a", "service_started")], &[]),
            was("top", &[("a", "service_started")], &[]),
        ];
        assert_eq!(names(&cycle), [vec!["top"], vec!["a", "b"]]);
    }
}
