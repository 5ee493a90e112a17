//! The docker command, and what all that is run through it has in common.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::iter::once;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{AccessFlags, User, access, geteuid, getuid};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::address::{Engine, EngineAddress, config_dir};
use super::error::{Refused, is_unreachable};
use super::owner::Owner;
use crate::sys::process::{Exit, Output, Program, directory_of};

const DOCKER: &str = "docker";
/// The docker command sets this variable for the plugins that it starts.
const STARTED_BY_DOCKER: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
/// Where packages of Docker keep its plugins, in the order in which the docker command
/// looks, after a directory of its own configuration:
/// <https://github.com/docker/cli/blob/v28.2.2/cli-plugins/manager/manager_unix.go>
const PLUGIN_DIRS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
/// Time for the docker command to list its plugins. An old one asks the Engine, too.
const PLUGIN_LIMIT: Duration = Duration::from_secs(10);
/// A `PATH` that leads to no program.
const NO_PATH: &str = "/nonexistent";
/// Memory that a docker command may use, besides its program file.
const MEMORY_LIMIT: u64 = 1 << 30;

/// What Compose may not load from elsewhere. Compose takes variables of `.env` for
/// its own environment, unless they are set there; so these are set.
const NO_REMOTE_FILES: [(&str, &str); 2] = [
    ("COMPOSE_EXPERIMENTAL_GIT_REMOTE", "false"),
    ("COMPOSE_EXPERIMENTAL_OCI_REMOTE", "false"),
];
/// What the docker command needs to reach an Engine elsewhere.
const OF_REMOTE_ENGINE: [&str; 5] = [
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION",
    "SSH_AUTH_SOCK",
];
/// What no `.env` may set for an `ssh` that the docker command runs.
const NOT_FOR_SSH: [&str; 5] = [
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
];

/// Time that the Engine may need to act on a request, on top of a grace period
/// that the request itself contains.
pub(super) const ENGINE_SLACK: Duration = Duration::from_secs(60);

/// Prepares a docker command for an Engine. It gets nothing of the environment in which this
/// program was started: Compose would put it into the files that it resolves. The
/// Engine is named by options, because variables can be overridden by a stack's
/// `.env`, and would be seen by its compose file.
///
/// For the Engine of an ordinary user, that user runs the command: the user can put
/// another Engine's socket in the place of its socket, and can name any file in the
/// compose file.
pub(super) fn docker<S: AsRef<str>>(engine: &Engine, args: impl IntoIterator<Item = S>) -> Program {
    command(engine, DOCKER, [], args)
}

/// Prepares a `docker compose` command. Compose is a plugin, which the docker command
/// would start after it has asked the plugin to describe itself; that takes more time
/// than most of these commands do. So the plugin is started directly, as the docker
/// command would start it.
pub(super) fn compose<S: AsRef<str>>(
    engine: &Engine,
    args: impl IntoIterator<Item = S>,
) -> Program {
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
    let args = once("compose".to_owned()).chain(args);
    match compose_plugin() {
        Some(file) => {
            let variables = [(STARTED_BY_DOCKER, DOCKER.into())];
            command(engine, file, variables, args).shown_as(DOCKER)
        }
        None => docker(engine, args),
    }
}

static PLUGIN: OnceLock<Option<String>> = OnceLock::new();

/// Returns the program file of the plugin that `docker compose` would start, if it can be
/// found. It is looked for once.
pub fn compose_plugin() -> Option<&'static str> {
    PLUGIN.get_or_init(find_compose_plugin).as_deref()
}

/// Tells what another process has found.
pub fn set_compose_plugin(found: Option<String>) {
    // If it was found here already, that is the same.
    let _ = PLUGIN.set(found);
}

fn find_compose_plugin() -> Option<String> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let installed = installed_plugin(config_dir(set), &PLUGIN_DIRS);
    installed.or_else(plugin_that_docker_names)
}

