//! Labels of services that set options of their stack, for those who keep everything in the
//! compose file. They are those of the containers, which whoever ran Compose has made: a
//! service that rewrites its own compose file changes nothing until somebody does that again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::config::StopMethod;
use crate::config::plan::StackPlan;
use crate::engine::{Container, Engine, LABEL_PREFIX};
use crate::scan::Exclude;
use crate::stack::project::find_project;

/// What the labels of a stack's services say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StackLabels {
    /// The service that says that the stack is not backed up.
    pub disabled_by: Option<String>,
    exclude: Vec<String>,
    stop_method: Option<StopMethod>,
}

impl StackLabels {
    /// Reads the labels of a project's containers.
    ///
    /// # Errors
    /// When a label or its value is not known, or two services contradict each other.
    pub fn of(containers: &[&Container]) -> Result<StackLabels> {
        let mut labels = StackLabels::default();
        let mut stop_methods: BTreeMap<&str, (StopMethod, &str)> = BTreeMap::new();
        for container in containers {
            for (name, value) in &container.own_labels {
                let label = format!(
                    "label docker-stack-backup.{name} of service {}",
                    container.service
                );
                match name.as_str() {
                    "enable" => match value.as_str() {
                        "true" => {}
                        "false" => labels.disabled_by = Some(container.service.clone()),
                        _ => bail!("{label}: {value:?} is neither true nor false"),
                    },
                    "exclude" => {
                        for pattern in patterns(value) {
                            if !labels.exclude.contains(&pattern) {
                                labels.exclude.push(pattern);
                            }
                        }
                    }
                    "stop-method" => {
                        let method = stop_method(value).with_context(|| label.clone())?;
                        stop_methods.insert(&container.service, (method, value));
                    }
                    _ => bail!("{label} is not known: there are enable, exclude and stop-method"),
                }
            }
        }
        let mut methods = stop_methods.iter();
        if let Some((service, (method, value))) = methods.next() {
            if let Some((other, (_, differs))) = methods.find(|(_, (found, _))| found != method) {
                bail!(
                    "the labels docker-stack-backup.stop-method of services {service} and {other} \
                     contradict each other: {value} and {differs}"
                );
            }
            labels.stop_method = Some(*method);
        }
        Ok(labels)
    }

    /// Returns the plan of a stack with what the labels add to it.
    ///
    /// # Errors
    /// When they contradict it.
    fn added_to(self, stack: &StackPlan) -> Result<StackPlan> {
        if let Some(service) = self.disabled_by {
            bail!(
                "the label docker-stack-backup.enable=false of service {service} says that the \
                 stack is not backed up, and the configuration lists it: take it out of one of the \
                 two"
            );
        }
        if let (Some(configured), Some(labelled)) = (stack.stop_method, self.stop_method)
            && configured != labelled
        {
            bail!(
                "the label docker-stack-backup.stop-method says {}, and `stopMethod` of the \
                 configuration {}: take one of them out",
                name_of(labelled),
                name_of(configured)
            );
        }
        let patterns = [Vec::from(stack.exclude.clone()), self.exclude].concat();
        Ok(StackPlan {
            exclude: Exclude::new(&patterns).context("label docker-stack-backup.exclude")?,
            stop_method: stack.stop_method.or(self.stop_method),
            ..stack.clone()
        })
    }
}

/// Forgets the labels that containers have from their images. Who publishes an image must not
/// decide what is backed up. An image that is gone may have had any.
///
/// # Errors
/// When the Engine cannot be asked.
pub fn forget_those_of_images(engine: &Engine, containers: &mut [Container]) -> Result<()> {
    let labelled = containers.iter().filter(|c| !c.own_labels.is_empty());
    let ids = labelled.map(|c| c.image_id.clone()).collect();
    let images = engine.images(&ids)?;
    for container in containers.iter_mut().filter(|c| !c.own_labels.is_empty()) {
        let image = images.iter().find(|image| image.id == container.image_id);
        container.own_labels.retain(|name, value| {
            let label = format!("{LABEL_PREFIX}{name}");
            image.is_some_and(|image| !image.has_label(&label, value))
        });
    }
    Ok(())
}

