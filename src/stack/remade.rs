//! Whether `up` would make the containers again that `down` removes. A compose file
//! may have been changed since they were made: by the administrator, or by a
//! container that can write to it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::engine::{ComposeConfig, ComposeProject, ConfigService, Container, MadeWith};
use crate::stack::running::{self, WasRunning};

/// Refuses `down` if `up` would make other containers than those that run: they
/// would come back changed, for example without variables that only the shell had
/// from which they were started, or with rights that they did not have.
///
/// # Errors
/// When there are differences, which are named, or they cannot be found out.
pub fn refuse_differences(
    compose: &ComposeProject,
    config: &ComposeConfig,
    running: &[WasRunning],
) -> Result<()> {
    let mut services = config.services.iter();
    if let Some((name, _)) = services.find(|(_, service)| service.provider.is_some()) {
        bail!(
            "`stopMethod` is `down`, but for service {name}, `up` would run a program on this \
             host (`provider`): use another `stopMethod`"
        );
    }
    let outdated = compose
        .outdated(&running::services(running), &running::replicas(running))
        .context("`stopMethod` is `down`, but `up` could not make the containers again")?;
    let running: Vec<&WasRunning> = running
        .iter()
        .filter(|was| outdated.contains(&was.name))
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    let engine = &compose.engine;
    let containers = engine.containers_of(running.iter().map(|was| was.id.clone()).collect())?;
    let mut differences = Vec::new();
    for was in running {
        let made_with = engine.made_with(&was.id)?;
        let container = containers.iter().find(|container| container.id == was.id);
        let named = match config.services.get(&was.service) {
            Some(wanted) => named_differences(wanted, &made_with, container),
            None => Vec::new(),
        };
        differences.push(match named.is_empty() {
            true => format!("{} differs from its compose file or image", was.name),
            false => format!("{} has other {}", was.name, named.join(", other ")),
        });
    }
    bail!(
        "`stopMethod` is `down`, but `up` would not make the same containers again: {}; nothing \
         was removed; put the values into `.env` or the compose file and run `docker compose up \
         -d`, or use another `stopMethod`",
        differences.join("; ")
    )
}

/// Names in what a container differs from its service, in the plural.
fn named_differences(
    wanted: &ConfigService,
    made_with: &MadeWith,
    container: Option<&Container>,
) -> Vec<String> {
    let mut named = Vec::new();
    let mut note = |differs: bool, what: &str| {
        if differs {
            named.push(what.to_owned());
        }
    };
    let host = &made_with.host_config;
    let variables = differing_variables(&wanted.environment, &made_with.config.env);
    note(
        !variables.is_empty(),
        &format!("values of {}", variables.join(", ")),
    );
    let image = wanted.image.as_ref();
    note(
        image.is_some_and(|image| *image != made_with.config.image),
        "images",
    );
    note(
        wanted.privileged != host.privileged || sorted(&wanted.cap_add) != sorted(&host.cap_add),
        "privileges",
    );
    note(
        wanted.pid.as_deref().unwrap_or_default() != host.pid_mode,
        "process namespaces",
    );
    let user = wanted.user.as_ref();
    note(
        user.is_some_and(|user| *user != made_with.config.user),
        "users",
    );
    if let Some(container) = container {
        note(mounts_differ(wanted, container), "mounts");
    }
    named
}

/// Whether a bind or a place of a mount was added.
fn mounts_differ(wanted: &ConfigService, container: &Container) -> bool {
    wanted.volumes.iter().any(|volume| {
        let mut there = container.mounts.iter();
        let mount = there.find(|mount| mount.destination == volume.target);
        let is_bind = volume.kind == "bind";
        mount.is_none_or(|mount| is_bind && mount.source.as_os_str() != volume.source.as_str())
    })
}

fn sorted(names: &[String]) -> Vec<String> {
    let plain = |name: &String| name.trim_start_matches("CAP_").to_ascii_uppercase();
    let mut sorted: Vec<String> = names.iter().map(plain).collect();
    sorted.sort();
    sorted
}

/// Returns the names of variables whose values are not those that are wanted.
/// The values are nobody's business.
fn differing_variables(
    wanted: &BTreeMap<String, Option<String>>,
    environment: &[String],
) -> Vec<String> {
    let differs = |(name, value): &(&String, &Option<String>)| {
        let mut set = environment.iter().filter_map(|set| set.split_once('='));
        let now = set.find(|(set, _)| set == name).map(|(_, value)| value);
        // Compose prints `$` twice.
        let value = value.as_ref().map(|value| value.replace("$$", "$"));
        now != value.as_deref()
    };
    let differing = wanted.iter().filter(differs);
    differing.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_program_of_the_host_is_not_run_in_the_place_of_a_container() {
        let service = json!({"provider": {"type": "/srv/web/program"}});
        let config = ComposeConfig {
            name: "web".to_owned(),
            services: BTreeMap::from([("ai".to_owned(), serde_json::from_value(service).unwrap())]),
            host_files: Default::default(),
            volumes: BTreeMap::new(),
            json: Value::Null,
        };
        let compose = ComposeProject {
            dir: "/nonexistent".into(),
            name: None,
            files: Vec::new(),
            env_files: Vec::new(),
            engine: Default::default(),
        };
        let error = refuse_differences(&compose, &config, &[]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("service ai, `up` would run a program"),
            "{error}"
        );
    }

    #[test]
    fn what_a_container_would_get_or_lose_is_named() {
        let made_with = json!({
            "Config": {"Env": ["A=1", "PATH=/bin"], "Image": "web:1", "User": ""},
            "HostConfig": {"Privileged": false, "CapAdd": null, "PidMode": ""},
        });
        let made_with: MadeWith = serde_json::from_value(made_with).unwrap();
        let named = |service: Value| {
            let wanted: ConfigService = serde_json::from_value(service).unwrap();
            named_differences(&wanted, &made_with, None)
        };
        let same = json!({"image": "web:1", "environment": {"A": "1"}});
        assert_eq!(named(same.clone()), Vec::<String>::new());
        for (field, value, expected) in [
            ("environment", json!({"A": "2", "B": "x"}), "values of A, B"),
            ("image", json!("web:2"), "images"),
            ("privileged", json!(true), "privileges"),
            ("cap_add", json!(["SYS_ADMIN"]), "privileges"),
            ("pid", json!("host"), "process namespaces"),
            ("user", json!("root"), "users"),
        ] {
            let mut service = same.clone();
            service[field] = value;
            assert_eq!(named(service), [expected]);
        }
    }
}
