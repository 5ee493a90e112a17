//! Compose projects that run although no stack is theirs, so that nothing of them is
//! backed up.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::NameGlobs;
use crate::config::plan::StackPlan;
use crate::engine::{Container, Engine, Status};
use crate::outcome::UnconfiguredProject;
use crate::stack::project::projects_of;
use crate::stack::units::UnitSet;

/// What the names of the throw-away projects of drills begin with.
pub const DRILL_PREFIX: &str = "dsbdrill-";

/// Returns the running projects that belong to no stack and are not ignored, by name.
/// `stacks` has all configured stacks, each with the project that it was last known to
/// be; `asked` the Engines, each with all of its containers.
pub fn find(
    stacks: &[(&StackPlan, Option<&str>)],
    ignored: &[String],
    asked: &[(Engine, Vec<Container>)],
) -> Vec<UnconfiguredProject> {
    // They were checked with the rest of the configuration.
    let ignored = NameGlobs::new(ignored).unwrap_or_default();
    let of_engines = asked
        .iter()
        .flat_map(|(engine, containers)| of_engine(engine, stacks, &ignored, containers));
    of_engines.collect()
}

fn of_engine(
    engine: &Engine,
    stacks: &[(&StackPlan, Option<&str>)],
    ignored: &NameGlobs,
    all_containers: &[Container],
) -> Vec<UnconfiguredProject> {
    let known: BTreeSet<String> = stacks
        .iter()
        .filter(|(stack, _)| stack.compose.engine.is_same(engine))
        .flat_map(|(stack, named)| projects_of(&stack.compose, *named, all_containers))
        .collect();
    let runs = |c: &&Container| c.status != Status::Stopped && !c.one_off && !c.is_stand_in;
    let mut found = BTreeMap::new();
    for container in all_containers.iter().filter(runs) {
        let project = &container.project;
        if !project.is_empty()
            && !project.starts_with(DRILL_PREFIX)
            && !known.contains(project)
            && !ignored.matches(project)
        {
            found.entry(project).or_insert(&container.working_dir);
        }
    }
    if !found.is_empty() {
        let of_units = of_units(engine, stacks, all_containers);
        found.retain(|project, _| !of_units.contains(project.as_str()));
    }
    let found = found.into_iter();
    found
        .map(|(project, dir)| UnconfiguredProject {
            project: project.clone(),
            dir: dir.clone(),
        })
        .collect()
}

/// Returns the projects that units of configured stacks run, as those of Arion do.
fn of_units<'a>(
    engine: &Engine,
    stacks: &[(&StackPlan, Option<&str>)],
    all_containers: &'a [Container],
) -> BTreeSet<&'a str> {
    let of_units = stacks.iter().filter(|(stack, _)| {
        // Podman at the socket of the system is asked for the units of these, too.
        stack.is_of_units()
            && (stack.compose.engine.is_same(engine) || stack.compose.engine.is_default())
    });
    // If systemd does not answer, that is told elsewhere.
    let sets = of_units.filter_map(|(stack, _)| UnitSet::of(&stack.units).ok());
    let projects = sets.flat_map(|set| {
        let own = set.containers(all_containers).into_iter();
        own.map(|container| container.project.as_str())
            .collect::<Vec<_>>()
    });
    projects.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::config::plan::Plan;

    fn container(project: &str, dir: &str, status: &str) -> Container {
        let label = |key: &str| format!("com.docker.compose.{key}");
        Container::from_json(json!({
            "Id": project, "Name": format!("/{project}"), "Image": "i",
            "State": {"Status": status, "StartedAt": "", "ExitCode": 0},
            "Config": {"Labels": {
                label("project"): project, label("project.working_dir"): dir,
            }},
            "HostConfig": {},
        }))
    }

    #[test]
    fn a_running_project_without_a_stack_is_found() {
        let config = json!({
            "stacks": [{"path": "/no-such/web"}, {"path": "/no-such/db", "project": "data"}],
            "ignoreProjects": ["test-*"],
        });
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        let plan = Plan::new(config).unwrap();
        let all = [
            container("other-name", "/no-such/web", "running"),
            container("data", "/no-such/elsewhere", "running"),
            container("paperless", "/no-such/paperless", "running"),
            container("wiki", "/no-such/wiki", "restarting"),
            // The controls.
            container("stopped", "/no-such/stopped", "exited"),
            container("test-1", "/no-such/test-1", "running"),
            container("dsbdrill-web", "/no-such/drill", "running"),
            container("", "", "running"),
        ];
        let all = [(Engine::default(), Vec::from(all))];
        let find = |named: Option<&str>| -> Vec<String> {
            let stacks: Vec<_> = plan.stacks.iter().map(|stack| (stack, named)).collect();
            let found = find(&stacks, &plan.ignore_projects, &all).into_iter();
            found.map(|found| found.project).collect()
        };
        assert_eq!(find(None), ["paperless", "wiki"]);
    }

    #[test]
    fn a_stack_that_may_be_one_of_several_projects_hides_them_all() {
        let config = Config::parse(br#"{"stacks": [{"path": "/no-such/web"}]}"#).unwrap();
        let plan = Plan::new(config).unwrap();
        let two = ["one", "two"].map(|name| container(name, "/no-such/web", "running"));
        let two = [(Engine::default(), Vec::from(two))];
        let find = |named: Option<&str>| {
            let stacks: Vec<_> = plan.stacks.iter().map(|stack| (stack, named)).collect();
            find(&stacks, &plan.ignore_projects, &two).len()
        };
        // The run fails because of that, which is told already.
        assert_eq!(find(None), 0);
        // The control: it is known which of them the stack is.
        assert_eq!(find(Some("one")), 1);
    }
}
