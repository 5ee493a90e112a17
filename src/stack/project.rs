//! Which Compose project a stack is on this host.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::engine::{ComposeProject, Container, Status};
use crate::sys::paths::without_symlinks;

/// Where a stack's containers were started.
struct StackPlace {
    dir: PathBuf,
    files: Vec<PathBuf>,
}

impl StackPlace {
    fn of(compose: &ComposeProject) -> StackPlace {
        let files = compose.files.iter();
        StackPlace {
            dir: without_symlinks(&compose.dir),
            files: files
                .map(|file| without_symlinks(&compose.dir.join(file)))
                .collect(),
        }
    }

    fn has(&self, container: &Container) -> bool {
        !container.one_off
            && without_symlinks(&container.working_dir) == self.dir
            && self.is_of_files(container)
    }

    /// Two stacks may have one directory, and files of their own in it.
    fn is_of_files(&self, container: &Container) -> bool {
        let used = &container.config_files;
        let mut real = used.iter().map(|file| without_symlinks(file));
        self.files.is_empty() || used.is_empty() || real.any(|file| self.files.contains(&file))
    }
}

/// Returns the projects that a stack may be: the one that [`find_project`] finds, or all
/// that run from its place if it cannot tell which is meant.
pub fn projects_of(
    compose: &ComposeProject,
    named: Option<&str>,
    all_containers: &[Container],
) -> BTreeSet<String> {
    match find_project(compose, named, all_containers) {
        Ok(found) => found.into_iter().collect(),
        Err(_) => {
            let place = StackPlace::of(compose);
            let here = all_containers.iter().filter(|c| place.has(c));
            here.map(|c| c.project.clone()).collect()
        }
    }
}

/// Finds a stack's project: the configured one, else the one that runs from its
/// directory, else `named`, the name that Compose would give it, else the one
/// that has stopped containers from its directory. `None` if there is none of
/// these.
///
/// # Errors
/// When several projects run from the directory, or the project runs from
/// another directory.
pub fn find_project(
    compose: &ComposeProject,
    named: Option<&str>,
    all_containers: &[Container],
) -> Result<Option<String>> {
    if let Some(name) = &compose.name {
        return Ok(Some(name.clone()));
    }
    let dir = without_symlinks(&compose.dir);
    let place = StackPlace::of(compose);
    let from_here = |c: &&Container| place.has(c);
    let names = |containers: &mut dyn Iterator<Item = &Container>| -> BTreeSet<String> {
        containers.map(|c| c.project.clone()).collect()
    };
    let runs = |c: &&Container| c.status != Status::Stopped;
    let running_here = names(&mut all_containers.iter().filter(from_here).filter(runs));
    let project = match (running_here.len(), named) {
        (_, Some(name)) if running_here.contains(name) => name.to_owned(),
        (0, Some(name)) => name.to_owned(),
        (0, None) => {
            // Nothing runs, but stopped containers have the project's name, too.
            let here = names(&mut all_containers.iter().filter(from_here));
            match here.into_iter().next() {
                Some(name) => name,
                None => return Ok(None),
            }
        }
        (1, _) => running_here.into_iter().next().unwrap_or_default(),
        _ => bail!(
            "several projects run from {} ({}): set `project` to the one that is meant",
            compose.dir.display(),
            running_here.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    // Another stack would be stopped: to Compose, a project of the same name is
    // the same project.
    let other = all_containers
        .iter()
        .filter(|c| c.project == project && runs(c))
        .find(|c| without_symlinks(&c.working_dir) != dir);
    if let Some(other) = other {
        bail!(
            "project {project} runs from {}, not from {}: if it is meant nevertheless, set \
             `project`",
            other.working_dir.display(),
            compose.dir.display()
        );
    }
    Ok(Some(project))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_projects_in_one_directory_are_told_apart_by_name_or_file() {
        let container = |name: &str| {
            let label = |key: &str| format!("com.docker.compose.{key}");
            Container::from_json(json!({
                "Id": name, "Name": format!("/{name}"), "Image": "i",
                "State": {"Status": "running", "StartedAt": "", "ExitCode": 0},
                "Config": {"Labels": {
                    label("project"): name,
                    label("project.working_dir"): "/no-such",
                    label("project.config_files"): format!("/no-such/{name}.yml"),
                }},
                "HostConfig": {},
            }))
        };
        let find = |files: &[&str], named: Option<&str>, containers: &[Container]| {
            let compose = ComposeProject {
                dir: "/no-such".into(),
                name: None,
                files: files.iter().map(PathBuf::from).collect(),
                env_files: Vec::new(),
                engine: Default::default(),
            };
            let found = find_project(&compose, named, containers);
            found.map_err(|error| error.to_string())
        };
        let both = [container("one"), container("two")];
        let two = Ok(Some("two".to_owned()));
        assert_eq!(
            find(&[], Some("two"), &both),
            two,
            "by the name in the file"
        );
        assert_eq!(find(&["two.yml"], None, &both), two, "by the file");
        assert_eq!(
            find(&["two.yml"], Some("two"), &both[..1]),
            two,
            "it is down"
        );
        // The controls.
        let started_with_p = find(&["one.yml"], Some("other"), &both[..1]);
        assert_eq!(started_with_p, Ok(Some("one".to_owned())));
        assert!(
            find(&[], None, &both)
                .unwrap_err()
                .contains("several projects")
        );
    }
}
