//! From a configuration to a plan: defaults filled in, everything that can be
//! judged without touching the host judged. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::config::{
    Capture, Config, Email, OnBusy, Retention, Stack, StackOptions, StopMethod, Verify, email,
};
use crate::engine::ComposeProject;
use crate::scan::Exclude;

/// How long a stack may take to start, for stacks that set no `startTimeout` and
/// for stacks without a configuration.
pub const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(180);

#[derive(Debug)]
pub struct Plan {
    pub backup_dir: PathBuf,
    pub state_dir: PathBuf,
    pub log_file: Option<PathBuf>,
    /// `None` keeps everything.
    pub retention: Option<Retention>,
    pub email: Option<Email>,
    pub stacks: Vec<StackPlan>,
}

#[derive(Debug)]
pub struct StackPlan {
    /// Names the archives and the directory they are in.
    pub name: String,
    pub compose: ComposeProject,
    pub exclude: Exclude,
    pub exclude_caches: bool,
    pub exclude_volumes: Vec<String>,
    pub include_volumes: Vec<String>,
    pub include_binds: Vec<PathBuf>,
    pub capture: Capture,
    pub share: bool,
    pub unshared: Exclude,
    pub stop_method: StopMethod,
    /// `None`: each container's own.
    pub stop_timeout: Option<Duration>,
    pub start_timeout: Duration,
    pub on_busy: OnBusy,
    pub verify: Verify,
    pub drill_check: Vec<String>,
}

impl StackPlan {
    pub fn dir(&self) -> &Path {
        &self.compose.dir
    }
}

impl Plan {
    /// # Errors
    /// All that is wrong with the configuration, not only the first of it.
    pub fn new(config: Config) -> Result<Plan> {
        let mut problems = Vec::new();
        for (field, path) in [
            ("baseDir", Some(&config.base_dir)),
            ("backupDir", Some(&config.backup_dir)),
            ("stateDir", Some(&config.state_dir)),
            ("logFile", config.log_file.as_ref()),
        ] {
            if path.is_some_and(|path| !path.is_absolute()) {
                problems.push(format!("`{field}`: must be an absolute path"));
            }
        }
        let mut defaults = config.defaults.0;
        if let Err(error) = check_options(&defaults) {
            problems.push(format!("`defaults`: {error:#}"));
            // No stack is to be blamed for it.
            defaults = StackOptions::default();
        }
        problems.extend(own_fields(&defaults).map(|field| {
            format!("`defaults.{field}`: cannot be a default, set it for each stack")
        }));
        let mut stacks = Vec::new();
        for (i, Stack(fields)) in config.stacks.into_iter().enumerate() {
            let name = fields
                .name
                .clone()
                .map_or_else(String::new, |name| format!(" ({name})"));
            match plan_stack(fields, &defaults, &config.base_dir) {
                Ok(stack) => stacks.push(stack),
                Err(error) => problems.push(format!("`stacks[{i}]`{name}: {error:#}")),
            }
        }
        problems.extend(clashes(&stacks, &config.backup_dir, &config.state_dir));
        if let Some(policy) = &config.retention
            && policy.keeps_nothing()
        {
            problems.push(
                "`retention`: keeps nothing; set a rule above 0, or `null` to keep everything"
                    .to_owned(),
            );
        }
        if let Some(email) = &config.email
            && let Err(error) = email::validate(email)
        {
            problems.push(format!("`email`: {error:#}"));
        }
        if !problems.is_empty() {
            bail!(problems.join("\n"));
        }
        Ok(Plan {
            backup_dir: config.backup_dir,
            state_dir: config.state_dir,
            log_file: config.log_file,
            retention: config.retention,
            email: config.email,
            stacks,
        })
    }

