//! Rewrites a service for a throw-away project, so that it can neither reach
//! other containers and networks nor change the host. Everything is left out that
//! no rule allows, including fields that later versions of Compose may add. Pure.

use serde_json::{Map, Value, json};

use super::mount::MountSource;
use super::resolved::text;
use super::rules::{Rule, is_capability, is_hardening, is_sysctl, rule};
use super::shape::{PAIRS, Shape};
use crate::archive::Manifest;

/// What a container is given as its name server. None answers there, so only
/// names of the throw-away project are resolved. The server of the real service
/// is out of reach; and Engines before 25.0.4 answer for names of the internet
/// even in an internal network.
const NO_NAME_SERVER: &str = "127.0.0.1";
/// An address at which nothing of the host answers.
const NOWHERE: &str = "127.0.0.1";

const HOOK: Shape = Shape::Fields(&[
    ("command", Shape::Scalars),
    ("environment", PAIRS),
    ("user", Shape::Scalar),
    ("working_dir", Shape::Scalar),
]);

const DEPENDENCY: Shape = Shape::Fields(&[
    ("condition", Shape::Scalar),
    ("required", Shape::Scalar),
    ("restart", Shape::Scalar),
]);

const LIMITS: Shape = Shape::Fields(&[
    ("cpus", Shape::Scalar),
    ("memory", Shape::Scalar),
    ("pids", Shape::Scalar),
]);

const FILE_USE: Shape = Shape::Fields(&[
    ("gid", Shape::Scalar),
    ("mode", Shape::Scalar),
    ("source", Shape::Scalar),
    ("target", Shape::Scalar),
    ("uid", Shape::Scalar),
]);

/// What the Engine gives a throw-away project.
pub struct Surroundings {
    /// What each network is.
    pub network: Value,
    /// The log driver of each container.
    pub log_driver: &'static str,
    /// Names of the host that must lead nowhere.
    pub host_names: &'static [&'static str],
}

/// What the rewriting of all services shares.
pub struct Rewriting<'a> {
    pub manifest: &'a Manifest,
    pub mounts: MountSource<'a>,
    pub secrets: &'a Map<String, Value>,
    pub configs: &'a Map<String, Value>,
    pub surroundings: &'a Surroundings,
    /// Networks that the rewritten services use.
    pub networks: Map<String, Value>,
    /// Volumes that the rewritten services use.
    pub volumes: Map<String, Value>,
    /// What services have to do without.
    pub notes: Vec<String>,
}

