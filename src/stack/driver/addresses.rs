//! The order in which containers take their addresses.
//!
//! The Engine gives a container the lowest free address of a network when it
//! starts. So containers get their addresses again when they start in the order of
//! the addresses that they had. A container that asks for a certain address must
//! start before all that take any address, because they might take this one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;

use super::stop::stop_in_order;
use crate::engine::{Container, Engine, Status};
use crate::stack::running::{Address, WasRunning};
use crate::sys::signals::Signals;

/// Returns, for each container, those that must have their addresses before it.
/// They never need that container themselves: dependencies come first.
pub(super) fn start_order(containers: &[WasRunning]) -> Vec<BTreeSet<usize>> {
    let positions = 0..containers.len();
    let needed = positions.clone().map(|i| {
        let needed = positions
            .clone()
            .filter(|&j| containers[i].needs(&containers[j]));
        needed.collect()
    });
    let mut order = Order {
        before: needed.collect(),
    };
    let mut earlier = vec![BTreeSet::new(); containers.len()];
    let mut pairs: Vec<_> = positions
        .clone()
        .flat_map(|i| positions.clone().map(move |j| (i, j)))
        .filter_map(|(i, j)| Some((precedes(&containers[j], &containers[i])?, j, i)))
        .collect();
    pairs.sort();
    // Orders of several networks, or an order and the dependencies, may contradict
    // each other. Then the first one counts.
    for (_, j, i) in pairs {
        if !order.is_before(i, j) {
            order.before[i].insert(j);
            earlier[i].insert(j);
        }
    }
    earlier
}

/// The containers that must be up before each container.
struct Order {
    before: Vec<BTreeSet<usize>>,
}

impl Order {
    /// Whether `i` is `j`, or must be up before `j`, directly or not.
    fn is_before(&self, i: usize, j: usize) -> bool {
        let mut reached = BTreeSet::new();
        let mut left = vec![j];
        while let Some(next) = left.pop() {
            if next == i {
                return true;
            }
            if reached.insert(next) {
                left.extend(&self.before[next]);
            }
        }
        false
    }
}

/// Says how much it matters that `first` takes its address before `second`; the
/// most important is the least. `None` if it does not.
fn precedes(first: &WasRunning, second: &WasRunning) -> Option<(bool, Option<IpAddr>)> {
    let in_common = first.addresses.iter().filter_map(|of_first| {
        let mut of_second = second.addresses.iter();
        let of_second = of_second.find(|other| other.network == of_first.network)?;
        precedes_in_network(of_first, of_second)
    });
    in_common.min()
}

fn precedes_in_network(first: &Address, second: &Address) -> Option<(bool, Option<IpAddr>)> {
    let (first_address, second_address) = (first.addresses.first(), second.addresses.first());
    let is_lower = match (first_address, second_address) {
        (Some(first), Some(second)) => first < second,
        // What had no address takes one last.
        (Some(_), None) => true,
        (None, _) => false,
    };
    match (first.is_fixed, second.is_fixed) {
        (true, true) | (false, true) => None,
        (true, false) => Some((false, first_address.copied())),
        (false, false) => is_lower.then_some((true, first_address.copied())),
    }
}

/// Finds the container that has a fixed address of `was`.
pub(super) fn holder_of_address(engine: &Engine, was: &WasRunning) -> Result<Option<Container>> {
    let containers = engine.containers()?.into_iter();
    let mut others = containers.filter(|c| c.id != was.id && c.status != Status::Stopped);
    Ok(others.find(|other| holds_address(other, was)))
}

fn holds_address(other: &Container, was: &WasRunning) -> bool {
    let fixed = was.addresses.iter().filter(|address| address.is_fixed);
    fixed.into_iter().any(|fixed| {
        let endpoint = other.networks.get(&fixed.network);
        let held = endpoint.map(|endpoint| endpoint.addresses());
        let mut held = held.unwrap_or_default().into_iter();
        held.any(|address| fixed.addresses.contains(&address))
    })
}