    /// Keeps the named stacks, in the configured order; all of them when none
    /// is named.
    pub fn select(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            if !self.stacks.iter().any(|stack| stack.name == *name) {
                let known: Vec<&str> = self.stacks.iter().map(|s| s.name.as_str()).collect();
                bail!(
                    "no stack `{name}` is configured (there are: {})",
                    known.join(", ")
                );
            }
        }
        if !names.is_empty() {
            self.stacks.retain(|stack| names.contains(&stack.name));
        }
        Ok(())
    }

    /// `None` if it is not configured.
    pub fn stack(&self, name: &str) -> Option<&StackPlan> {
        self.stacks.iter().find(|stack| stack.name == name)
    }
}

/// Options that a stack may have of its own or from the defaults.
fn check_options(options: &StackOptions) -> Result<()> {
    Exclude::new(&options.exclude).context("`exclude`")?;
    Exclude::new(&options.unshared).context("`unshared`")?;
    ensure!(
        options.start_timeout != Some(0),
        "`startTimeout`: 0 leaves no time to start; give seconds, or leave it out for {}",
        DEFAULT_START_TIMEOUT.as_secs()
    );
    Ok(())
}

/// Those that are set of the fields that make no sense for several stacks.
fn own_fields(defaults: &StackOptions) -> impl Iterator<Item = &'static str> {
    let fields = [
        ("name", defaults.name.is_some()),
        ("path", defaults.path.is_some()),
        ("project", defaults.project.is_some()),
        ("files", !defaults.files.is_empty()),
        ("envFiles", !defaults.env_files.is_empty()),
        ("includeBinds", !defaults.include_binds.is_empty()),
        ("drillCheck", !defaults.drill_check.is_empty()),
    ];
    let set = fields.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(field, _)| field)
}

fn plan_stack(own: StackOptions, defaults: &StackOptions, base_dir: &Path) -> Result<StackPlan> {
    let name = match (&own.name, &own.path) {
        (Some(name), _) => name.clone(),
        (None, Some(path)) => match path.file_name().and_then(|name| name.to_str()) {
            Some(name) => name.to_owned(),
            None => bail!("`path` has no last part to name the stack by; set `name`"),
        },
        (None, None) => bail!("needs a `name` or a `path`"),
    };
    check_name(&name)?;
    check_options(&own)?;
    if let Some(project) = &own.project {
        check_project(project)?;
    }
    let dir = own.path.unwrap_or_else(|| base_dir.join(&name));
    check_path(&dir).context("`path`")?;
    for bind in &own.include_binds {
        check_path(bind).context("`includeBinds`")?;
    }
    if own.drill_check.len() == 1 {
        bail!("`drillCheck`: a service needs a command after it");
    }
    let secs = |secs: u32| Duration::from_secs(secs.into());
    let start_timeout = own.start_timeout.or(defaults.start_timeout);
    let stop_timeout = own.stop_timeout.or(defaults.stop_timeout);
    let patterns = [defaults.exclude.clone(), own.exclude].concat();
    Ok(StackPlan {
        name,
        compose: ComposeProject {
            dir,
            name: own.project,
            files: own.files,
            env_files: own.env_files,
        },
        exclude: Exclude::new(&patterns).context("`exclude`")?,
        exclude_caches: own
            .exclude_caches
            .or(defaults.exclude_caches)
            .unwrap_or(false),
        exclude_volumes: [defaults.exclude_volumes.clone(), own.exclude_volumes].concat(),
        include_volumes: [defaults.include_volumes.clone(), own.include_volumes].concat(),
        include_binds: own.include_binds,
        share: own.share.or(defaults.share).unwrap_or(true),
        unshared: Exclude::new(&[defaults.unshared.clone(), own.unshared].concat())
            .context("`unshared`")?,
        capture: own.capture.or(defaults.capture).unwrap_or_default(),
        stop_method: own.stop_method.or(defaults.stop_method).unwrap_or_default(),
        stop_timeout: stop_timeout.map(secs),
        start_timeout: start_timeout.map_or(DEFAULT_START_TIMEOUT, secs),
        on_busy: own.on_busy.or(defaults.on_busy).unwrap_or_default(),
        verify: own.verify.or(defaults.verify).unwrap_or_default(),
        drill_check: own.drill_check,
    })
}

