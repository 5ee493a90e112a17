//! Rewrites a service for a throw-away project, so that it can neither reach
//! other containers and networks nor change the host. Pure.

use serde_json::{Map, Value, json};

use super::copy::CopyLocation;
use super::resolved::{engine_volume, text, volume_tree};
use super::volumes::volume_name;
use crate::archive::Manifest;

/// Fields that affect only the container itself. They are copied. A few others
/// are rewritten; all the rest is left out, including fields that later versions
/// of Compose may add.
const COPIED_FIELDS: &[&str] = &[
    "blkio_config",
    "cap_drop",
    "command",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpus",
    "cpuset",
    "dns",
    "dns_opt",
    "dns_search",
    // Some programs find their data by the name of their host.
    "domainname",
    "entrypoint",
    "environment",
    "expose",
    // These names lead to addresses without a route.
    "extra_hosts",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "pids_limit",
    "platform",
    "read_only",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "working_dir",
];

/// Fields that are left out without a note, because no container needs them.
const IGNORED_FIELDS: &[&str] = &[
    "attach",
    "build",
    "container_name",
    "develop",
    "env_file",
    "label_file",
    "labels",
    "logging",
    "ports",
    "pre_stop",
    "profiles",
    "pull_policy",
    "pull_refresh_after",
    "restart",
    "scale",
];

/// Capabilities that affect the host, whatever namespaces a container has.
const HOST_CAPABILITIES: [&str; 6] = [
    "ALL",
    "BPF",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
];

/// What the rewriting of all services shares.
pub struct Rewriting<'a> {
    pub manifest: &'a Manifest,
    pub project: &'a str,
    /// Finds the copy of a path of the host.
    pub copy: &'a dyn Fn(&str) -> CopyLocation,
    pub secrets: &'a Map<String, Value>,
    pub configs: &'a Map<String, Value>,
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
        service.insert("logging".to_owned(), json!({"driver": "local"}));
        service
    }

    /// Returns the rewritten value, or `None` for a field that is left out.
    fn field(&mut self, service: &str, field: &str, value: &Value) -> Option<Value> {
        match field {
            _ if COPIED_FIELDS.contains(&field) => Some(value.clone()),
            _ if IGNORED_FIELDS.contains(&field) || field.starts_with("x-") || is_unset(value) => {
                None
            }
            "network_mode" | "pid" | "ipc" | "uts" | "cgroup" | "userns_mode" => {
                let mode = value.as_str().unwrap_or_default();
                let is_own = ["none", "private", "shareable"].contains(&mode);
                let peer = mode.strip_prefix("service:");
                if is_own || peer.is_some_and(|peer| self.is_drilled(peer)) {
                    return Some(value.clone());
                }
                self.note_lack(service, field);
                None
            }
            "depends_on" => {
                let mut peers = value.as_object()?.clone();
                peers.retain(|peer, _| self.is_drilled(peer));
                Some(peers.into())
            }
            "links" | "volumes_from" => self.entries(service, field, value, |rewriting, entry| {
                let peer = entry.split(':').next().unwrap_or_default();
                !entry.starts_with("container:") && rewriting.is_drilled(peer)
            }),
            "cap_add" => self.entries(service, field, value, |_, entry| {
                let name = entry.to_uppercase();
                let name = name.strip_prefix("CAP_").unwrap_or(&name);
                !HOST_CAPABILITIES.contains(&name)
            }),
            // systempaths=unconfined lets a container write to the host's /proc/sys.
            "security_opt" => self.entries(service, field, value, |_, entry| {
                !entry.starts_with("systempaths")
            }),
            "deploy" => {
                let resources = value.get("resources")?;
                if resources.pointer("/reservations/devices").is_some() {
                    self.note_lack(service, "deploy.resources.reservations.devices");
                }
                let limits = resources.get("limits")?;
                Some(json!({"resources": {"limits": limits}}))
            }
            "post_start" => {
                let mut hooks = value.as_array()?.clone();
                for hook in hooks.iter_mut().filter_map(Value::as_object_mut) {
                    hook.remove("privileged");
                }
                Some(hooks.into())
            }
            "networks" => {
                let mut used = value.as_object()?.clone();
                for (name, options) in &mut used {
                    self.networks.insert(name.clone(), internal_network());
                    // Addresses belong to the real network.
                    let aliases = options.get("aliases").cloned();
                    *options = aliases.map_or(Value::Null, |aliases| json!({"aliases": aliases}));
                }
                Some(used.into())
            }
            "secrets" | "configs" => {
                let files = match field {
                    "secrets" => self.secrets,
                    _ => self.configs,
                };
                let mut used = value.as_array()?.clone();
                used.retain(|one| {
                    let name = one.as_str().unwrap_or_else(|| text(one, "source"));
                    files.contains_key(name)
                });
                Some(used.into())
            }
            "volumes" => {
                let mounts = value.as_array()?.iter();
                let mounts = mounts.filter_map(|mount| self.mount(service, mount.clone()));
                Some(mounts.collect())
            }
            _ => {
                self.note_lack(service, field);
                None
            }
        }
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

    /// Returns a mount of the copy, or `None` if there is nothing to mount.
    fn mount(&mut self, service: &str, mut mount: Value) -> Option<Value> {
        let (kind, source, target) = (
            text(&mount, "type").to_owned(),
            text(&mount, "source").to_owned(),
            text(&mount, "target").to_owned(),
        );
        let mut note = |what: &str| {
            self.notes.push(format!("service {service}: {what}"));
        };
        match kind.as_str() {
            "volume" if !source.is_empty() => {
                let name = volume_name(self.project, &source);
                let tree = volume_tree(self.manifest, &source);
                let config = match self.manifest.trees.contains_key(&tree) {
                    true => json!({"name": name, "external": true}),
                    false => {
                        let real = engine_volume(self.manifest, &source);
                        note(&format!(
                            "an empty volume at {target}, the archive does not hold {real}"
                        ));
                        json!({"name": name})
                    }
                };
                self.volumes.insert(source, config);
            }
            "bind" => {
                let path = match (self.copy)(&source) {
                    CopyLocation::Present(path) => path,
                    CopyLocation::Absent(path) => {
                        note(&format!(
                            "empty at {target}, the archive does not hold {source}"
                        ));
                        path
                    }
                    CopyLocation::Outside(why) => {
                        note(&format!("nothing at {target}, {why}"));
                        return None;
                    }
                };
                mount["source"] = path.display().to_string().into();
                if let Some(bind) = mount.get_mut("bind").and_then(Value::as_object_mut) {
                    bind.remove("propagation");
                }
            }
            "volume" | "tmpfs" | "image" => {}
            _ => {
                note(&format!("nothing at {target}, which is a {kind}"));
                return None;
            }
        }
        Some(mount)
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    }
}

/// A network without a way out.
pub fn internal_network() -> Value {
    json!({"internal": true})
}
