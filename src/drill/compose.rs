//! The compose file of a throw-away project: what ran, from local images, with
//! what the archive holds and nothing else. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::copy::CopyLocation;
use crate::archive::Manifest;
use crate::engine::Volume;
use crate::restore::tree_of;

/// Fields of a service that are its container's own affair. Of the others, a
/// few are rewritten, and all that Compose may ever learn beyond is left out.
const KEPT: &[&str] = &[
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
    // Some find their data by their name.
    "domainname",
    "entrypoint",
    "environment",
    "expose",
    // There is no route to where these lead.
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

/// Left out without a word: no container misses them.
const UNTOLD: &[&str] = &[
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

/// These act on the machine, whatever namespaces a container has.
const CAPABILITIES_OF_THE_MACHINE: [&str; 6] = [
    "ALL",
    "BPF",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
];

/// The volumes that the archive fills, by the tree that goes into each.
pub fn volumes(manifest: &Manifest, project: &str) -> Result<BTreeMap<String, Volume>> {
    let mut volumes = BTreeMap::new();
    for service in &manifest.running {
        let mounts = service_of(manifest, service)?.get("volumes");
        let mounts = mounts.and_then(Value::as_array).into_iter().flatten();
        for mount in mounts.filter(|mount| text(mount, "type") == "volume") {
            let key = text(mount, "source");
            let tree = tree_of_volume(manifest, key);
            if key.is_empty() || !manifest.trees.contains_key(&tree) {
                continue;
            }
            let labels = [
                ("com.docker.compose.project", project),
                ("com.docker.compose.volume", key),
            ];
            let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
            let volume = Volume {
                name: format!("{project}_{key}"),
                driver: "local".to_owned(),
                mountpoint: PathBuf::new(),
                labels: labels.into(),
                options: BTreeMap::new(),
            };
            volumes.insert(tree, volume);
        }
    }
    Ok(volumes)
}

/// The compose file, and what it lacks. `copy` says where the archive's copy of
/// a path is.
pub fn compose(
    manifest: &Manifest,
    project: &str,
    copy: &dyn Fn(&str) -> CopyLocation,
) -> Result<(Value, Vec<String>)> {
    let mut rewriting = Rewriting {
        manifest,
        project,
        copy,
        networks: Map::from_iter([("default".to_owned(), json!({"internal": true}))]),
        volumes: Map::new(),
        files: Map::new(),
        notes: Vec::new(),
    };
    for kind in ["secrets", "configs"] {
        let files = rewriting.files(kind);
        rewriting.files.insert(kind.to_owned(), files);
    }
    let mut services = Map::new();
    for name in &manifest.running {
        let config = service_of(manifest, name)?;
        services.insert(name.clone(), rewriting.service(name, config).into());
    }
    // Compose wrote every $ of it as $$, so none is resolved a second time.
    let compose = json!({
        "name": project,
        "services": services,
        "networks": rewriting.networks,
        "volumes": rewriting.volumes,
        "secrets": rewriting.files["secrets"],
        "configs": rewriting.files["configs"],
    });
    Ok((compose, rewriting.notes))
}

fn service_of<'m>(manifest: &'m Manifest, name: &str) -> Result<&'m Map<String, Value>> {
    let services = manifest.compose.get("services").context(
        "the manifest does not hold the resolved compose configuration: it cannot be drilled",
    )?;
    let service = services.get(name).and_then(Value::as_object);
    service.with_context(|| format!("the compose configuration has no service {name}"))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The volume's name for the Engine; `key` is its name in the compose file.
fn real_volume<'m>(manifest: &'m Manifest, key: &'m str) -> &'m str {
    let volumes = manifest.compose.get("volumes");
    let config = volumes.and_then(|volumes| volumes.get(key));
    let name = config.and_then(|config| config.get("name")?.as_str());
    name.unwrap_or(key)
}

fn tree_of_volume(manifest: &Manifest, key: &str) -> String {
    format!("{}.volumes/{}", manifest.stack, real_volume(manifest, key))
}

struct Rewriting<'a> {
    manifest: &'a Manifest,
    project: &'a str,
    copy: &'a dyn Fn(&str) -> CopyLocation,
    networks: Map<String, Value>,
    volumes: Map<String, Value>,
    /// Secrets and configs.
    files: Map<String, Value>,
    notes: Vec<String>,
}

