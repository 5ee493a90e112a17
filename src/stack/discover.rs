//! Finds the stacks of this host: every Compose project that has containers, and every
//! directory with a compose file in the directory of stacks. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::StackOptions;
use crate::config::plan::check_name;
use crate::engine::{self, Container, Status};
use crate::stack::labels::StackLabels;
use crate::sys::paths::without_symlinks;

/// Where to look, and what to pass over.
pub struct Search<'a> {
    /// The directory of stacks (`baseDir`).
    pub base_dir: &'a Path,
    /// Directories of this program. The projects of drills are in one of them.
    pub own_dirs: &'a [PathBuf],
    /// Whether nobody wants the project, or the directory, of this name.
    pub is_ignored: &'a dyn Fn(&str) -> bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Sorted by name.
    pub stacks: Vec<FoundStack>,
    /// A sentence for each project that cannot be a stack, and why.
    pub passed_over: Vec<String>,
}

/// A stack that was found on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundStack {
    pub name: String,
    pub dir: PathBuf,
    /// `None` for a directory whose project has no containers.
    pub project: Option<String>,
    /// The compose files, relative to `dir`, if Compose would not find them by itself.
    pub files: Vec<PathBuf>,
    /// The environment files, as `files`.
    pub env_files: Vec<PathBuf>,
    /// References of images, by service.
    pub images: BTreeMap<String, String>,
}

impl FoundStack {
    /// The options by which exactly this stack is backed up.
    pub fn options(&self) -> StackOptions {
        StackOptions {
            name: Some(self.name.clone()),
            path: Some(self.dir.clone()),
            project: self.project.clone(),
            files: self.files.clone(),
            env_files: self.env_files.clone(),
            ..StackOptions::default()
        }
    }
}

impl Discovery {
    /// Looks at `containers`, which are all of the Engine, and at the directory of stacks.
    pub fn of(containers: &[Container], search: &Search<'_>) -> Discovery {
        let mut discovery = Discovery::default();
        let mut projects: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        let made_by_compose = containers.iter().filter(|c| !c.project.is_empty());
        for container in made_by_compose.filter(|c| !c.one_off && !c.is_stand_in) {
            projects
                .entry(&container.project)
                .or_default()
                .push(container);
        }
        let mut dirs = BTreeSet::new();
        for (project, containers) in projects {
            let dir = working_dir(&containers);
            dirs.insert(without_symlinks(dir));
            let is_own = |own: &PathBuf| dir.starts_with(own);
            // What is wrong with labels is said when the stack is backed up.
            let labels = StackLabels::of(&containers).unwrap_or_default();
            if labels.disabled_by.is_some() {
                continue;
            }
            if (search.is_ignored)(project) || search.own_dirs.iter().any(is_own) {
                continue;
            }
            match found(project, dir, &containers) {
                Ok(stack) => discovery.stacks.push(stack),
                Err(reason) => discovery.passed_over.push(reason),
            }
        }
        discovery.name_by_directory(search.base_dir);
        for (name, dir) in directories(search.base_dir) {
            if dirs.contains(&without_symlinks(&dir)) || (search.is_ignored)(&name) {
                continue;
            }
            discovery.add_directory(name, dir);
        }
        discovery.stacks.sort_by(|a, b| a.name.cmp(&b.name));
        discovery
    }

    /// Names the stacks in `base_dir` by their directories, as in a list of stacks. A
    /// directory of several projects names none of them.
    fn name_by_directory(&mut self, base_dir: &Path) {
        let dirs: Vec<PathBuf> = self.stacks.iter().map(|stack| stack.dir.clone()).collect();
        for stack in &mut self.stacks {
            let is_alone = dirs.iter().filter(|dir| **dir == stack.dir).count() == 1;
            let name = stack.dir.file_name().and_then(OsStr::to_str);
            let is_in_base = |name: &&str| {
                without_symlinks(&base_dir.join(name)) == without_symlinks(&stack.dir)
            };
            let name = name
                .filter(is_in_base)
                .filter(|name| check_name(name).is_ok());
            if let Some(name) = name.filter(|_| is_alone) {
                stack.name = name.to_owned();
            }
        }
    }

    fn add_directory(&mut self, name: String, dir: PathBuf) {
        if let Err(error) = check_name(&name) {
            self.passed_over
                .push(format!("{}: {error:#}", dir.display()));
            return;
        }
        if let Some(other) = self.stacks.iter().find(|stack| stack.name == name) {
            self.passed_over.push(format!(
                "{} has no containers, and the stack {name} is in {}: list the stacks, and give \
                 one of the two another `name`",
                dir.display(),
                other.dir.display()
            ));
            return;
        }
        self.stacks.push(FoundStack {
            name,
            dir,
            project: None,
            files: Vec::new(),
            env_files: Vec::new(),
            images: BTreeMap::new(),
        });
    }
}

/// Returns the directory that most of a project's containers agree on: that of one that
/// runs, if any does.
fn working_dir<'a>(containers: &[&'a Container]) -> &'a Path {
    let running = containers.iter().find(|c| c.status != Status::Stopped);
    running
        .or(containers.first())
        .map_or(Path::new(""), |c| &c.working_dir)
}