impl Rewriting<'_> {
    /// Returns the rewritten service, which the compose file calls `name`.
    pub fn service(&mut self, name: &str, config: &Map<String, Value>) -> Map<String, Value> {
        let mut service = Map::new();
        for (field, value) in config {
            if let Some(value) = self.field(name, field, value) {
                service.insert(field.clone(), value);
            }
        }
        // The configuration of a service that is built need not name an image. The
        // manifest has the name that Compose gave the built image.
        let mut images = self.manifest.images.iter();
        if !service.contains_key("image")
            && let Some(image) = images.find(|image| image.service == name)
        {
            service.insert("image".to_owned(), image.reference.clone().into());
        }
        service.insert("restart".to_owned(), "no".into());
        // The Engine's default may send logs to another machine.
        service.insert(
            "logging".to_owned(),
            json!({"driver": self.surroundings.log_driver}),
        );
        // In a namespace that is not its own, a container may not set this.
        if !service.contains_key("network_mode") {
            service.insert("dns".to_owned(), json!([NO_NAME_SERVER]));
            if !self.surroundings.host_names.is_empty() {
                lead_nowhere(&mut service, self.surroundings.host_names);
            }
        }
        service
    }

    /// Returns the rewritten value, or `None` for a field that is left out.
    fn field(&mut self, service: &str, field: &str, value: &Value) -> Option<Value> {
        let rewritten = match rule(field) {
            _ if value.is_null() || field.starts_with("x-") => return None,
            Some(Rule::Unneeded) => return None,
            Some(Rule::Copy(shape)) => shape.copy(value),
            Some(Rule::Namespace(modes)) => self.is_own(modes, value).then(|| value.clone()),
            Some(Rule::Rewrite) => self.rewrite(service, field, value),
            None if is_unset(value) => return None,
            None => None,
        };
        if rewritten.is_none() {
            self.note_lack(service, field);
        }
        rewritten
    }

    /// Returns whether a namespace is the container's own, or that of another
    /// service of the throw-away project.
    fn is_own(&self, modes: &[&str], value: &Value) -> bool {
        let mode = value.as_str().unwrap_or_default();
        modes.iter().any(|allowed| match *allowed {
            "service:" => {
                let peer = mode.strip_prefix("service:");
                peer.is_some_and(|peer| self.is_drilled(peer))
            }
            allowed => mode == allowed,
        })
    }

    /// Returns the rewritten value of a field that more than its shape decides
    /// about, or `None` if nothing is left of it.
    fn rewrite(&mut self, service: &str, field: &str, value: &Value) -> Option<Value> {
        match field {
            "environment" => set_variables(value),
            "post_start" => {
                let mut hooks = Shape::List(&HOOK).copy(value)?;
                for hook in hooks
                    .as_array_mut()?
                    .iter_mut()
                    .filter_map(Value::as_object_mut)
                {
                    if let Some(variables) = hook.remove("environment") {
                        hook.extend(
                            set_variables(&variables).map(|set| ("environment".to_owned(), set)),
                        );
                    }
                }
                Some(hooks)
            }
            "sysctls" => self.sysctls(service, value),
            "depends_on" => {
                let names = value.as_array().into_iter().flatten();
                let names =
                    names.map(|name| (name.clone(), json!({"condition": "service_started"})));
                let mut peers = match value.as_object() {
                    Some(peers) => peers.clone(),
                    None => names
                        .filter_map(|(name, peer)| Some((name.as_str()?.to_owned(), peer)))
                        .collect(),
                };
                peers.retain(|peer, _| self.is_drilled(peer));
                Shape::Each(&DEPENDENCY).copy(&peers.into())
            }
            "links" | "volumes_from" => self.entries(service, field, value, |rewriting, entry| {
                let peer = entry.split(':').next().unwrap_or_default();
                !entry.starts_with("container:") && rewriting.is_drilled(peer)
            }),
            "cap_add" => self.entries(service, field, value, |_, entry| is_capability(entry)),
            "security_opt" => self.entries(service, field, value, |_, entry| is_hardening(entry)),
            "deploy" => {
                if value.pointer("/resources/reservations/devices").is_some() {
                    self.note_lack(service, "deploy.resources.reservations.devices");
                }
                let limits = value.pointer("/resources/limits");
                let limits = limits.and_then(|limits| LIMITS.copy(limits));
                Some(json!({"resources": {"limits": limits.unwrap_or_else(|| json!({}))}}))
            }
            "networks" => {
                let names = value.as_array().into_iter().flatten();
                let used = match value.as_object() {
                    Some(used) => used.clone(),
                    None => names
                        .filter_map(|name| Some((name.as_str()?.to_owned(), Value::Null)))
                        .collect(),
                };
                let join = |(name, options): (String, Value)| {
                    self.networks
                        .insert(name.clone(), self.surroundings.network.clone());
                    // Addresses belong to the real network.
                    let aliases = options
                        .get("aliases")
                        .and_then(|aliases| Shape::Scalars.copy(aliases));
                    (
                        name,
                        aliases.map_or(Value::Null, |aliases| json!({"aliases": aliases})),
                    )
                };
                Some(Value::Object(used.into_iter().map(join).collect()))
            }
            "secrets" | "configs" => {
                let files = match field {
                    "secrets" => self.secrets,
                    _ => self.configs,
                };
                let is_there = |used: &&Value| {
                    let name = used.as_str().unwrap_or_else(|| text(used, "source"));
                    files.contains_key(name)
                };
                let used = value.as_array()?.iter().filter(is_there);
                Some(
                    used.filter_map(|used| Shape::AnyOf(&[Shape::Scalar, FILE_USE]).copy(used))
                        .collect(),
                )
            }
            "volumes" => {
                let mut mounts = Vec::new();
                for value in value.as_array()? {
                    let notes = &mut self.notes;
                    let note = |what: &str| notes.push(format!("service {service}: {what}"));
                    mounts.extend(self.mounts.mount(value, &mut self.volumes, note));
                }
                Some(mounts.into())
            }
            _ => None,
        }
    }

    fn sysctls(&mut self, service: &str, value: &Value) -> Option<Value> {
        if value.is_array() {
            return self.entries(service, "sysctls", value, |_, entry| {
                is_sysctl(entry.split('=').next().unwrap_or_default())
            });
        }
        let mut copied = Shape::Each(&Shape::Scalar).copy(value)?;
        let refused = |name: &&String| !is_sysctl(name);
        let refused: Vec<String> = copied
            .as_object()?
            .keys()
            .filter(refused)
            .cloned()
            .collect();
        for name in refused {
            copied.as_object_mut()?.remove(&name);
            self.note_lack(service, &format!("sysctls {name}"));
        }
        Some(copied)
    }

    /// Returns the allowed ones of a list of strings, and notes the others.
    fn entries(
        &mut self,
        service: &str,
        field: &str,
        value: &Value,
        is_allowed: impl Fn(&Self, &str) -> bool,
    ) -> Option<Value> {
        let entries = value.as_array()?.iter().filter_map(Value::as_str);
        let (allowed, refused): (Vec<&str>, Vec<&str>) =
            entries.partition(|entry| is_allowed(self, entry));
        for entry in refused {
            self.note_lack(service, &format!("{field} {entry}"));
        }
        Some(allowed.into())
    }

    fn is_drilled(&self, service: &str) -> bool {
        self.manifest.running.iter().any(|name| name == service)
    }

    fn note_lack(&mut self, service: &str, what: &str) {
        let note = format!("service {service}: without its {what}");
        self.notes.push(note);
    }
}

/// Has names of the host lead to the container itself.
fn lead_nowhere(service: &mut Map<String, Value>, names: &[&str]) {
    let hosts = service.entry("extra_hosts").or_insert_with(|| json!([]));
    for name in names {
        match hosts {
            Value::Object(hosts) => {
                hosts.insert((*name).to_owned(), NOWHERE.into());
            }
            Value::Array(hosts) => {
                let has_name = |host: &Value| {
                    let host = host.as_str().unwrap_or_default();
                    host.strip_prefix(name)
                        .is_some_and(|rest| rest.starts_with(['=', ':']))
                };
                hosts.retain(|host| !has_name(host));
                hosts.push(format!("{name}:{NOWHERE}").into());
            }
            _ => {}
        }
    }
}

/// Returns the variables that have a value. One without takes that of Compose's own
/// environment, which is that of whoever started this program.
fn set_variables(value: &Value) -> Option<Value> {
    let mut set = PAIRS.copy(value)?;
    if let Some(entries) = set.as_array_mut() {
        entries.retain(|entry| entry.as_str().is_some_and(|entry| entry.contains('=')));
    }
    Some(set)
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    }
}
