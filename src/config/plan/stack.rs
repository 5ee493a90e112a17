//! The plan of one stack: its options with the defaults filled in, and checked.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::alarm::{DEFAULT_SIZE_DROP, MaxAge};
use crate::config::handover::check_chunker;
use crate::config::hook::{self, Hook};
use crate::config::stack::{
    Capture, DEFAULT_DOWN_LIMIT, DEFAULT_DRILL, DEFAULT_EXCLUDE_CACHES, DEFAULT_SHARE,
    DEFAULT_STALL_LIMIT, DEFAULT_START_TIMEOUT, OnBusy, StackOptions, StopMethod, Verify,
};
use crate::engine::{ComposeProject, Engine};
use crate::scan::Exclude;

use super::units;

/// What to do with one stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StackPlan {
    /// Name of the stack, of its archives and of their directory.
    pub name: String,
    pub compose: ComposeProject,
    /// Units of systemd that are stopped and started instead of a Compose project.
    pub units: Vec<String>,
    pub exclude: Exclude,
    pub exclude_caches: bool,
    pub exclude_volumes: Vec<String>,
    pub include_volumes: Vec<String>,
    pub include_binds: Vec<PathBuf>,
    /// Binds that are known not to be archived, by path or `service:/path`.
    pub ignore_binds: Vec<String>,
    /// Directories that the other stacks archive.
    pub other_stacks: Vec<PathBuf>,
    /// The Engines of the other stacks that are not this one's.
    pub other_engines: Vec<Engine>,
    /// `backupDir` and `stateDir`, which no archive may hold.
    pub own_dirs: Vec<PathBuf>,
    pub capture: Capture,
    pub share: bool,
    pub unshared: Exclude,
    /// `None` means `stop`, unless a label of the stack says otherwise.
    pub stop_method: Option<StopMethod>,
    /// `None` means each container's own.
    pub stop_timeout: Option<Duration>,
    pub start_timeout: Duration,
    /// How long nothing may move while the stack is down.
    pub down_limit: Duration,
    /// How long the stack may be down for its copy; `None` if that is not limited.
    pub capture_limit: Option<Duration>,
    /// How long nothing may move while the stack is up.
    pub stall_limit: Duration,
    pub on_busy: OnBusy,
    /// In the order in which those of one place run.
    pub hooks: Vec<Hook>,
    pub verify: Verify,
    /// How old the newest good archive may become without a warning; `None` for any age.
    pub max_age: Option<MaxAge>,
    /// Percentage by which an archive may be smaller than those before it.
    pub size_drop: u32,
    /// Borg's parameters; `None` if they are chosen by what an archive holds.
    pub chunker: Option<String>,
    /// Whether a drill of all stacks drills this one.
    pub drill: bool,
    pub drill_check: Vec<String>,
    /// Files of the machine that a drill may copy as secrets, or directories of
    /// them.
    pub drill_secrets: Vec<PathBuf>,
}

