//! A stack that runs as another project than the one that was found: then an archive
//! would hold its compose file, but none of its data.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::engine::{ComposeConfig, Container, Status};

/// Looks for containers of a compose file in other projects than `project`. Returns
/// warnings.
///
/// # Errors
/// When nothing of `project` exists, and a container with the name of one of its services
/// runs elsewhere.
pub fn find(
    project: &str,
    config: &ComposeConfig,
    all_containers: &[Container],
) -> Result<Vec<String>> {
    let exists = all_containers.iter().any(|c| c.project == project);
    let mut warnings = Vec::new();
    for (service, fields) in &config.services {
        let Some(name) = &fields.container_name else {
            continue;
        };
        let has_name = |c: &&Container| c.name == *name && c.project != project;
        let Some(other) = all_containers.iter().find(has_name) else {
            continue;
        };
        let found = named_elsewhere(project, service, other);
        if !exists && other.status != Status::Stopped {
            bail!("{found}");
        }
        warnings.push(found);
    }
    if !exists && warnings.is_empty() {
        warnings.extend(same_services(project, config, all_containers));
    }
    Ok(warnings)
}

fn named_elsewhere(project: &str, service: &str, other: &Container) -> String {
    let name = &other.name;
    let what = format!("container {name} of service {service} is not one of project {project}");
    match other.project.as_str() {
        "" => format!(
            "{what}: Compose did not make it, so the archive would not hold its data; remove it \
             and start the stack with `docker compose up -d`"
        ),
        other_project => format!(
            "{what}, but of project {other_project}, which was started in {}: set `project` to \
             {other_project} if that is this stack",
            other.working_dir.display()
        ),
    }
}

/// Warns of a project that has the same services with the same images, and was made from
/// files that are not on this host: a web interface in a container starts stacks like
/// that.
fn same_services(
    project: &str,
    config: &ComposeConfig,
    all_containers: &[Container],
) -> Option<String> {
    let mut projects: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    let made = all_containers.iter().filter(|c| !c.project.is_empty());
    for container in made.filter(|c| !c.one_off && c.status != Status::Stopped) {
        let containers = projects.entry(&container.project).or_default();
        containers.push(container);
    }
    let is_same = |container: &&Container| {
        let fields = config.services.get(&container.service);
        let has_image = |image: &String| *image == container.image_reference;
        fields.is_some_and(|fields| fields.image.as_ref().is_none_or(has_image))
            && !container.config_files.is_empty()
            && !container.config_files.iter().any(|file| file.exists())
    };
    let (other, containers) = projects
        .into_iter()
        .find(|(_, containers)| containers.iter().all(is_same))?;
    let dir = containers.first()?.working_dir.display();
    Some(format!(
        "no container of project {project} exists, but project {other}, which was started in \
         {dir} from files that are not on this host, has the same services: set `project` to \
         {other} if that is this stack, or the archive does not hold its data"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config() -> ComposeConfig {
        let services = json!({"app": {"image": "i", "container_name": "the-app"}, "db": {}});
        ComposeConfig::from_json(json!({"name": "5", "services": services})).unwrap()
    }

    fn container(name: &str, project: &str, service: &str, status: &str) -> Container {
        Container::from_json(json!({
            "Id": name, "Name": format!("/{name}"), "Image": "sha256:1",
            "State": {"Status": status, "StartedAt": "", "ExitCode": 0},
            "Config": {"Image": "i", "Labels": labels(project, service)},
            "HostConfig": {},
        }))
    }

    fn labels(project: &str, service: &str) -> Value {
        json!({
            "com.docker.compose.project": project,
            "com.docker.compose.service": service,
            "com.docker.compose.project.working_dir": "/data/5",
            "com.docker.compose.project.config_files": "/no-such/compose.yaml",
        })
    }

    fn found(containers: &[Container]) -> String {
        match find("5", &config(), containers) {
            Ok(warnings) => warnings.join("; "),
            Err(error) => format!("refused: {error}"),
        }
    }

    #[test]
    fn a_container_name_that_runs_in_another_project_is_refused_or_a_warning() {
        let other = container("the-app", "media", "app", "running");
        let refused = found(std::slice::from_ref(&other));
        assert!(
            refused.starts_with("refused: container the-app"),
            "{refused}"
        );
        assert!(refused.contains("set `project` to media"), "{refused}");
        let own = container("5-db-1", "5", "db", "running");
        assert!(found(&[other, own.clone()]).starts_with("container the-app"));
        let stopped = container("the-app", "media", "app", "exited");
        assert!(found(&[stopped]).starts_with("container the-app"));
        let without_compose = container("the-app", "", "", "running");
        assert!(found(&[without_compose]).contains("Compose did not make it"));
        // The controls.
        assert_eq!(
            found(&[container("the-app", "5", "app", "running"), own]),
            ""
        );
        assert_eq!(found(&[]), "");
    }

    #[test]
    fn a_project_with_the_same_services_from_files_elsewhere_is_a_warning() {
        let app = container("media-app-1", "media", "app", "running");
        let db = container("media-db-1", "media", "db", "running");
        let warning = found(&[app.clone(), db.clone()]);
        assert!(
            warning.starts_with("no container of project 5"),
            "{warning}"
        );
        // The controls: another service, another image, files that are here.
        let other = container("media-web-1", "media", "web", "running");
        assert_eq!(found(&[app.clone(), other]), "");
        let mut changed = app.clone();
        changed.image_reference = "j".to_owned();
        assert_eq!(found(&[changed]), "");
        let mut here = app;
        here.config_files = vec!["/".into()];
        assert_eq!(found(&[here]), "");
    }
}