/// A stack's name becomes part of file names and member paths.
pub fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || name.len() > 100 || !name.chars().all(is_plain) || !starts_well {
        bail!(
            "`{}` cannot name a stack: at most 100 of a-z A-Z 0-9 . _ -, the first a letter, \
             digit or _ (give a `name` beside the `path`)",
            name.escape_debug()
        );
    }
    Ok(())
}

/// Compose's rule for a project's name (compose-spec, "Version and name").
fn check_project(project: &str) -> Result<()> {
    let is_first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_plain = |c: char| is_first(c) || "_-".contains(c);
    ensure!(
        project.starts_with(is_first) && project.chars().all(is_plain),
        "`project`: {project:?} cannot be a project's name: a-z 0-9 _ - only, the first a letter or \
         digit (`docker compose ls` lists them)"
    );
    Ok(())
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

/// What is wrong between stacks, or between a stack and the program's own
/// directories.
fn clashes(stacks: &[StackPlan], backup_dir: &Path, state_dir: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dirs: BTreeMap<&Path, &str> = BTreeMap::new();
    for stack in stacks {
        *names.entry(&stack.name).or_default() += 1;
        // One directory may hold two projects (`docker compose -p`).
        if let Some(other) = dirs.insert(stack.dir(), &stack.name)
            && other != stack.name
            && stacks
                .iter()
                .filter(|s| s.dir() == stack.dir())
                .any(|s| s.compose.name.is_none() && s.compose.files.is_empty())
        {
            problems.push(format!(
                "stacks {other} and {} have the same path {}",
                stack.name,
                stack.dir().display()
            ));
        }
        for source in std::iter::once(stack.dir()).chain(stack.include_binds.iter().map(|b| &**b)) {
            if backup_dir.starts_with(source) {
                problems.push(format!(
                    "stack {}: would archive its own archives, because `backupDir` {} lies in {}",
                    stack.name,
                    backup_dir.display(),
                    source.display()
                ));
            }
            if state_dir.starts_with(source) {
                problems.push(format!(
                    "stack {}: a restore would exchange the journal it is undone by, because \
                     `stateDir` {} lies in {}: put it elsewhere",
                    stack.name,
                    state_dir.display(),
                    source.display()
                ));
            }
        }
    }
    let twice = names.iter().filter(|(_, count)| **count > 1);
    problems.extend(twice.map(|(name, _)| format!("stack {name} is there twice")));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan> {
        Plan::new(Config::parse(json.as_bytes()).unwrap())
    }

    fn problems(json: &str) -> String {
        plan(json).unwrap_err().to_string()
    }

    #[test]
    fn a_name_is_a_directory_under_the_base_and_a_path_names_its_stack() {
        let plan = plan(r#"{"baseDir": "/srv", "stacks": ["web", {"path": "/data/immich"}]}"#);
        let stacks = plan.unwrap().stacks;
        assert_eq!(stacks[0].dir(), Path::new("/srv/web"));
        assert_eq!(stacks[1].name, "immich");
        assert_eq!(stacks[1].start_timeout, Duration::from_secs(180));
    }

    #[test]
    fn a_stack_overrides_the_defaults_and_adds_to_the_excludes() {
        let plan = plan(
            r#"{"defaults": {"stopTimeout": 30, "startTimeout": 60, "exclude": ["*.tmp"]},
                "stacks": [{"name": "a", "stopTimeout": 5, "exclude": ["cache/"]}]}"#,
        );
        let stack = &plan.unwrap().stacks[0];
        assert_eq!(stack.stop_timeout, Some(Duration::from_secs(5)));
        assert_eq!(stack.start_timeout, Duration::from_secs(60));
        assert!(stack.exclude.is_excluded(Path::new("x/y.tmp"), false));
        assert!(stack.exclude.is_excluded(Path::new("cache"), true));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let problems = problems(
            r#"{"baseDir": "stacks", "backupDir": "/opt/a/backups", "retention": {"keepLast": 0},
                "stacks": ["b/c", {"name": "a", "path": "/opt/a"}, {"name": "a", "path": "/x"},
                           {"name": "d", "path": "/x/../y"}, {},
                           {"path": "/e", "exclude": ["["]}]}"#,
        );
        for expected in [
            "`baseDir`: must be an absolute path",
            "`stacks[0]` (b/c): `b/c` cannot name a stack",
            "stack a: would archive its own archives",
            "stack a is there twice",
            "`stacks[3]` (d): `path`: /x/../y: must not contain `..`",
            "`stacks[4]`: needs a `name` or a `path`",
            "`stacks[5]`: `exclude`: pattern \"[\"",
            "`retention`: keeps nothing",
        ] {
            assert!(
                problems.contains(expected),
                "{expected} is not in:\n{problems}"
            );
        }
    }

    #[test]
    fn what_is_wrong_in_the_defaults_is_not_blamed_on_a_stack() {
        for stacks in ["[]", r#"["a", "b"]"#] {
            for (options, expected) in [
                (r#""exclude": ["["]"#, "`exclude`: pattern \"[\""),
                (r#""unshared": ["["]"#, "`unshared`: pattern \"[\""),
                (
                    r#""startTimeout": 0"#,
                    "`startTimeout`: 0 leaves no time to start",
                ),
            ] {
                let json = format!(r#"{{"stacks": {stacks}, "defaults": {{{options}}}}}"#);
                let problems = problems(&json);
                let expected = format!("`defaults`: {expected}");
                assert!(problems.starts_with(&expected), "{problems}");
                assert_eq!(problems.lines().count(), 1, "{problems}");
            }
        }
    }

    #[test]
    fn what_would_fail_at_night_is_refused_before() {
        for (stack, expected) in [
            (r#""unshared": ["["]"#, "`unshared`: pattern \"[\""),
            (
                r#""startTimeout": 0"#,
                "`startTimeout`: 0 leaves no time to start",
            ),
            (
                r#""project": "My Project""#,
                "`project`: \"My Project\" cannot be",
            ),
            (r#""project": "_p""#, "`project`: \"_p\" cannot be"),
            (r#""project": """#, "`project`: \"\" cannot be"),
        ] {
            let problems = problems(&format!(r#"{{"stacks": [{{"name": "a", {stack}}}]}}"#));
            let expected = format!("`stacks[0]` (a): {expected}");
            assert!(problems.starts_with(&expected), "{problems}");
        }
        plan(r#"{"stacks": [{"name": "a", "project": "0my_project-2", "startTimeout": 1}]}"#)
            .unwrap();
        let state = r#"{"stacks": [{"path": "/srv/web"}], "stateDir": "/srv/web"#;
        for within in ["", "/state"] {
            let problems = problems(&format!(r#"{state}{within}"}}"#));
            assert!(problems.contains("`stateDir` /srv/web"), "{problems}");
        }
        plan(&format!(r#"{state}-state"}}"#)).unwrap();
    }

    #[test]
    fn two_stacks_share_a_directory_only_as_different_projects() {
        let shared = r#"{"stacks": [{"name": "a", "path": "/x"}, {"name": "b", "path": "/x"}]}"#;
        assert!(problems(shared).contains("stacks a and b have the same path /x"));
        let projects = r#"{"stacks": [{"name": "a", "path": "/x", "project": "a"},
                                      {"name": "b", "path": "/x", "project": "b"}]}"#;
        assert!(plan(projects).is_ok());
    }

    #[test]
    fn selecting_keeps_the_configured_order_and_refuses_unknown_names() {
        let mut plan = plan(r#"{"stacks": ["a", "b", "c"]}"#).unwrap();
        let error = plan.select(&["x".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no stack `x` is configured (there are: a, b, c)");
        plan.select(&["c".to_owned(), "a".to_owned()]).unwrap();
        let names: Vec<_> = plan.stacks.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
