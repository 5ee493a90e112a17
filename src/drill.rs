//! Proves that an archive can be restored: puts it into a throw-away project,
//! with volumes and a directory of its own, nothing published and no way out,
//! and waits until it is healthy. All of it is taken down again, by `recover`
//! if the program is killed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::archive::Manifest;
use crate::docker::{self, Volume};
use crate::restore::pick::tree_of;
use crate::restore::{Archive, Destination, Options, extract};
use crate::signals::Signals;

/// Begins the name of every throw-away project.
const PREFIX: &str = "dsbdrill-";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drilled {
    pub stack: String,
    /// Empty if there is none.
    pub archive: String,
    /// Services that ran and became healthy.
    pub services: Vec<String>,
    pub duration_ms: u64,
    /// Empty when all is well.
    pub problems: Vec<String>,
    /// The signal that came before it was done; nothing is known then.
    pub interrupted: Option<String>,
    /// What the throw-away project lacks of the real one.
    pub notes: Vec<String>,
}

impl Drilled {
    /// What could not even be tried.
    pub fn failed(stack: &str, archive: String, problem: String) -> Drilled {
        Drilled {
            stack: stack.to_owned(),
            archive,
            services: Vec::new(),
            duration_ms: 0,
            problems: vec![problem],
            interrupted: None,
            notes: Vec::new(),
        }
    }

    /// One that did not come to its end, or whose turn did not come.
    pub fn interrupted(stack: &str, signal: &str) -> Drilled {
        Drilled {
            problems: Vec::new(),
            interrupted: Some(signal.to_owned()),
            ..Drilled::failed(stack, String::new(), String::new())
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty() && self.interrupted.is_none()
    }
}

/// A command in a service's container that must succeed.
pub struct Command<'a> {
    pub service: &'a str,
    pub argv: &'a [String],
}

pub struct Wish<'a> {
    pub state_dir: &'a Path,
    pub signals: &'a Signals,
    pub start_timeout: Duration,
    pub command: Option<Command<'a>>,
}

/// Drills one archive. The lock must be held.
///
/// # Errors
/// When the throw-away project could not be taken down, or nothing could be
/// tried, or a signal came before it was up. That the stack does not come up is
/// a problem in the result.
pub fn drill(archive: &Archive, manifest: &Manifest, wish: &Wish<'_>) -> Result<Drilled> {
    let began = Instant::now();
    let project = project_of(&manifest.stack);
    let scratch = scratch_of(wish.state_dir, &manifest.stack);
    // What a killed one left of the same stack.
    take_down(&project, &scratch)?;
    let mut plan = plan(manifest, &project, &scratch)?;
    let result = attempt(archive, manifest, wish, &project, &scratch, &mut plan);
    let taken_down = take_down(&project, &scratch);
    let problems = match (result, taken_down) {
        (result, Ok(())) => result.err(),
        (Ok(()), Err(error)) => return Err(error),
        (Err(error), Err(second)) => return Err(second.context(format!("{error:#}"))),
    };
    if problems.is_some() {
        // That it ended early says nothing of the archive.
        wish.signals.check()?;
    }
    Ok(Drilled {
        stack: manifest.stack.clone(),
        archive: archive.name(),
        services: manifest.running.clone(),
        duration_ms: began.elapsed().as_millis() as u64,
        problems: problems
            .map(|error| format!("{error:#}"))
            .into_iter()
            .collect(),
        interrupted: None,
        notes: plan.notes,
    })
}

/// Takes down what killed drills left; returns their stacks.
pub fn recover(state_dir: &Path) -> Result<Vec<(String, Result<()>)>> {
    let dir = state_dir.join("drill");
    let listing = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(|| format!("list {}", dir.display()))?,
    };
    let mut recovered = Vec::new();
    for item in listing {
        let name = item?.file_name();
        let Some(stack) = name.to_str() else { continue };
        tracing::warn!(stack, "a drill was killed, taking it down");
        let result = take_down(&project_of(stack), &scratch_of(state_dir, stack));
        recovered.push((stack.to_owned(), result));
    }
    Ok(recovered)
}

/// Compose allows lower-case letters, digits, - and _ only.
fn project_of(stack: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => c,
        _ => '-',
    };
    format!("{PREFIX}{}", stack.chars().map(plain).collect::<String>())
}

/// Its being there says that there may be something to take down.
fn scratch_of(state_dir: &Path, stack: &str) -> PathBuf {
    state_dir.join("drill").join(stack)
}

fn take_down(project: &str, scratch: &Path) -> Result<()> {
    if !scratch.exists() {
        return Ok(());
    }
    docker::remove_project(project).with_context(|| format!("take down {project}"))?;
    fs::remove_dir_all(scratch).with_context(|| format!("remove {}", scratch.display()))
}