impl Rewriting<'_> {
    fn service(&mut self, name: &str, config: &Map<String, Value>) -> Map<String, Value> {
        let mut service = Map::new();
        for (field, value) in config {
            if let Some(value) = self.field(name, field, value) {
                service.insert(field.clone(), value);
            }
        }
        // Compose takes the image it was built to by this name.
        let mut images = self.manifest.images.iter();
        if !service.contains_key("image")
            && let Some(image) = images.find(|image| image.service == name)
        {
            service.insert("image".to_owned(), image.reference.clone().into());
        }
        service.insert("restart".to_owned(), "no".into());
        // The Engine's own default may send it elsewhere.
        service.insert("logging".to_owned(), json!({"driver": "local"}));
        service
    }

    /// `None` for what the throw-away project has to do without.
    fn field(&mut self, service: &str, field: &str, value: &Value) -> Option<Value> {
        match field {
            _ if KEPT.contains(&field) => Some(value.clone()),
            _ if UNTOLD.contains(&field) || field.starts_with("x-") || is_nothing(value) => None,
            "network_mode" | "pid" | "ipc" | "uts" | "cgroup" | "userns_mode" => {
                let mode = value.as_str().unwrap_or_default();
                let is_own = ["none", "private", "shareable"].contains(&mode);
                let peer = mode.strip_prefix("service:");
                if is_own || peer.is_some_and(|peer| self.is_drilled(peer)) {
                    return Some(value.clone());
                }
                self.lacks(service, field);
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
                !CAPABILITIES_OF_THE_MACHINE.contains(&name)
            }),
            // Without it /proc/sys can be written to, which is the machine's.
            "security_opt" => self.entries(service, field, value, |_, entry| {
                !entry.starts_with("systempaths")
            }),
            "deploy" => {
                let resources = value.get("resources")?;
                if resources.pointer("/reservations/devices").is_some() {
                    self.lacks(service, "deploy.resources.reservations.devices");
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
                    let network = json!({"internal": true});
                    self.networks.insert(name.clone(), network);
                    // Addresses are of the real network.
                    let aliases = options.get("aliases").cloned();
                    *options = aliases.map_or(Value::Null, |aliases| json!({"aliases": aliases}));
                }
                Some(used.into())
            }
            "secrets" | "configs" => {
                let mut used = value.as_array()?.clone();
                used.retain(|one| {
                    let name = one.as_str().unwrap_or_else(|| text(one, "source"));
                    self.files[field].get(name).is_some()
                });
                Some(used.into())
            }
            "volumes" => {
                let mounts = value.as_array()?.iter();
                let mounts = mounts.filter_map(|mount| self.mount(service, mount.clone()));
                Some(mounts.collect())
            }
            _ => {
                self.lacks(service, field);
                None
            }
        }
    }

    /// What is good of a list of strings.
    fn entries(
        &mut self,
        service: &str,
        field: &str,
        value: &Value,
        is_good: impl Fn(&Self, &str) -> bool,
    ) -> Option<Value> {
        let entries = value.as_array()?.iter().filter_map(Value::as_str);
        let (good, bad): (Vec<&str>, Vec<&str>) = entries.partition(|entry| is_good(self, entry));
        for entry in bad {
            self.lacks(service, &format!("{field} {entry}"));
        }
        Some(good.into())
    }

    fn is_drilled(&self, service: &str) -> bool {
        self.manifest.running.iter().any(|name| name == service)
    }

    fn lacks(&mut self, service: &str, what: &str) {
        let note = format!("service {service}: without its {what}");
        self.notes.push(note);
    }

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
                let name = format!("{}_{source}", self.project);
                let is_held = self
                    .manifest
                    .trees
                    .contains_key(&tree_of_volume(self.manifest, &source));
                let config = match is_held {
                    true => json!({"name": name, "external": true}),
                    false => {
                        let real = real_volume(self.manifest, &source);
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

    /// Secrets or configs that drilled services use, by name.
    fn files(&mut self, kind: &str) -> Value {
        let mut files = Map::new();
        let configured = self.manifest.compose.get(kind);
        for (name, config) in configured.and_then(Value::as_object).into_iter().flatten() {
            let mut file = Map::new();
            for key in ["file", "content", "environment"] {
                file.extend(config.get(key).map(|value| (key.to_owned(), value.clone())));
            }
            let mut note = |what: &str| self.notes.push(format!("{kind}: {what}"));
            if file.is_empty() {
                note(&format!("without {name}, which is external"));
                continue;
            }
            let of_host = text(config, "file");
            if file.contains_key("file") {
                match (self.copy)(of_host) {
                    CopyLocation::Present(path) => {
                        file["file"] = path.display().to_string().into();
                    }
                    // Compose mounts it read-only. What the system puts there
                    // (/run/secrets) is there after a restore, too.
                    CopyLocation::Outside(why) if tree_of(self.manifest, of_host).is_none() => {
                        note(&format!("{name} is this machine's own, {why}"));
                    }
                    CopyLocation::Outside(why) => {
                        note(&format!("without {name}, {why}"));
                        continue;
                    }
                    CopyLocation::Absent(_) => {
                        note(&format!(
                            "without {name}, the archive does not hold {of_host}"
                        ));
                        continue;
                    }
                }
            }
            files.insert(name.clone(), file.into());
        }
        files.into()
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    }
}