impl StackPlan {
    /// Combines a stack's own options with the defaults. The caller has checked
    /// the defaults.
    pub(super) fn new(
        mut own: StackOptions,
        defaults: &StackOptions,
        base_dir: &Path,
    ) -> Result<StackPlan> {
        units::check(&own, defaults)?;
        let name = match (&own.name, &own.path) {
            (Some(name), _) => name.clone(),
            (None, Some(path)) => match path.file_name().and_then(|name| name.to_str()) {
                Some(name) => name.to_owned(),
                None => bail!("`path` does not end with the name of a directory; set `name`"),
            },
            (None, None) => bail!("needs a `name` or a `path`"),
        };
        check_name(&name)?;
        check_options(&own)?;
        if let Some(project) = &own.project {
            check_project(project)?;
        }
        for path in &own.paths {
            check_path(path).context("`paths`")?;
        }
        // The first of the paths has the place of a stack's directory, and the others have
        // that of directories outside of it.
        let mut paths = std::mem::take(&mut own.paths).into_iter();
        let dir = paths.next().or(own.path);
        own.include_binds.extend(paths);
        let dir = dir.unwrap_or_else(|| base_dir.join(&name));
        check_path(&dir).context("`path`")?;
        for bind in &own.include_binds {
            check_path(bind).context("`includeBinds`")?;
        }
        for secret in &own.drill_secrets {
            check_path(secret).context("`drillSecrets`")?;
        }
        if own.drill_check.len() == 1 {
            bail!("`drillCheck`: a service needs a command after it");
        }
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let start_timeout = own.start_timeout.or(defaults.start_timeout);
        let stop_timeout = own.stop_timeout.or(defaults.stop_timeout);
        let patterns = [defaults.exclude.clone(), own.exclude].concat();
        let down_limit =
            (own.down_limit.or(defaults.down_limit)).map_or(DEFAULT_DOWN_LIMIT, seconds);
        let hooks = [defaults.hooks.clone(), own.hooks].concat().into_iter();
        let is_of_units = !own.units.is_empty();
        Ok(StackPlan {
            name,
            compose: ComposeProject {
                dir,
                name: own.project,
                files: own.files,
                env_files: own.env_files,
                engine: match own.engine.as_ref().or(defaults.engine.as_ref()) {
                    Some(host) => Engine::at(host).context("`engine`")?,
                    None => Engine::default(),
                },
            },
            units: own.units,
            exclude: Exclude::new(&patterns).context("`exclude`")?,
            exclude_caches: own
                .exclude_caches
                .or(defaults.exclude_caches)
                .unwrap_or(DEFAULT_EXCLUDE_CACHES),
            exclude_volumes: [defaults.exclude_volumes.clone(), own.exclude_volumes].concat(),
            include_volumes: [defaults.include_volumes.clone(), own.include_volumes].concat(),
            include_binds: own.include_binds,
            ignore_binds: [defaults.ignore_binds.clone(), own.ignore_binds].concat(),
            other_stacks: Vec::new(),
            other_engines: Vec::new(),
            own_dirs: Vec::new(),
            share: own.share.or(defaults.share).unwrap_or(DEFAULT_SHARE),
            unshared: Exclude::new(&[defaults.unshared.clone(), own.unshared].concat())
                .context("`unshared`")?,
            capture: own.capture.or(defaults.capture).unwrap_or_default(),
            stop_method: match is_of_units {
                // There is no other for units.
                true => None,
                false => own.stop_method.or(defaults.stop_method),
            },
            stop_timeout: stop_timeout.map(seconds),
            start_timeout: start_timeout.map_or(DEFAULT_START_TIMEOUT, seconds),
            down_limit,
            capture_limit: own.capture_limit.or(defaults.capture_limit).map(seconds),
            stall_limit: (own.stall_limit.or(defaults.stall_limit))
                .map_or(DEFAULT_STALL_LIMIT, seconds),
            on_busy: own.on_busy.or(defaults.on_busy).unwrap_or_default(),
            hooks: hooks
                .map(|options| Hook::new(options, down_limit.as_secs()))
                .collect(),
            verify: own.verify.or(defaults.verify).unwrap_or_default(),
            max_age: own.max_age.or_else(|| defaults.max_age.clone()),
            size_drop: (own.size_drop.or(defaults.size_drop)).unwrap_or(DEFAULT_SIZE_DROP),
            chunker: own.chunker.or_else(|| defaults.chunker.clone()),
            drill: own.drill.or(defaults.drill).unwrap_or(DEFAULT_DRILL),
            drill_check: own.drill_check,
            drill_secrets: own.drill_secrets,
        })
    }

    /// Whether an archive leaves out all that is at `inside` in a tree with this root.
    pub fn leaves_out(&self, root: &Path, inside: &Path) -> bool {
        self.exclude.leaves_out(root, inside, self.exclude_caches)
    }

    /// Whether the stack is made of units of systemd, and not a Compose project.
    pub fn is_of_units(&self) -> bool {
        !self.units.is_empty()
    }