fn attempt(
    archive: &Archive,
    manifest: &Manifest,
    wish: &Wish<'_>,
    project: &str,
    scratch: &Path,
    plan: &mut DrillPlan,
) -> Result<()> {
    ensure!(
        !manifest.running.is_empty(),
        "nothing ran when the archive was made: there is nothing to start"
    );
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(scratch)
        .with_context(|| format!("create {}", scratch.display()))?;
    let mut destinations = vec![destination("", scratch, "")?];
    for volume in plan.volumes.values() {
        docker::create_volume(volume)?;
    }
    let made = docker::volumes(
        &plan
            .volumes
            .values()
            .map(|volume| volume.name.clone())
            .collect(),
    )?;
    for (tree, volume) in &plan.volumes {
        let made = made
            .iter()
            .find(|made| made.name == volume.name)
            .context("a new volume is not there")?;
        let parent = made
            .mountpoint
            .parent()
            .context("a volume without a place")?;
        let name = made.mountpoint.file_name().unwrap_or_default();
        fs::remove_dir(&made.mountpoint)
            .with_context(|| format!("empty volume {}", volume.name))?;
        // Before the destination of all else.
        destinations.insert(
            0,
            Destination {
                prefix: tree.clone().into_bytes(),
                ..destination_in(parent, name)?
            },
        );
    }
    let options = Options {
        is_wanted: &|_| true,
        allow_devices: true,
        takes_refusals: true,
        cancel: wish.signals.flag(),
    };
    let mut reader = archive.reader()?;
    let summary = extract(&mut reader, archive.file(), &destinations, &options)
        .with_context(|| archive.name())?;
    let lacks = summary.lacks.iter();
    plan.notes
        .extend(lacks.map(|lack| format!("not restored: {lack}")));
    let file = scratch.join(".dsbdrill.compose.json");
    fs::write(&file, serde_json::to_vec_pretty(&plan.compose)?)
        .with_context(|| format!("write {}", file.display()))?;
    wish.signals.check()?;
    tracing::info!(project, services = manifest.running.join(" "), "starting");
    docker::up_drill(project, &file, wish.start_timeout, wish.signals)?;
    if let Some(command) = &wish.command {
        docker::exec_drill(project, &file, command.service, command.argv, wish.signals)
            .context("the check command")?;
    }
    Ok(())
}

fn destination(prefix: &str, parent: &Path, name: &str) -> Result<Destination> {
    Ok(Destination {
        prefix: prefix.as_bytes().to_vec(),
        ..destination_in(parent, OsStr::new(name))?
    })
}

fn destination_in(parent: &Path, name: &OsStr) -> Result<Destination> {
    let handle: OwnedFd = File::open(parent)
        .with_context(|| format!("open {}", parent.display()))?
        .into();
    Ok(Destination {
        prefix: Vec::new(),
        parent: handle,
        name: name.as_bytes().to_vec(),
    })
}

#[derive(Debug, PartialEq)]
struct DrillPlan {
    compose: Value,
    /// By the tree of the archive that goes into it.
    volumes: BTreeMap<String, Volume>,
    notes: Vec<String>,
}

