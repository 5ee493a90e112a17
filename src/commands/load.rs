//! Makes a plan of the configuration file and the command line.

use std::fs;
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, Error, Result, bail, ensure};

use super::all_stacks;
use crate::cli::Global;
use crate::config::plan::Plan;
use crate::config::salvage::Salvage;
use crate::config::{
    Config, DEFAULT_BACKUP_DIR, DEFAULT_CONFIG_FILE, DEFAULT_STATE_DIR, Stack, StackOptions, Stacks,
};

/// Loads the configuration file, or what stands in for it on the command line.
///
/// # Errors
/// When there is neither, or the configuration is not valid.
pub fn load(global: &Global) -> Result<Plan> {
    check_present(global)?;
    load_or_default(global)
}

/// Does the same as [`load`], but asks no Engine: with `"stacks": "all"`, the plan has no
/// stacks.
///
/// # Errors
/// As of [`load`].
pub fn load_without_looking(global: &Global) -> Result<Plan> {
    check_present(global)?;
    load_with(global, Look::Nothing)
}

fn check_present(global: &Global) -> Result<()> {
    let has_options =
        !global.stack_dirs.is_empty() || global.backup_dir.is_some() || global.state_dir.is_some();
    let file = config_file(global, Path::new(DEFAULT_CONFIG_FILE))?;
    ensure!(
        has_options || file.is_some(),
        "there is no configuration: create {DEFAULT_CONFIG_FILE}, or give --config FILE, or --stack DIR \
         and --backup-dir DIR"
    );
    Ok(())
}

/// Does the same as [`load`], but uses the default directories if there is no
/// configuration at all.
///
/// # Errors
/// When the configuration is not valid.
pub fn load_or_default(global: &Global) -> Result<Plan> {
    load_with(global, Look::Engine)
}

/// Where the stacks of `"stacks": "all"` are looked for.
#[derive(Clone, Copy)]
enum Look {
    Nothing,
    /// In the Engine and `baseDir`, or, if the Engine does not answer, as the last run.
    Engine,
    /// Among those that the last run found. A recovery waits for no Engine before it has
    /// read the journal.
    Remembered,
}

fn load_with(global: &Global, look: Look) -> Result<Plan> {
    let file = config_file(global, Path::new(DEFAULT_CONFIG_FILE))?;
    let mut config = match file {
        Some(path) => Config::load(path)?,
        None => Config {
            state_dir: default_state_dir()?,
            log_file: None,
            retention: None,
            ..Config::default()
        },
    };
    if !global.stack_dirs.is_empty() && global.backup_dir.is_none() {
        bail!("--stack needs --backup-dir DIR, the directory of the archives");
    }
    let mut stacks = Vec::new();
    for dir in &global.stack_dirs {
        let path = Some(resolve(dir)?);
        stacks.push(Stack(StackOptions {
            path,
            ..StackOptions::default()
        }));
    }
    if !stacks.is_empty() {
        config.stacks = Stacks::Listed(stacks);
    }
    if let Some(dir) = &global.backup_dir {
        config.backup_dir = resolve(dir)?;
    }
    if let Some(dir) = &global.state_dir {
        config.state_dir = resolve(dir)?;
    }
    let plan = match (config.stacks == Stacks::All(Vec::new()), look) {
        (true, Look::Engine) => all_stacks::find(config),
        (true, Look::Remembered) => all_stacks::remembered(config),
        (true, Look::Nothing) | (false, _) => Plan::new(config),
    };
    plan.with_context(|| match file {
        Some(path) => format!("cannot use the configuration {}", path.display()),
        None => "cannot use the options on the command line".to_owned(),
    })
}

/// What `recover` needs of the configuration.
pub struct Recoverable {
    pub plan: Plan,
    /// What is wrong with the configuration.
    pub problem: Option<Error>,
}