/// Stops a container, and what needs it, so that its address becomes free. Returns
/// the positions of all that were stopped.
pub(super) fn give_way(
    engine: &Engine,
    containers: &[WasRunning],
    holder: usize,
) -> Result<BTreeSet<usize>> {
    let mut stopped = BTreeSet::from([holder]);
    // A namespace is lost with the container that it belongs to.
    while let Some(joiner) = (0..containers.len()).find(|i| {
        !stopped.contains(i)
            && stopped
                .iter()
                .any(|&j| containers[*i].joins(&containers[j]))
    }) {
        stopped.insert(joiner);
    }
    let giving_way: Vec<WasRunning> = stopped.iter().map(|&i| containers[i].clone()).collect();
    let names: Vec<&str> = giving_way.iter().map(|was| was.name.as_str()).collect();
    tracing::info!(
        containers = names.join(" "),
        "stopped once more, because another container has to have this address"
    );
    stop_in_order(engine, &giving_way, None, &Signals::default())?;
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_networks(
        service: &str,
        needs: &[(&str, &str)],
        networks: &[(&str, &str, bool)],
    ) -> WasRunning {
        let address = |&(network, address, is_fixed): &(&str, &str, bool)| Address {
            network: network.to_owned(),
            addresses: address.parse().into_iter().collect(),
            is_fixed,
        };
        WasRunning {
            addresses: networks.iter().map(address).collect(),
            ..WasRunning::example(service, needs, &[])
        }
    }

    /// Returns the names of those that start before each container.
    fn order(containers: &[WasRunning]) -> Vec<(&str, Vec<&str>)> {
        let names = |earlier: BTreeSet<usize>| {
            let names = earlier.into_iter().map(|i| &*containers[i].service);
            names.collect()
        };
        let order = start_order(containers).into_iter().map(names);
        let services = containers.iter().map(|was| &*was.service);
        services.zip(order).collect()
    }

    #[test]
    fn addresses_are_taken_in_their_order_and_fixed_ones_first() {
        let containers = [
            in_networks("web", &[], &[("net", "10.1.0.10", false)]),
            in_networks("app", &[], &[("net", "10.1.0.9", false)]),
            in_networks("dns", &[], &[("net", "10.1.0.53", true)]),
            in_networks("ntp", &[], &[("net", "10.1.0.2", true)]),
            in_networks("new", &[], &[("net", "", false)]),
            in_networks("other", &[], &[("else", "10.1.1.2", false)]),
            in_networks("host", &[], &[]),
        ];
        let expected = [
            ("web", vec!["app", "dns", "ntp"]),
            ("app", vec!["dns", "ntp"]),
            ("dns", vec![]),
            ("ntp", vec![]),
            ("new", vec!["web", "app", "dns", "ntp"]),
            ("other", vec![]),
            ("host", vec![]),
        ];
        assert_eq!(order(&containers), expected);
    }

    #[test]
    fn dependencies_and_the_first_network_come_before_the_order_of_addresses() {
        let db = [("db", "service_started")];
        let containers = [
            in_networks("db", &[], &[("net", "10.1.0.4", false)]),
            in_networks("app", &db, &[("net", "10.1.0.2", false)]),
            in_networks("dns", &db, &[("net", "10.1.0.53", true)]),
            // These two have contrary orders in two networks.
            in_networks(
                "a",
                &[],
                &[("x", "10.2.0.2", false), ("y", "10.3.0.3", false)],
            ),
            in_networks(
                "b",
                &[],
                &[("x", "10.2.0.3", false), ("y", "10.3.0.2", false)],
            ),
        ];
        let expected = [
            ("db", vec![]),
            ("app", vec!["dns"]),
            ("dns", vec![]),
            ("a", vec![]),
            ("b", vec!["a"]),
        ];
        assert_eq!(order(&containers), expected);
    }
}
