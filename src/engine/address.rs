//! Where an Engine is: at a socket that the configuration names, or where the
//! environment and the docker command's configuration say.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::{env, fs};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

const UNIX: &str = "unix://";
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// The longest path of a socket (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// An Engine: the one that the docker command would use, or the one at a socket.
///
/// In JSON it is `null` or `unix:///PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Engine(Option<String>);

impl Engine {
    /// The Engine that the docker command would use.
    pub const DEFAULT: Engine = Engine(None);

    /// Returns the Engine at a socket of this machine, given as `unix:///PATH`.
    ///
    /// # Errors
    /// When it is something else: data is read from this machine's file systems.
    pub fn at(host: &str) -> Result<Engine> {
        let path = Path::new(host.strip_prefix(UNIX).unwrap_or_default());
        ensure!(
            path.is_absolute(),
            "{host:?} is not a socket of this machine: name it as unix:///PATH, such as \
             unix:///run/user/1000/podman/podman.sock"
        );
        ensure!(
            path.components().all(|part| part != Component::ParentDir),
            "{host}: must not contain `..`"
        );
        ensure!(
            path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX,
            "{host}: the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes"
        );
        Ok(Engine(Some(host.to_owned())))
    }

    /// Whether it is the Engine that the docker command would use.
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the path of the Engine's socket; `None` if it is reached otherwise.
    pub fn socket(&self) -> Option<PathBuf> {
        self.address().socket()
    }

    /// Whether the other one is the same Engine, by the same address.
    pub fn is_same(&self, other: &Engine) -> bool {
        self.address() == other.address()
    }

    pub(super) fn address(&self) -> EngineAddress {
        match &self.0 {
            Some(host) => EngineAddress::Host(host.clone()),
            None => EngineAddress::configured(),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            EngineAddress::Host(host) => f.write_str(&host),
            EngineAddress::Context(context) => write!(f, "context {context}"),
        }
    }
}

/// Where an Engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EngineAddress {
    Host(String),
    /// A context of the docker command.
    Context(String),
}

impl EngineAddress {
    /// Returns the address that the docker command would use.
    fn configured() -> EngineAddress {
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
    fn an_engine_is_named_by_a_socket_of_this_machine() {
        for host in ["unix:///run/user/1000/podman/podman.sock", "unix:///a"] {
            let engine = Engine::at(host).unwrap();
            assert_eq!(engine.to_string(), host);
            assert!(!engine.is_default());
            let json = serde_json::to_string(&engine).unwrap();
            assert_eq!(json, format!("{host:?}"));
            assert_eq!(serde_json::from_str::<Engine>(&json).unwrap(), engine);
        }
        let long = format!("unix:///{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        for host in [
            "",
            "/run/docker.sock",
            "unix://",
            "unix://run/x",
            "unix:///run/../x",
            "tcp://127.0.0.1:2375",
            "ssh://host",
            &long,
        ] {
            assert!(Engine::at(host).is_err(), "{host}");
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
