//! Which of a stack's mounts an archive holds, which not, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, makedev};

use crate::config::plan::StackPlan;
use crate::engine::{ComposeConfig, ComposeProject, Container, Volume};
use crate::outcome::{MountCoverage, MountKind};
use crate::scan::{Boundary, Source};
use crate::stack::quiet::{WriterFilter, container_writers};
use crate::sys::paths::without_symlinks;

/// Files in a stack's directory that Compose reads, if they are there.
const PROJECT_FILES: [&str; 9] = [
    ".env",
    "compose.override.yaml",
    "compose.override.yml",
    "compose.yaml",
    "compose.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// A tree to be archived: its path in the archive, and its path on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub prefix: String,
    pub path: PathBuf,
    /// Device and inode of what the Engine has mounted from this path, if it can be
    /// seen.
    mounted: Option<(u64, u64)>,
}

impl Tree {
    fn new(prefix: String, path: &Path) -> Tree {
        Tree {
            prefix,
            path: path.to_owned(),
            mounted: None,
        }
    }

    /// Opens the tree.
    ///
    /// # Errors
    /// When it cannot be opened, a container may have put a symlink in its place, or
    /// the Engine has mounted another directory from this path.
    pub fn open(&self, boundary: &Boundary) -> Result<Source> {
        let source = Source::open_within(boundary, self.prefix.as_str(), &self.path)?;
        let is_mounted = self
            .mounted
            .is_none_or(|mounted| mounted == source.identity());
        ensure!(
            is_mounted,
            "{} is not the directory that the Engine has mounted from there: something replaced \
             it; put the right one back, or start the stack anew with this one",
            self.path.display()
        );
        Ok(source)
    }
}

/// Returns what containers write to, so that symlinks in there are not followed.
/// `volumes` may be bound to directories.
pub fn boundary(containers: &[Container], volumes: &[Volume]) -> Boundary {
    let mounts = containers.iter().flat_map(|container| &container.mounts);
    let written = mounts.filter(|mount| mount.writable && mount.source.is_absolute());
    let bound = volumes.iter().filter_map(Volume::bound);
    Boundary::new(written.map(|mount| mount.source.as_path()).chain(bound))
}

/// A stack's mounts, each with its users in the form `service:/path/in/container`.
#[derive(Debug, Default)]
pub struct Mounts {
    pub volumes: BTreeMap<String, BTreeSet<String>>,
    binds: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Volumes that are external in the compose file.
    external: BTreeSet<String>,
    /// The names of volumes in the compose file, by their names in the Engine.
    keys: BTreeMap<String, String>,
}

impl Mounts {
    /// Collects the mounts of the containers, which include those that an image
    /// adds, and of the compose file, which include those of services without a
    /// container.
    pub fn collect(containers: &[Container], config: Option<&ComposeConfig>) -> Mounts {
        let mut mounts = Mounts::default();
        for container in containers.iter().filter(|c| !c.one_off) {
            for mount in &container.mounts {
                let user = format!("{}:{}", container.service, mount.destination);
                match mount.kind.as_str() {
                    "volume" => mounts.add_volume(&mount.name, Some(user)),
                    "bind" => mounts.add_bind(&mount.source, user),
                    _ => {}
                }
            }
        }
        let Some(config) = config else { return mounts };
        for (key, volume) in &config.volumes {
            mounts.add_volume(&volume.name, None);
            mounts.keys.insert(volume.name.clone(), key.clone());
            if volume.external {
                mounts.external.insert(volume.name.clone());
            }
        }
        for (service, fields) in &config.services {
            for mount in &fields.volumes {
                let user = format!("{service}:{}", mount.target);
                match (mount.kind.as_str(), config.volumes.get(&mount.source)) {
                    ("volume", Some(volume)) => mounts.add_volume(&volume.name, Some(user)),
                    ("bind", _) => mounts.add_bind(Path::new(&mount.source), user),
                    _ => {}
                }
            }
        }
        mounts
    }

    /// Adds a volume, with a user if there is one.
    pub fn add_volume(&mut self, name: &str, user: Option<String>) {
        self.volumes
            .entry(name.to_owned())
            .or_default()
            .extend(user);
    }

    fn add_bind(&mut self, source: &Path, user: String) {
        self.binds
            .entry(source.to_owned())
            .or_default()
            .insert(user);
    }
}

