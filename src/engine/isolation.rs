//! What keeps the host out of a network.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::address::Engine;
use super::command::{docker, output_lines};
use super::podman;

/// The first version of the API with the gateway mode `isolated`.
const ISOLATED_SINCE: (u32, u32) = (1, 48);

impl Engine {
    /// Returns the options of an internal bridge network that keep the host out of it:
    /// the Engine gives the bridge no address, by which its containers could reach
    /// what the host serves. Podman cannot leave it out.
    ///
    /// Engines since 28.0 (API 1.48) have a mode for this. In earlier ones, the option
    /// that leaves out the bridge's IPv4 address has the same effect in an internal
    /// network without IPv6: <https://github.com/moby/moby/pull/49262>.
    ///
    /// # Errors
    /// When the Engine does not tell its version.
    pub fn isolating_options(&self) -> Result<BTreeMap<String, String>> {
        match self.is_podman() {
            true => Ok(podman::isolating_options()),
            false => self.api_version().map(options_since),
        }
    }

    /// Returns the newest version of the API that the Engine speaks, such as
    /// `(1, 45)`.
    fn api_version(&self) -> Result<(u32, u32)> {
        let version = match self.api()? {
            Some(api) => api.version.clone(),
            None => {
                let version = docker(self, ["version", "--format", "{{.Server.APIVersion}}"]);
                output_lines(&version.output()?.check()?).concat()
            }
        };
        let parsed = version
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        parsed.with_context(|| format!("cannot parse the version of the Engine's API: {version:?}"))
    }
}

fn options_since(version: (u32, u32)) -> BTreeMap<String, String> {
    let options: &[(&str, &str)] = match version >= ISOLATED_SINCE {
        true => &[
            ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
        ],
        false => &[("com.docker.network.bridge.inhibit_ipv4", "true")],
    };
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    options.iter().map(owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_gets_only_options_that_it_knows() {
        let names = |version| {
            let options = options_since(version);
            options
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        let inhibited = ["com.docker.network.bridge.inhibit_ipv4=true"];
        assert_eq!(names((1, 24)), inhibited);
        assert_eq!(names((1, 47)), inhibited);
        let isolated = [
            "com.docker.network.bridge.gateway_mode_ipv4=isolated",
            "com.docker.network.bridge.gateway_mode_ipv6=isolated",
        ];
        assert_eq!(names((1, 48)), isolated);
        assert_eq!(names((2, 0)), isolated);
    }
}