/// Returns the plugin as the docker command would find it, if that needs no knowledge of how
/// this docker command was built. Asking it takes as long as all that a run needs of
/// Compose for a stack.
fn installed_plugin(config_dir: Option<String>, package_dirs: &[&str]) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        cli_plugins_extra_dirs: Option<Vec<String>>,
    }
    let config_dir = config_dir.map(PathBuf::from);
    let config = match config_dir
        .as_ref()
        .map(|dir| fs::read(dir.join("config.json")))
    {
        Some(Ok(json)) => serde_json::from_slice(&json).ok()?,
        _ => Config::default(),
    };
    if config.cli_plugins_extra_dirs.is_some() {
        return None;
    }
    let own = config_dir.map(|dir| dir.join("cli-plugins"));
    let dirs = own
        .into_iter()
        .chain(package_dirs.iter().map(PathBuf::from));
    let mut files = dirs.map(|dir| dir.join("docker-compose"));
    let file = files.find(|file| file.exists())?;
    let is_program = |file: &PathBuf| access(file, AccessFlags::X_OK).is_ok();
    Some(file)
        .filter(is_program)?
        .into_os_string()
        .into_string()
        .ok()
}

fn plugin_that_docker_names() -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Plugin {
        name: String,
        path: String,
        /// Why the docker command does not start it.
        err: Option<serde_json::Value>,
    }
    let args = ["info", "--format", "{{json .ClientInfo.Plugins}}"];
    let output = docker(&Engine::default(), args)
        .limit(PLUGIN_LIMIT)
        .output()
        .ok()?;
    let plugins: Vec<Plugin> = serde_json::from_slice(&output.stdout).ok()?;
    let usable = |plugin: &Plugin| plugin.name == "compose" && plugin.err.is_none();
    Some(plugins.into_iter().find(usable)?.path)
}

fn command<S: AsRef<str>>(
    engine: &Engine,
    program: &str,
    variables: impl IntoIterator<Item = (&'static str, OsString)>,
    args: impl IntoIterator<Item = S>,
) -> Program {
    let address = engine.address();
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = engine
        .owner()
        .filter(|owner| !owner.is_root() && geteuid().is_root());
    let mut options = match &address {
        EngineAddress::Host(host) => vec!["--host".to_owned(), host.clone()],
        EngineAddress::Context(context) => vec!["--context".to_owned(), context.clone()],
    };
    let config_dir = match user {
        // That of root is not for the user, and that of the user not for root's work.
        Some(_) => Some(NO_PATH.to_owned()),
        None => config_dir(set),
    };
    if let Some(dir) = config_dir {
        options.extend(["--config".to_owned(), dir]);
    }
    let options = options.into_iter().map(OsString::from);
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
    let program = Program::with_options(program, options, args)
        .only_env(environment(&address, user).into_iter().chain(variables))
        .memory_limit(MEMORY_LIMIT);
    match user {
        // It inherits no lock, by which the next run would know that it still runs.
        Some(user) => program
            .user_ids(user.uid, user.gid)
            .inherits_nothing()
            .killed_with_this_thread(),
        None => program,
    }
}

/// Returns the environment of a docker command. Nothing is found on its `PATH`, so
/// that no version of Compose finds Git; only for an Engine elsewhere is it where
/// `ssh` is.
fn environment(address: &EngineAddress, user: Option<Owner>) -> Vec<(&'static str, OsString)> {
    let home = match user {
        Some(user) => user.home(),
        None => {
            let own = User::from_uid(getuid()).ok().flatten();
            let own = own.map(|user| user.dir);
            own.or_else(|| env::var_os("HOME").map(PathBuf::from))
        }
    };
    let home = home.map(PathBuf::into_os_string);
    let mut variables: Vec<(&'static str, OsString)> = Vec::from([
        ("HOME", home.unwrap_or_else(|| "/".into())),
        ("PATH", NO_PATH.into()),
    ]);
    variables.extend(NO_REMOTE_FILES.map(|(name, value)| (name, value.into())));
    if address.socket().is_none() {
        variables[1].1 = directory_of("ssh").unwrap_or_else(|| NO_PATH.into());
        variables
            .extend(OF_REMOTE_ENGINE.map(|name| (name, env::var_os(name).unwrap_or_default())));
        variables.extend(NOT_FOR_SSH.map(|name| (name, OsString::new())));
    }
    variables
}