/// Returns the plan of a stack with what the labels of its services add to it. A stack that
/// has no containers has no labels. `containers` are all of its Engine.
///
/// # Errors
/// When labels are wrong or contradict the configuration, or the Engine cannot be asked.
pub fn with_labels(stack: &StackPlan, containers: &[Container]) -> Result<StackPlan> {
    // If it is not clear which project is meant, the survey says so.
    let Ok(Some(project)) = find_project(&stack.compose, None, containers) else {
        return Ok(stack.clone());
    };
    let is_own = |c: &&Container| c.project == project && !c.one_off && !c.is_stand_in;
    let mut own: Vec<Container> = containers.iter().filter(is_own).cloned().collect();
    forget_those_of_images(&stack.compose.engine, &mut own)?;
    let own: Vec<&Container> = own.iter().collect();
    StackLabels::of(&own)?.added_to(stack)
}

/// A list of patterns has one a line, or several with commas between them.
fn patterns(value: &str) -> impl Iterator<Item = String> {
    let patterns = value.split([',', '\n']).map(str::trim);
    patterns
        .filter(|pattern| !pattern.is_empty())
        .map(str::to_owned)
}

fn stop_method(value: &str) -> Result<StopMethod> {
    let methods = [StopMethod::Stop, StopMethod::Down, StopMethod::Pause];
    let found = methods.into_iter().find(|method| name_of(*method) == value);
    found.with_context(|| format!("{value:?} is none of stop, down and pause"))
}

fn name_of(method: StopMethod) -> &'static str {
    match method {
        StopMethod::Stop => "stop",
        StopMethod::Down => "down",
        StopMethod::Pause => "pause",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::config::plan::Plan;

    fn container(service: &str, labels: &[(&str, &str)]) -> Container {
        let mut all = json!({
            "com.docker.compose.project": "web", "com.docker.compose.service": service,
        });
        for (name, value) in labels {
            all[format!("docker-stack-backup.{name}")] = json!(value);
        }
        Container::from_json(json!({
            "Id": service, "Name": format!("/{service}"), "Image": "sha256:1",
            "State": {"Status": "running", "StartedAt": "", "ExitCode": 0},
            "Config": {"Image": "i", "Labels": all}, "HostConfig": {},
        }))
    }

    fn added(options: &str, containers: &[Container]) -> Result<StackPlan, String> {
        let json = format!(r#"{{"stacks": [{{"name": "web"{options}}}]}}"#);
        let plan = Plan::new(Config::parse(json.as_bytes()).unwrap()).unwrap();
        let containers: Vec<&Container> = containers.iter().collect();
        let labels = StackLabels::of(&containers);
        let added = labels.and_then(|labels| labels.added_to(&plan.stacks[0]));
        added.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn labels_add_to_the_options_of_their_stack() {
        let app = container(
            "app",
            &[("exclude", "/cache/, *.tmp\n/x"), ("stop-method", "pause")],
        );
        let db = container("db", &[("enable", "true"), ("stop-method", "pause")]);
        let stack = added(r#", "exclude": ["/y"]"#, &[app, db]).unwrap();
        assert_eq!(stack.stop_method, Some(StopMethod::Pause));
        for (path, is_dir) in [
            ("cache", true),
            ("a/b.tmp", false),
            ("x", false),
            ("y", false),
        ] {
            assert!(stack.exclude.is_excluded(Path::new(path), is_dir), "{path}");
        }
        // The control.
        let plain = added("", &[container("app", &[("stand-in", "x")])]).unwrap();
        assert_eq!(plain.stop_method, None);
        assert!(!plain.exclude.is_excluded(Path::new("x"), false));
    }

    #[test]
    fn what_contradicts_itself_or_is_not_known_is_an_error() {
        let app = |name: &str, value: &str| container("app", &[(name, value)]);
        for (options, containers, expected) in [
            (
                "",
                vec![app("enable", "false")],
                "the configuration lists it",
            ),
            ("", vec![app("enable", "no")], "neither true nor false"),
            (
                "",
                vec![app("exlude", "x")],
                "exlude of service app is not known",
            ),
            (
                "",
                vec![app("exclude", "[")],
                "label docker-stack-backup.exclude",
            ),
            (
                "",
                vec![app("stop-method", "kill")],
                "none of stop, down and pause",
            ),
            (
                r#", "stopMethod": "stop""#,
                vec![app("stop-method", "pause")],
                "says pause, and `stopMethod` of the configuration stop",
            ),
            (
                "",
                vec![
                    app("stop-method", "pause"),
                    container("db", &[("stop-method", "stop")]),
                ],
                "services app and db contradict each other: pause and stop",
            ),
        ] {
            let error = added(options, &containers).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