    /// Returns the stack's directory, and those of `includeBinds`; or the `paths` of its
    /// units.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let dir = std::iter::once(self.compose.dir.clone());
        dir.chain(self.include_binds.iter().cloned()).collect()
    }

    /// Directory of the stack's compose file.
    pub fn dir(&self) -> &Path {
        &self.compose.dir
    }
}

/// Checks the options that a stack may set by itself or take from the defaults.
pub(super) fn check_options(options: &StackOptions) -> Result<()> {
    Exclude::new(&options.exclude).context("`exclude`")?;
    Exclude::new(&options.unshared).context("`unshared`")?;
    if let Some(host) = &options.engine {
        Engine::at(host).context("`engine`")?;
    }
    for bind in &options.ignore_binds {
        check_bind(bind).context("`ignoreBinds`")?;
    }
    ensure!(
        options.start_timeout != Some(0),
        "`startTimeout`: 0 leaves no time to start; set a number of seconds, or omit it for {}",
        DEFAULT_START_TIMEOUT.as_secs()
    );
    let limits = [
        ("downLimit", options.down_limit),
        ("captureLimit", options.capture_limit),
        ("stallLimit", options.stall_limit),
    ];
    for (field, limit) in limits {
        ensure!(
            limit != Some(0),
            "`{field}`: 0 leaves no time to copy anything; set a number of seconds, or omit it"
        );
    }
    ensure!(
        options
            .size_drop
            .is_none_or(|percent| (1..=100).contains(&percent)),
        "`sizeDrop`: must be a percentage from 1 to 100; 100 never warns"
    );
    if let Some(chunker) = &options.chunker {
        check_chunker(chunker).context("`chunker`")?;
    }
    hook::check(&options.hooks)
}

/// Returns the fields of the defaults that are set although they make sense for a
/// single stack only.
pub(super) fn single_stack_fields(defaults: &StackOptions) -> impl Iterator<Item = &'static str> {
    let fields = [
        ("name", defaults.name.is_some()),
        ("path", defaults.path.is_some()),
        ("units", !defaults.units.is_empty()),
        ("paths", !defaults.paths.is_empty()),
        ("project", defaults.project.is_some()),
        ("files", !defaults.files.is_empty()),
        ("envFiles", !defaults.env_files.is_empty()),
        ("includeBinds", !defaults.include_binds.is_empty()),
        ("drillCheck", !defaults.drill_check.is_empty()),
        ("drillSecrets", !defaults.drill_secrets.is_empty()),
    ];
    let set = fields.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(field, _)| field)
}

/// Checks a stack's name, which becomes part of file names and member paths.
pub fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || name.len() > 100 || !name.chars().all(is_plain) || !starts_well {
        bail!(
            "`{}` is not a valid name of a stack: use at most 100 of a-z A-Z 0-9 . _ - and begin \
             with a letter, a digit or _ (a stack with a `path` may have another `name`)",
            name.escape_debug()
        );
    }
    Ok(())
}

/// Checks the name of a project by Compose's rule (compose-spec, "Version and name").
fn check_project(project: &str) -> Result<()> {
    let is_first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_plain = |c: char| is_first(c) || "_-".contains(c);
    ensure!(
        project.starts_with(is_first) && project.chars().all(is_plain),
        "`project`: {project:?} is not a valid project name: use a-z 0-9 _ - and begin with a \
         letter or a digit (`docker compose ls` lists the projects)"
    );
    Ok(())
}

/// Checks the name of a bind: its path on the host, or its user.
fn check_bind(bind: &str) -> Result<()> {
    match bind.split_once(':') {
        Some((service, path)) if !service.contains('/') && path.starts_with('/') => Ok(()),
        _ => check_path(Path::new(bind))
            .context("a bind is named by its path on the host, or as `service:/path/in/container`"),
    }
}

fn check_path(path: &Path) -> Result<()> {
    if !path.is_absolute() {
        bail!("{}: must be an absolute path", path.display());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        bail!("{}: must not contain `..`", path.display());
    }
    Ok(())
}