/// Decides what is archived: the stack's directory, its local named volumes, and
/// those of its other mounts that the configuration names.
///
/// # Errors
/// When something that must be archived cannot be read.
pub fn decide(
    stack: &StackPlan,
    project: &str,
    mounts: &Mounts,
    volumes: &[Volume],
) -> Result<(Vec<Tree>, Vec<MountCoverage>)> {
    let dir = fs::canonicalize(stack.dir()).with_context(|| {
        format!(
            "cannot find the stack's directory {}",
            stack.dir().display()
        )
    })?;
    let mut trees = vec![Tree::new(stack.name.clone(), stack.dir())];
    let mut coverage = vec![MountCoverage {
        kind: MountKind::Directory,
        name: stack.dir().display().to_string(),
        used_by: Vec::new(),
        archived: true,
        reason: None,
    }];
    for (name, users) in &mounts.volumes {
        let volume = volumes.iter().find(|volume| volume.name == *name);
        let decision = decide_volume(stack, project, mounts, name, volume)
            .with_context(|| format!("cannot archive volume {name}"))?;
        if let Ok(path) = &decision {
            let prefix = format!("{}.volumes/{name}", stack.name);
            trees.push(Tree {
                mounted: volume.and_then(mounted),
                ..Tree::new(prefix, path)
            });
        }
        coverage.push(entry(MountKind::Volume, name, users, decision));
    }
    for path in outermost(&stack.include_binds) {
        let member = path.strip_prefix("/").unwrap_or(path).display();
        trees.push(Tree::new(format!("{}.binds/{member}", stack.name), path));
    }
    let mut unused: BTreeSet<&PathBuf> = stack.include_binds.iter().collect();
    for (source, users) in &mounts.binds {
        unused.retain(|included| !source.starts_with(included));
        if let Some(decision) = decide_bind(stack, &dir, source) {
            coverage.push(entry(
                MountKind::Bind,
                &source.display().to_string(),
                users,
                decision,
            ));
        }
    }
    for included in unused {
        let none = BTreeSet::new();
        let name = included.display().to_string();
        coverage.push(entry(MountKind::Bind, &name, &none, Ok(included.clone())));
    }
    Ok((trees, coverage))
}

/// Warns of each file that Compose reads and that lies in none of the trees. A
/// restored stack cannot be started without it.
pub fn files_outside(compose: &ComposeProject, trees: &[Tree]) -> Vec<String> {
    let roots: Vec<PathBuf> = trees
        .iter()
        .map(|tree| without_symlinks(&tree.path))
        .collect();
    let files = compose.files.iter().chain(&compose.env_files);
    files
        .map(|file| without_symlinks(&compose.dir.join(file)))
        .filter(|file| !roots.iter().any(|root| file.starts_with(root)))
        .map(|file| {
            format!(
                "{} is not in the archive, but a restored stack needs it to start: add it to \
                 `includeBinds`",
                file.display()
            )
        })
        .collect()
}

/// Warns of each running container, of any project, that can write to a compose
/// file or an environment file of the stack. What is in there is done as root when
/// the stack is next started by `docker compose up`.
pub fn project_writers(compose: &ComposeProject, containers: &[Container]) -> Vec<String> {
    let configured = compose.files.iter().chain(&compose.env_files);
    let named = configured.map(|file| compose.dir.join(file));
    let usual = PROJECT_FILES.iter().map(|name| compose.dir.join(name));
    let files: Vec<PathBuf> = named.chain(usual).collect();
    let writers = container_writers(containers, &files, WriterFilter::RunningExcept(&[]));
    let found = writers.busy.into_iter().chain(writers.possible);
    found
        .map(|found| {
            format!(
                "{found}, and can change the compose file or `.env` of the stack: whoever \
                 controls that container is root when an administrator starts the stack the next \
                 time"
            )
        })
        .collect()
}

/// Warns of each volume of `includeVolumes` that does not exist. Its name may be
/// misspelt.
pub fn missing_volumes(stack: &StackPlan, mounts: &Mounts, volumes: &[Volume]) -> Vec<String> {
    let exists = |name: &String| {
        let has_name =
            |volume: &Volume| volume.name == *name || mounts.keys.get(&volume.name) == Some(name);
        volumes.iter().any(has_name)
    };
    let missing = stack.include_volumes.iter().filter(|name| !exists(name));
    missing
        .map(|name| {
            format!("includeVolumes: volume {name} does not exist, or is not one of this stack's")
        })
        .collect()
}

/// The directory to archive, or the reason why nothing is archived.
type Decision = Result<PathBuf, String>;

fn entry(
    kind: MountKind,
    name: &str,
    users: &BTreeSet<String>,
    decision: Decision,
) -> MountCoverage {
    MountCoverage {
        kind,
        name: name.to_owned(),
        used_by: users.iter().cloned().collect(),
        archived: decision.is_ok(),
        reason: decision.err(),
    }
}