impl Engine {
    /// Returns the versions of the Engine and of Compose.
    ///
    /// # Errors
    /// When either is missing, or the Engine does not answer.
    pub fn versions(&self) -> Result<(String, String)> {
        self.check()?;
        let engine = docker(self, ["version", "--format", "{{.Server.Version}}"])
            .output()?
            .check()
            .context("cannot reach the Engine (does it run, and may this user use its socket?)")?;
        let compose = compose(self, ["version", "--short"])
            .output()?
            .check()
            .context("cannot run Docker Compose (version 2 is needed, as a plugin of docker)")?;
        Ok((output_text(&engine), output_text(&compose)))
    }
}

fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns the lines a command wrote to stdout.
pub(super) fn output_lines(output: &Output) -> Vec<String> {
    output_text(output).lines().map(str::to_owned).collect()
}

/// Runs `docker KIND inspect`. That prints what it found and exits 1 for names
/// that are gone, which is no error here: things come and go between two calls.
pub(super) fn inspect<T: DeserializeOwned>(
    engine: &Engine,
    kind: &str,
    names: Vec<String>,
) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let count = names.len();
    let args = [kind.to_owned(), "inspect".to_owned()]
        .into_iter()
        .chain(names);
    let output = docker(engine, args).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let mut lines = stderr.lines().filter(|line| !line.trim().is_empty());
    // An Engine that is away has no such file as its socket.
    let tells_missing = |line: &str| {
        (line.contains("no such") || line.contains("not found")) && !line.contains("dial unix")
    };
    let only_missing = !stderr.trim().is_empty() && lines.all(tells_missing);
    let is_answer = match output.exit {
        Exit::Success => true,
        Exit::Failure(_) => only_missing,
        _ => false,
    };
    if !is_answer {
        output.check()?;
        unreachable!("check() errs unless the exit was a success");
    }
    let found = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("cannot parse the output of `docker {kind} inspect` ({count} names)")
    })?;
    Ok(found)
}

/// Checks a command that asked the Engine to change something. A command that
/// ended by itself had the Engine's answer, so its failure is a refusal, unless
/// it reports that the Engine did not answer.
pub(super) fn check_request(output: Output) -> Result<()> {
    let has_ended = matches!(output.exit, Exit::Failure(_));
    let error = match output.check() {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    match has_ended && !is_unreachable(&error) {
        true => Err(Refused(format!("{error:#}")).into()),
        false => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn compose_is_found_where_the_docker_command_would_find_it() {
        let place = tempfile::tempdir().unwrap();
        let path = |relative: &str| place.path().join(relative).to_str().unwrap().to_owned();
        let install = |dir: &str, mode: u32| {
            fs::create_dir_all(path(dir)).unwrap();
            let file = path(dir) + "/docker-compose";
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            Some(file)
        };
        let package_dirs = [path("local"), path("system")];
        let dirs = [package_dirs[0].as_str(), package_dirs[1].as_str()];
        let found = || installed_plugin(Some(path("config")), &dirs);

        assert_eq!(found(), None);
        let system = install("system", 0o755);
        assert_eq!(found(), system);
        let local = install("local", 0o755);
        assert_eq!(found(), local);
        let own = install("config/cli-plugins", 0o755);
        assert_eq!(found(), own);
        assert_eq!(installed_plugin(None, &dirs), local);
        fs::write(path("config/config.json"), r#"{"auths": {}}"#).unwrap();
        assert_eq!(found(), own);

        // What the docker command makes of these, it has to say itself.
        install("config/cli-plugins", 0o644);
        assert_eq!(found(), None);
        install("config/cli-plugins", 0o755);
        for config in [r#"{"cliPluginsExtraDirs": ["/x"]}"#, "{"] {
            fs::write(path("config/config.json"), config).unwrap();
            assert_eq!(found(), None, "{config}");
        }
    }
}