/// The compose file of the throw-away project: what ran, from local images,
/// with what the archive holds and nothing else. Pure.
fn plan(manifest: &Manifest, project: &str, scratch: &Path) -> Result<DrillPlan> {
    let Some(services) = manifest.compose.get("services").and_then(Value::as_object) else {
        bail!(
            "the manifest does not hold the resolved compose configuration: it cannot be drilled"
        );
    };
    let mut drill = DrillPlan {
        compose: Value::Null,
        volumes: BTreeMap::new(),
        notes: Vec::new(),
    };
    let mut new_services = Map::new();
    let mut networks = Map::new();
    let mut named = Map::new();
    for service in &manifest.running {
        let config = services
            .get(service)
            .with_context(|| format!("the compose configuration has no service {service}"))?;
        let mut config = config.as_object().cloned().unwrap_or_default();
        for dropped in [
            "build",
            "container_name",
            "ports",
            "deploy",
            "profiles",
            "external_links",
            "links",
            "scale",
            "devices",
            "pull_policy",
        ] {
            config.remove(dropped);
        }
        // Its own, or what another project could notice.
        for key in [
            "network_mode",
            "pid",
            "ipc",
            "uts",
            "cgroup_parent",
            "userns_mode",
        ] {
            let joins = config.get(key).and_then(Value::as_str).is_some_and(|mode| {
                mode.starts_with("service:") || mode == "none" || mode == "private"
            });
            if !joins && config.remove(key).is_some() {
                drill
                    .notes
                    .push(format!("service {service}: without its {key}"));
            }
        }
        if config.get("privileged") == Some(&Value::Bool(true)) {
            config.remove("privileged");
            drill
                .notes
                .push(format!("service {service}: not privileged"));
        }
        // Compose takes the image it was built to by this name.
        let image = manifest
            .images
            .iter()
            .find(|image| image.service == *service);
        if !config.contains_key("image")
            && let Some(image) = image
        {
            config.insert("image".to_owned(), image.reference.clone().into());
        }
        config.insert("restart".to_owned(), "no".into());
        keep_known(&mut config, "depends_on", |name| {
            manifest.running.iter().any(|running| running == name)
        });
        if let Some(used) = config.get_mut("networks").and_then(Value::as_object_mut) {
            for (name, options) in used {
                networks.insert(name.clone(), json!({"internal": true}));
                // Addresses are of the real network.
                let aliases = options.get("aliases").cloned();
                *options = aliases.map_or(Value::Null, |aliases| json!({"aliases": aliases}));
            }
        }
        let mounts = config.remove("volumes").unwrap_or_default();
        let mounts = mounts.as_array().cloned().unwrap_or_default();
        let mounts = mounts.into_iter().filter_map(|mount| {
            drill.mount(manifest, project, scratch, service, mount, &mut named)
        });
        let mounts: Vec<Value> = mounts.collect();
        config.insert("volumes".to_owned(), mounts.into());
        new_services.insert(service.clone(), config.into());
    }
    networks
        .entry("default")
        .or_insert(json!({"internal": true}));
    let mut compose = json!({
        "name": project,
        "services": new_services,
        "networks": networks,
        "volumes": named,
    });
    for kind in ["secrets", "configs"] {
        if let Some(files) = files(manifest, scratch, kind) {
            compose[kind] = files;
        }
    }
    // Compose wrote every $ of it as $$, so none is resolved a second time.
    drill.compose = compose;
    Ok(drill)
}

impl DrillPlan {
    /// A mount of the throw-away project; `None` for what it has to do without.
    fn mount(
        &mut self,
        manifest: &Manifest,
        project: &str,
        scratch: &Path,
        service: &str,
        mut mount: Value,
        named: &mut Map<String, Value>,
    ) -> Option<Value> {
        let text = |mount: &Value, key: &str| {
            mount
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (kind, source, target) = (
            text(&mount, "type"),
            text(&mount, "source"),
            text(&mount, "target"),
        );
        match kind.as_str() {
            "volume" if !source.is_empty() => {
                let config = manifest
                    .compose
                    .get("volumes")
                    .and_then(|volumes| volumes.get(&source));
                let real = config
                    .and_then(|config| config.get("name"))
                    .and_then(Value::as_str)
                    .unwrap_or(&source);
                let name = format!("{project}_{source}");
                let tree = format!("{}.volumes/{real}", manifest.stack);
                if manifest.trees.contains_key(&tree) {
                    let labels = [
                        ("com.docker.compose.project", project),
                        ("com.docker.compose.volume", &source),
                    ];
                    self.volumes.insert(
                        tree,
                        Volume {
                            name: name.clone(),
                            driver: "local".to_owned(),
                            mountpoint: PathBuf::new(),
                            labels: labels
                                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                                .into(),
                            options: BTreeMap::new(),
                        },
                    );
                    named.insert(source, json!({"name": name, "external": true}));
                } else {
                    self.notes.push(format!("service {service}: an empty volume at {target}, the archive does not hold {real}"));
                    named.insert(source, json!({"name": name}));
                }
                Some(mount)
            }
            "bind" => {
                match tree_of(manifest, &source) {
                    Some(member) => {
                        mount["source"] = scratch.join(member).display().to_string().into();
                        Some(mount)
                    }
                    None => {
                        self.notes.push(format!("service {service}: nothing at {target}, the archive does not hold {source}"));
                        None
                    }
                }
            }
            _ => Some(mount),
        }
    }
}

fn keep_known(config: &mut Map<String, Value>, key: &str, is_known: impl Fn(&str) -> bool) {
    if let Some(names) = config.get_mut(key).and_then(Value::as_object_mut) {
        names.retain(|name, _| is_known(name));
    }
}

/// Secrets or configs that are files of the archive.
fn files(manifest: &Manifest, scratch: &Path, kind: &str) -> Option<Value> {
    let mut all = manifest.compose.get(kind)?.as_object()?.clone();
    for one in all.values_mut() {
        if let Some(config) = one.as_object_mut() {
            config.remove("name");
        }
        if let Some(member) = one
            .get("file")
            .and_then(Value::as_str)
            .and_then(|file| tree_of(manifest, file))
        {
            one["file"] = scratch.join(member).display().to_string().into();
        }
    }
    Some(all.into())
}