fn decide_volume(
    stack: &StackPlan,
    project: &str,
    mounts: &Mounts,
    name: &str,
    volume: Option<&Volume>,
) -> Result<Decision> {
    let key = mounts.keys.get(name);
    let is_listed = |list: &[String]| list.iter().any(|n| n == name || Some(n) == key);
    if is_listed(&stack.exclude_volumes) {
        return Ok(Err("excluded (excludeVolumes)".to_owned()));
    }
    let Some(volume) = volume else {
        return Ok(Err("does not exist yet".to_owned()));
    };
    let is_asked_for = is_listed(&stack.include_volumes);
    let owner = volume.project();
    let other = owner.filter(|owner| *owner != project);
    let is_external = mounts.external.contains(name) || (key.is_none() && owner.is_none());
    let refusal = if volume.is_anonymous() {
        Some("anonymous volume: name it in the compose file to have it archived".to_owned())
    } else if !volume.is_plain_local() {
        let kind = volume.options.get("type").unwrap_or(&volume.driver);
        let what = format!(
            "not a local directory (driver {}, type {kind})",
            volume.driver
        );
        Some(format!(
            "{what}: add it to includeVolumes to have it archived"
        ))
    } else if let Some(other) = other {
        // The compose file may call it this stack's own; Compose itself labels each
        // volume that it makes.
        Some(format!(
            "a volume of the project {other}: add it to includeVolumes to have it archived"
        ))
    } else if is_external {
        Some("external volume: add it to includeVolumes to have it archived".to_owned())
    } else {
        None
    };
    if let Some(refusal) = refusal
        && !is_asked_for
    {
        return Ok(Err(refusal));
    }
    volume_path(volume).map(Ok)
}

/// Returns the path of a volume's data.
///
/// # Errors
/// When the data is not there now. An empty mount point must not be taken for
/// it.
fn volume_path(volume: &Volume) -> Result<PathBuf> {
    if let Some(bound) = volume.bound() {
        return Ok(bound.to_owned());
    }
    let path = &volume.mountpoint;
    let metadata = fs::metadata(path)
        .with_context(|| format!("cannot read its data in {} on this machine", path.display()))?;
    if !volume.is_plain_local() {
        let parent = path.parent().context("a mount point has a parent")?;
        if fs::metadata(parent)?.dev() == metadata.dev() {
            bail!("it is not mounted, because no container uses it now: start the stack first");
        }
    }
    Ok(path.clone())
}

/// Returns device and inode of what the Engine has mounted at a volume's mount point,
/// if the volume is mounted and this process sees that.
fn mounted(volume: &Volume) -> Option<(u64, u64)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(CWD, &volume.mountpoint, flags, StatxFlags::BASIC_STATS).ok()?;
    let is_mount = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    is_mount.then_some((device, stat.stx_ino))
}

/// Returns `None` for a bind that needs no mention, because it is archived as a
/// part of the stack's directory.
fn decide_bind(stack: &StackPlan, dir: &Path, source: &Path) -> Option<Decision> {
    let Ok(real) = fs::canonicalize(source) else {
        return Some(Err("does not exist".to_owned()));
    };
    let included = stack.include_binds.iter();
    let included = included.filter_map(|path| fs::canonicalize(path).ok());
    if let Some(inside) = included.filter_map(|root| inside(&real, &root)).next() {
        return Some(match is_excluded(stack, &real, &inside) {
            true => Err("excluded (exclude)".to_owned()),
            false => Ok(source.to_owned()),
        });
    }
    if let Some(inside) = inside(&real, dir) {
        let is_excluded = is_excluded(stack, &real, &inside);
        return is_excluded.then(|| Err("excluded (exclude)".to_owned()));
    }
    let through_symlink = source.starts_with(stack.dir()) || source.starts_with(dir);
    Some(Err(if through_symlink {
        format!(
            "a symlink leads out of the stack's directory, to {0}: add {0} to includeBinds to \
             have it archived",
            real.display()
        )
    } else if real.is_dir() || real.is_file() {
        "outside the stack's directory: add it to includeBinds to have it archived".to_owned()
    } else {
        "a socket or device outside the stack's directory".to_owned()
    }))
}

fn inside(path: &Path, root: &Path) -> Option<PathBuf> {
    path.strip_prefix(root).ok().map(Path::to_owned)
}

/// Whether a pattern excludes the path or a directory above it.
fn is_excluded(stack: &StackPlan, path: &Path, inside: &Path) -> bool {
    let is_dir = path.is_dir();
    let mut parts = inside
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty());
    parts.any(|part| stack.exclude.is_excluded(part, is_dir || part != inside))
}

/// Returns the paths that lie in no other path of the list, each once.
fn outermost(paths: &[PathBuf]) -> BTreeSet<&PathBuf> {
    let is_inner = |path: &PathBuf| paths.iter().any(|p| p != path && path.starts_with(p));
    paths.iter().filter(|path| !is_inner(path)).collect()
}
