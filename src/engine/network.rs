//! Networks: what the Engine knows about them, making one again, and connecting
//! a container to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::address::Engine;
use super::command::docker;
use super::json::null_as_empty;

/// A network, as the Engine describes it and as the journal records it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    #[serde(alias = "Name")]
    pub name: String,
    #[serde(alias = "Id")]
    pub id: String,
    #[serde(alias = "Driver")]
    pub driver: String,
    /// `local` for a network of this Engine alone, `swarm` for one of a cluster.
    #[serde(alias = "Scope")]
    pub scope: String,
    #[serde(alias = "EnableIPv6", default)]
    pub enable_ipv6: bool,
    #[serde(alias = "Internal", default)]
    pub internal: bool,
    #[serde(alias = "Attachable", default)]
    pub attachable: bool,
    #[serde(alias = "IPAM", default)]
    pub ipam: Ipam,
    #[serde(alias = "Options", default, deserialize_with = "null_as_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(alias = "Labels", default, deserialize_with = "null_as_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How a network gives out its addresses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ipam {
    #[serde(alias = "Driver", default)]
    pub driver: String,
    #[serde(alias = "Options", default, deserialize_with = "null_as_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(alias = "Config", default, deserialize_with = "null_as_empty")]
    pub pools: Vec<AddressPool>,
}

/// A pool of addresses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPool {
    #[serde(alias = "Subnet", default)]
    pub subnet: String,
    #[serde(alias = "Gateway", default)]
    pub gateway: String,
    #[serde(alias = "IPRange", default)]
    pub ip_range: String,
    #[serde(
        alias = "AuxiliaryAddresses",
        default,
        deserialize_with = "null_as_empty"
    )]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

impl Network {
    /// A network with the driver `bridge` and the Engine's choice of addresses.
    pub fn bridge(name: &str) -> Network {
        Network {
            name: name.to_owned(),
            id: String::new(),
            driver: "bridge".to_owned(),
            scope: "local".to_owned(),
            enable_ipv6: false,
            internal: false,
            attachable: false,
            ipam: Ipam::default(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// The connection of a container to a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    #[serde(rename = "NetworkID", default)]
    pub network_id: String,
    #[serde(rename = "IPAddress", default)]
    address_v4: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    address_v6: String,
    #[serde(rename = "IPAMConfig", default, deserialize_with = "null_as_empty")]
    configured: FixedAddresses,
    #[serde(default, deserialize_with = "null_as_empty")]
    aliases: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    links: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    driver_opts: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct FixedAddresses {
    #[serde(rename = "IPv4Address", default)]
    v4: String,
    #[serde(rename = "IPv6Address", default)]
    v6: String,
}

impl Endpoint {
    /// Whether the container asks for a certain address.
    pub fn is_fixed(&self) -> bool {
        !(self.configured.v4.is_empty() && self.configured.v6.is_empty())
    }

    /// Returns the addresses that the container has, or, as long as it does not
    /// run, will ask for.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let either = |now: &str, configured: &str| {
            let now = now.parse().ok();
            now.or_else(|| configured.parse().ok())
        };
        let v4 = either(&self.address_v4, &self.configured.v4);
        let v6 = either(&self.address_v6, &self.configured.v6);
        v4.into_iter().chain(v6).collect()
    }
}

impl Engine {
    /// Creates a network with the driver, pools, labels and options of `network`, so
    /// that Compose accepts it as its own.
    pub fn create_network(&self, network: &Network) -> Result<()> {
        let created = docker(self, create_args(network)).output()?.check();
        created
            .map(drop)
            .with_context(|| format!("cannot create network {}", network.name))
    }

    /// Removes a network. It is no error if there is none of this name.
    pub fn remove_network(&self, name: &str) -> Result<()> {
        if self
            .networks(&BTreeSet::from([name.to_owned()]))?
            .is_empty()
        {
            return Ok(());
        }
        let removed = docker(self, ["network", "rm", name]).output()?.check();
        removed
            .map(drop)
            .with_context(|| format!("cannot remove network {name}"))
    }

    /// Connects a container that does not run to a network that was made again, with
    /// the aliases and fixed addresses that it had there. What refers to the network
    /// of before is dropped.
    pub fn connect(&self, container: &str, network: &str, endpoint: &Endpoint) -> Result<()> {
        let disconnect = ["network", "disconnect", "--force", network, container];
        docker(self, disconnect).output()?.check()?;
        docker(self, connect_args(container, network, endpoint))
            .output()?
            .check()
            .map(drop)
            .with_context(|| format!("cannot connect a container to network {network}"))
    }
}

fn create_args(network: &Network) -> Vec<String> {
    let mut args = ["network", "create", "--driver", &network.driver]
        .map(str::to_owned)
        .to_vec();
    for (flag, is_set) in [
        ("--ipv6", network.enable_ipv6),
        ("--internal", network.internal),
        ("--attachable", network.attachable),
    ] {
        args.extend(is_set.then(|| flag.to_owned()));
    }
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            args.extend([name.to_owned(), value.to_owned()]);
        }
    };
    option("--ipam-driver", &network.ipam.driver);
    for pool in &network.ipam.pools {
        option("--subnet", &pool.subnet);
        // The Engine tells the gateway of IPv6 with the length of its prefix.
        option("--gateway", pool.gateway.split('/').next().unwrap_or(""));
        option("--ip-range", &pool.ip_range);
        for (name, address) in &pool.auxiliary_addresses {
            option("--aux-address", &format!("{name}={address}"));
        }
    }
    for (name, pairs) in [
        ("--ipam-opt", &network.ipam.options),
        ("--opt", &network.options),
        ("--label", &network.labels),
    ] {
        for (key, value) in pairs {
            option(name, &format!("{key}={value}"));
        }
    }
    args.push(network.name.clone());
    args
}