/// Does the same as [`load_or_default`] as well as it can: a mistake in the
/// configuration must not keep a stack from being started. The interrupted run may
/// have had no configuration either.
///
/// # Errors
/// When the configuration is not valid, and the state directory does not exist.
pub fn load_to_recover(global: &Global) -> Result<Recoverable> {
    let problem = match load_with(global, Look::Remembered) {
        Ok(plan) => {
            let problem = None;
            return Ok(Recoverable { plan, problem });
        }
        Err(problem) => problem,
    };
    let file = global.config.as_deref();
    let file = file.unwrap_or(Path::new(DEFAULT_CONFIG_FILE));
    let (bytes, default) = match global.stack_dirs.as_slice() {
        [] => (fs::read(file).unwrap_or_default(), DEFAULT_STATE_DIR.into()),
        _ => (Vec::new(), default_state_dir()?),
    };
    let salvaged = Salvage::of(&bytes);
    let given = |dir: &Option<PathBuf>| dir.as_deref().map(resolve).transpose();
    let state_dir = given(&global.state_dir)?.or(salvaged.state_dir);
    let backup_dir = given(&global.backup_dir)?.or(salvaged.backup_dir);
    let plan = Plan {
        state_dir: state_dir.unwrap_or(default),
        backup_dir: backup_dir.unwrap_or_else(|| DEFAULT_BACKUP_DIR.into()),
        require_mount: None,
        log_file: salvaged.log_file,
        // It would lack the stacks.
        metrics_file: None,
        retention: None,
        email: salvaged.email,
        notify: salvaged.notify,
        handover: Vec::new(),
        ignore_projects: Vec::new(),
        fail_on_warning: false,
        stacks: Vec::new(),
        configured: Vec::new(),
        takes_all: false,
        passed_over: Vec::new(),
    };
    if !plan.state_dir.is_dir() {
        return Err(problem);
    }
    tracing::warn!(
        path = %plan.state_dir.display(),
        "the configuration is not valid; using what can be read of it, with this state directory"
    );
    Ok(Recoverable {
        plan,
        problem: Some(problem),
    })
}

/// Returns the configuration file to read. If none is named, it is `default`,
/// provided that this exists. Stacks on the command line stand in for the file;
/// --backup-dir and --state-dir do not, they only override it.
fn config_file<'a>(global: &'a Global, default: &'a Path) -> Result<Option<&'a Path>> {
    let is_replaced = !global.stack_dirs.is_empty();
    ensure!(
        !is_replaced || global.config.is_none(),
        "--stack cannot be used with --config (or $DOCKER_STACK_BACKUP_CONFIG): add the stack to \
         the configuration instead"
    );
    let default = (!is_replaced && default.exists()).then_some(default);
    Ok(global.config.as_deref().or(default))
}

/// Makes a path of the command line absolute and removes `..`. Symlinks stay,
/// because one that is a stack's directory names the stack.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let context = || format!("cannot find {}", path.display());
    if path.to_str().is_none() {
        bail!("cannot use the path {}: it is not UTF-8", path.display());
    }
    let mut resolved = PathBuf::new();
    for part in absolute(path).with_context(context)?.components() {
        if part == Component::ParentDir {
            resolved = fs::canonicalize(resolved).with_context(context)?;
            resolved.pop();
        } else {
            resolved.push(part);
        }
    }
    Ok(resolved)
}

/// Returns the state directory of a program without a configuration. Users
/// other than root cannot write to the usual one, and have their own.
fn default_state_dir() -> Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok(DEFAULT_STATE_DIR.into());
    }
    let home = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    let home =
        home.context("cannot find a directory for the journal: set HOME, or give --state-dir DIR")?;
    Ok(home.join("docker-stack-backup"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn only_stacks_on_the_command_line_replace_the_default_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let default = dir.path().join("config.json");
        let read = |args: &str| {
            let args = format!("docker-stack-backup list {args}");
            let mut global = Cli::try_parse_from(args.split_whitespace()).unwrap().global;
            // The environment of the test may name a configuration.
            global.config = global.config.filter(|_| args.contains("--config"));
            let found = config_file(&global, &default);
            found.map(|path| path.map(Path::to_owned)).ok()
        };
        let elsewhere = Some(Some(PathBuf::from("/c.json")));
        assert_eq!(read(""), Some(None));
        assert_eq!(read("--config /c.json --backup-dir /b"), elsewhere);
        fs::write(&default, "{}").unwrap();
        let default = Some(Some(default.clone()));
        for args in ["", "--backup-dir /b", "--state-dir /s --backup-dir /b"] {
            assert_eq!(read(args), default, "{args}");
        }
        assert_eq!(read("--config /c.json --backup-dir /b"), elsewhere);
        assert_eq!(read("--stack /web --backup-dir /b"), Some(None));
        assert_eq!(read("--stack /web --config /c.json"), None);
    }
}