/// # Errors
/// Says why the project cannot be a stack.
fn found(project: &str, dir: &Path, containers: &[&Container]) -> Result<FoundStack, String> {
    if !dir.is_absolute() || !dir.is_dir() {
        return Err(format!(
            "project {project} was started in {}, which is not on this host (by a web interface \
             in a container?): configure it with `path`, the directory of its compose file on \
             this host, and `project`",
            dir.display()
        ));
    }
    let other = containers.iter().find(|c| {
        c.status != Status::Stopped && without_symlinks(&c.working_dir) != without_symlinks(dir)
    });
    if let Some(other) = other {
        return Err(format!(
            "project {project} runs from two directories, {} and {}: stop one of them, or \
             configure it",
            dir.display(),
            other.working_dir.display()
        ));
    }
    if let Err(error) = check_name(project) {
        return Err(format!("project {project}: {error:#}"));
    }
    let newest = containers.iter().find(|c| c.working_dir == dir);
    let files = newest.map_or(&[][..], |c| &c.config_files);
    if let Some(missing) = files.iter().find(|file| !dir.join(file).exists()) {
        return Err(format!(
            "project {project} was started from {}, which is not on this host: configure it with \
             `path`, the directory of its compose file on this host, and `project`",
            missing.display()
        ));
    }
    let images = containers
        .iter()
        .map(|c| (c.service.clone(), c.image_reference.clone()));
    Ok(FoundStack {
        name: project.to_owned(),
        dir: dir.to_owned(),
        project: Some(project.to_owned()),
        files: unusual(dir, files, engine::is_default_compose_file),
        env_files: unusual(dir, newest.map_or(&[], |c| &c.env_files), |name| {
            name == ".env"
        }),
        images: images.collect(),
    })
}

/// Returns the files relative to `dir`, or nothing if Compose finds them by itself, by names
/// that are usual.
fn unusual(dir: &Path, files: &[PathBuf], is_usual: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let inside = |file: &PathBuf| file.strip_prefix(dir).unwrap_or(file).to_owned();
    let files: Vec<PathBuf> = files.iter().map(inside).collect();
    let is_usual = |file: &PathBuf| file.to_str().is_some_and(&is_usual);
    match files.iter().all(is_usual) {
        true => Vec::new(),
        false => files,
    }
}

/// Returns the directories with a compose file in `base_dir`, and their names. It is no
/// error if it cannot be read: there may be no such directory.
fn directories(base_dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(base_dir).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found = paths.filter(|path| path.is_dir() && engine::has_compose_file(path));
    let named = found.filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        // Restores unpack into hidden directories beside the stacks.
        (!name.starts_with('.')).then_some((name, path))
    });
    let mut directories: Vec<_> = named.collect();
    directories.sort();
    directories
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(project: &str, service: &str, dir: &Path, file: &str, status: &str) -> Container {
        Container::from_json(json!({
            "Id": format!("{project}-{service}"), "Name": format!("/{project}-{service}"),
            "Image": "sha256:1",
            "State": {"Status": status, "StartedAt": "", "ExitCode": 0},
            "Config": {"Image": "postgres:17", "Labels": {
                "com.docker.compose.project": project,
                "com.docker.compose.service": service,
                "com.docker.compose.project.working_dir": dir,
                "com.docker.compose.project.config_files": dir.join(file),
            }},
            "HostConfig": {},
        }))
    }

    #[test]
    fn projects_and_directories_are_stacks_and_what_cannot_be_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("stacks");
        let elsewhere = root.path().join("elsewhere");
        let state = root.path().join("state");
        for dir in [
            &base.join("web"),
            &base.join("down"),
            &base.join("empty"),
            &base.join("unwanted"),
            &base.join(".down.restore"),
            &elsewhere,
            &state.join("drill"),
        ] {
            fs::create_dir_all(dir).unwrap();
            if !dir.ends_with("empty") {
                fs::write(dir.join("compose.yaml"), "").unwrap();
            }
        }
        fs::write(elsewhere.join("other.yml"), "").unwrap();
        let containers = [
            container("my-web", "db", &base.join("web"), "compose.yaml", "running"),
            container("one", "app", &elsewhere, "compose.yaml", "exited"),
            container("two", "app", &elsewhere, "other.yml", "running"),
            container(
                "gone",
                "app",
                Path::new("/no/such"),
                "compose.yaml",
                "running",
            ),
            container(
                "drill",
                "app",
                &state.join("drill"),
                "compose.yaml",
                "running",
            ),
        ];
        let search = Search {
            base_dir: &base,
            own_dirs: std::slice::from_ref(&state),
            is_ignored: &|name| name == "unwanted",
        };
        let found = Discovery::of(&containers, &search);
        let stacks: Vec<_> = found
            .stacks
            .iter()
            .map(|stack| (&*stack.name, stack.project.as_deref(), stack.files.len()))
            .collect();
        let expected = [
            ("down", None, 0),
            ("one", Some("one"), 0),
            ("two", Some("two"), 1),
            ("web", Some("my-web"), 0),
        ];
        assert_eq!(stacks, expected);
        assert_eq!(found.stacks[3].images["db"], "postgres:17");
        assert_eq!(found.passed_over.len(), 1);
        assert!(found.passed_over[0].contains("project gone was started in /no/such"));
        // The controls: nothing is ignored, and the drill is in a directory like any other.
        let search = Search {
            own_dirs: &[],
            is_ignored: &|_| false,
            ..search
        };
        let all = Discovery::of(&containers, &search);
        let names: Vec<&str> = all.stacks.iter().map(|stack| &*stack.name).collect();
        assert_eq!(names, ["down", "drill", "one", "two", "unwanted", "web"]);
    }
}