fn connect_args(container: &str, network: &str, endpoint: &Endpoint) -> Vec<String> {
    let mut args = ["network", "connect"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            args.extend([name.to_owned(), value.to_owned()]);
        }
    };
    option("--ip", &endpoint.configured.v4);
    option("--ip6", &endpoint.configured.v6);
    for alias in &endpoint.aliases {
        option("--alias", alias);
    }
    for link in &endpoint.links {
        option("--link", link);
    }
    for (key, value) in &endpoint.driver_opts {
        option("--driver-opt", &format!("{key}={value}"));
    }
    args.extend([network.to_owned(), container.to_owned()]);
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_made_again_as_it_was_described() {
        let network: Network = serde_json::from_value(serde_json::json!({
            "Name": "p_net", "Id": "1", "Driver": "bridge", "Scope": "local",
            "EnableIPv6": true, "Internal": true, "Attachable": false,
            "IPAM": {"Driver": "default", "Options": null, "Config": [
                {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1", "IPRange": "10.1.0.128/25",
                 "AuxiliaryAddresses": {"router": "10.1.0.5"}},
                {"Subnet": "fd01::/64", "Gateway": "fd01::1/64"},
            ]},
            "Options": {"com.docker.network.bridge.name": "br-x"},
            "Labels": {"com.docker.compose.network": "net"},
        }))
        .unwrap();
        let expected = "network create --driver bridge --ipv6 --internal --ipam-driver default \
            --subnet 10.1.0.0/24 --gateway 10.1.0.1 --ip-range 10.1.0.128/25 \
            --aux-address router=10.1.0.5 --subnet fd01::/64 --gateway fd01::1 \
            --opt com.docker.network.bridge.name=br-x --label com.docker.compose.network=net p_net";
        assert_eq!(create_args(&network).join(" "), expected);
        // The journal's form is read back.
        let json = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
    }

    #[test]
    fn a_container_is_connected_with_its_aliases_and_fixed_addresses() {
        let endpoint: Endpoint = serde_json::from_value(serde_json::json!({
            "NetworkID": "1", "IPAddress": "10.1.0.9", "GlobalIPv6Address": "",
            "IPAMConfig": {"IPv4Address": "10.1.0.9"}, "Aliases": ["db", "sql"],
            "Links": null, "DriverOpts": {"a": "b"},
        }))
        .unwrap();
        assert!(endpoint.is_fixed());
        let args = connect_args("id", "p_net", &endpoint).join(" ");
        let expected = "network connect --ip 10.1.0.9 --alias db --alias sql --driver-opt a=b \
            p_net id";
        assert_eq!(args, expected);
        // The control: an address that the Engine has chosen is not asked for.
        let dynamic: Endpoint =
            serde_json::from_value(serde_json::json!({"IPAddress": "10.1.0.9", "IPAMConfig": {}}))
                .unwrap();
        assert!(!dynamic.is_fixed());
        assert_eq!(dynamic.addresses(), ["10.1.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            connect_args("id", "n", &dynamic).join(" "),
            "network connect n id"
        );
    }
}
