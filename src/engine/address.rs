//! Where the Engine is, by the environment and the docker command's configuration.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::Deserialize;

const UNIX: &str = "unix://";
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where the Engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EngineAddress {
    Host(String),
    /// A context of the docker command.
    Context(String),
}

impl EngineAddress {
    /// Returns the address that the docker command would use.
    pub(super) fn configured() -> EngineAddress {
        EngineAddress::decide(|name| env::var(name).ok(), current_context)
    }

    /// Decides like the docker command: `DOCKER_HOST`, then `DOCKER_CONTEXT`, then
    /// `currentContext` of the command's configuration.
    fn decide(
        variable: impl Fn(&str) -> Option<String>,
        current_context: impl Fn(Option<String>) -> Option<String>,
    ) -> EngineAddress {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(host) = set("DOCKER_HOST") {
            return EngineAddress::Host(host);
        }
        match set("DOCKER_CONTEXT").or_else(|| current_context(config_dir(set))) {
            Some(context) if context != "default" => EngineAddress::Context(context),
            _ => EngineAddress::Host(format!("{UNIX}{DEFAULT_SOCKET}")),
        }
    }

    pub(super) fn socket(&self) -> Option<PathBuf> {
        match self {
            EngineAddress::Host(host) => host.strip_prefix(UNIX).map(PathBuf::from),
            EngineAddress::Context(_) => None,
        }
    }
}

/// Returns the directory of the docker command's configuration.
pub(super) fn config_dir(set: impl Fn(&str) -> Option<String>) -> Option<String> {
    set("DOCKER_CONFIG").or_else(|| Some(set("HOME")? + "/.docker"))
}

fn current_context(config_dir: Option<String>) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        current_context: Option<String>,
    }
    let json = fs::read(Path::new(&config_dir?).join("config.json")).ok()?;
    let config: Config = serde_json::from_slice(&json).ok()?;
    config.current_context.filter(|context| !context.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_one_that_the_docker_command_would_use() {
        let default = Some(PathBuf::from(DEFAULT_SOCKET));
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(Variables, Option<&str>, Option<PathBuf>); 10] = [
            (&[], None, default.clone()),
            (&[("DOCKER_HOST", "")], None, default.clone()),
            (
                &[("DOCKER_HOST", "unix:///x.sock")],
                None,
                Some("/x.sock".into()),
            ),
            (&[("DOCKER_HOST", "ssh://host")], None, None),
            (&[("DOCKER_HOST", "tcp://host:2376")], None, None),
            (&[("DOCKER_CONTEXT", "far")], None, None),
            (
                &[("DOCKER_CONTEXT", "default")],
                Some("far"),
                default.clone(),
            ),
            (&[], Some("far"), None),
            (&[], Some("default"), default),
            (
                &[("DOCKER_HOST", "unix:///x.sock"), ("DOCKER_CONTEXT", "far")],
                Some("far"),
                Some("/x.sock".into()),
            ),
        ];
        for (variables, context, expected) in cases {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let found = EngineAddress::decide(variable, |_| context.map(str::to_owned)).socket();
            assert_eq!(found, expected, "{variables:?} {context:?}");
        }
    }

    #[test]
    fn the_current_context_is_read_from_the_docker_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = || Some(dir.path().display().to_string());
        assert_eq!(current_context(path()), None);
        let cases = [
            (r#"{"currentContext": "far"}"#, Some("far")),
            (r#"{"currentContext": ""}"#, None),
            (r#"{"auths": {}}"#, None),
        ];
        for (json, expected) in cases {
            fs::write(dir.path().join("config.json"), json).unwrap();
            assert_eq!(current_context(path()).as_deref(), expected);
        }
    }
}
