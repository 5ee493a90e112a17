//! Which of a stack's mounts an archive holds, which not, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, makedev};

use crate::config::plan::StackPlan;
use crate::engine::{
    ComposeConfig, ComposeProject, Container, DEFAULT_ENV_FILE, Engine, Volume,
    default_compose_files,
};
use crate::outcome::{MountCoverage, MountKind};
use crate::scan::{Boundary, Source};
use crate::stack::advice::Advisor;
use crate::stack::compose_files::is_compose_file;
use crate::stack::known::{is_ignored, is_known};
use crate::stack::quiet::{WriterFilter, container_writers};
use crate::sys::mounts::MountPoint;
use crate::sys::paths::without_symlinks;

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
    pub(super) fn new(prefix: String, path: &Path) -> Tree {
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
pub fn boundary(engine: &Engine, containers: &[Container], volumes: &[Volume]) -> Boundary {
    let mounts = containers.iter().flat_map(|container| &container.mounts);
    let written = mounts.filter(|mount| mount.writable && mount.source.is_absolute());
    let bound = volumes.iter().filter_map(Volume::bound);
    let boundary = Boundary::new(written.map(|mount| mount.source.as_path()).chain(bound));
    // Containers of a user's Engine are the user's, and so is what they can write to.
    match engine.user_id() {
        Some(user) => boundary.and_of_user(user),
        None => boundary,
    }
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

/// Decides what is archived: the stack's directory, its local named volumes, those of
/// its other mounts that the configuration names, and `files` that Compose reads.
///
/// # Errors
/// When something that must be archived cannot be read.
pub fn decide(
    stack: &StackPlan,
    project: &str,
    mounts: &Mounts,
    volumes: &[Volume],
    files: &BTreeSet<PathBuf>,
    advisor: &Advisor<'_>,
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
        ignored: false,
        is_new: false,
    }];
    for (name, users) in &mounts.volumes {
        let volume = volumes.iter().find(|volume| volume.name == *name);
        let decision = decide_volume(stack, project, mounts, name, volume, advisor)
            .with_context(|| format!("cannot archive volume {name}"))?;
        if let MountDecision::Archived(path) = &decision {
            let prefix = format!("{}.volumes/{name}", stack.name);
            trees.push(Tree {
                mounted: volume.and_then(mounted),
                ..Tree::new(prefix, path)
            });
        }
        coverage.push(entry(MountKind::Volume, name, users, decision));
    }
    for path in outermost(&stack.include_binds) {
        trees.push(Tree::new(bind_prefix(&stack.name, path), path));
    }
    let of_compose = decide_files(files, &mut trees, mounts, advisor);
    let is_file_of_compose = |source: &Path| {
        let real = without_symlinks(source);
        of_compose.iter().any(|file| Path::new(&file.name) == real)
    };
    let mut unused: BTreeSet<&PathBuf> = stack.include_binds.iter().collect();
    for (source, users) in &mounts.binds {
        unused.retain(|included| !source.starts_with(included));
        if is_file_of_compose(source) {
            continue;
        }
        if let Some(decision) = decide_bind(stack, &dir, source, users, advisor) {
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
        let decision = MountDecision::Archived(included.clone());
        coverage.push(entry(MountKind::Bind, &name, &none, decision));
    }
    coverage.extend(of_compose);
    coverage.extend(crossed_mounts(stack, &trees, advisor.mounts));
    Ok((trees, coverage))
}

/// Returns the prefix of the members in a directory outside of the stack's.
pub(super) fn bind_prefix(stack: &str, path: &Path) -> String {
    format!("{stack}.binds/{}", without_slash(path))
}

/// Tells of each mount point within a tree: what is mounted there is archived with it.
pub(super) fn crossed_mounts(
    stack: &StackPlan,
    trees: &[Tree],
    mounts: &[MountPoint],
) -> BTreeSet<MountCoverage> {
    let mut crossed = BTreeSet::new();
    for tree in trees {
        let root = without_symlinks(&tree.path);
        let is_archived = |mount: &&MountPoint| {
            mount.path.strip_prefix(&root).is_ok_and(|inside| {
                !inside.as_os_str().is_empty() && !stack.leaves_out(&root, inside)
            })
        };
        for mount in mounts.iter().filter(is_archived) {
            if mount.is_of_itself(mounts) {
                continue;
            }
            let reason = format!("a mount of {} within a tree", mount.file_system);
            crossed.insert(MountCoverage {
                reason: Some(reason),
                ..entry(
                    MountKind::Directory,
                    &mount.path.display().to_string(),
                    &BTreeSet::new(),
                    MountDecision::Archived(mount.path.clone()),
                )
            });
        }
    }
    crossed
}

/// Returns the prefix of the members that are files which Compose reads.
pub fn files_prefix(stack: &str) -> String {
    format!("{stack}.files/")
}

/// Decides about the files that Compose reads and that lie in none of the trees. A
/// restored stack cannot be started without them.
fn decide_files(
    files: &BTreeSet<PathBuf>,
    trees: &mut Vec<Tree>,
    mounts: &Mounts,
    advisor: &Advisor<'_>,
) -> Vec<MountCoverage> {
    let stack = advisor.stack;
    let roots: Vec<PathBuf> = trees
        .iter()
        .map(|tree| without_symlinks(&tree.path))
        .collect();
    let is_archived = |file: &Path| {
        let mut inside = roots.iter().filter_map(|root| {
            let inside = file.strip_prefix(root).ok()?;
            Some(!stack.leaves_out(root, inside))
        });
        inside.any(|is_archived| is_archived)
    };
    let mut coverage = Vec::new();
    let mut total_bytes = 0;
    for file in files {
        if is_archived(file) || is_known(stack, file) {
            continue;
        }
        // Secrets and configs are mounted.
        let binds = mounts.binds.iter();
        let of_file = binds.filter(|(source, _)| without_symlinks(source) == *file);
        let users: BTreeSet<String> = of_file.flat_map(|(_, users)| users.clone()).collect();
        let decision = match is_ignored(stack, file, users.iter()) {
            true => MountDecision::Ignored,
            false => decide_file(file, &mut total_bytes, advisor),
        };
        if let MountDecision::Archived(path) = &decision {
            let prefix = files_prefix(&stack.name) + &without_slash(path);
            trees.push(Tree::new(prefix, path));
        }
        let name = file.display().to_string();
        coverage.push(entry(MountKind::File, &name, &users, decision));
    }
    coverage
}

/// Tells of the files that Compose reads through a symlink which a container may have made.
pub fn misled(found: &BTreeMap<PathBuf, String>) -> Vec<MountCoverage> {
    let none = BTreeSet::new();
    let told = found.iter().map(|(path, reason)| {
        let name = path.display().to_string();
        entry(MountKind::File, &name, &none, MountDecision::hole(reason))
    });
    told.collect()
}

/// Returns a path without its leading slash.
fn without_slash(path: &Path) -> String {
    let member = path.strip_prefix("/").unwrap_or(path);
    member.display().to_string()
}

/// What is archived without being asked for is little.
const FILE_BYTES_MAX: u64 = 1 << 20;
const FILES_BYTES_MAX: u64 = 16 << 20;
/// The system makes what is there when it starts, often from secrets.
const MADE_AT_BOOT: &str = "/run";
/// The system makes what is there when it is built. Nothing else can write there.
const MADE_BY_NIX: &str = "/nix/store";

/// Whether nothing can be restored to this path, because the system alone writes there.
pub fn is_made_by_system(path: &Path) -> bool {
    path.starts_with(MADE_AT_BOOT) || path.starts_with(MADE_BY_NIX)
}

fn decide_file(file: &Path, total_bytes: &mut u64, advisor: &Advisor<'_>) -> MountDecision {
    let reason = "Compose reads it, so a restored stack needs it to start";
    if file.starts_with(MADE_AT_BOOT) {
        return MountDecision::Hole(format!(
            "{reason}: it is made by the system when it starts and not archived; put a copy into \
             the stack's directory, or add it to ignoreBinds if the system makes it again"
        ));
    }
    if !advisor.trusts_compose_file {
        let reason = format!(
            "{reason}, but a running container can write to the compose file, and so could have \
             any file of the host copied"
        );
        return MountDecision::Hole(advisor.complete(&reason, file, "it", "includeBinds"));
    }
    let bytes = fs::metadata(file).map_or(0, |metadata| metadata.len());
    if bytes > FILE_BYTES_MAX || *total_bytes + bytes > FILES_BYTES_MAX {
        let reason = format!("{reason}, but it is too large to be archived without being named");
        return MountDecision::Hole(advisor.complete(&reason, file, "it", "includeBinds"));
    }
    if file.to_str().is_none() || advisor.would_fail(file) {
        return MountDecision::Hole(advisor.complete(reason, file, "it", "includeBinds"));
    }
    *total_bytes += bytes;
    MountDecision::Archived(file.to_owned())
}

/// Warns of each running container, of any project, that can write to a compose
/// file of the stack, to one that it includes or extends, or to its `.env`. What is in
/// there is done as root when the stack is next started by `docker compose up`. `read`
/// are the files that Compose reads.
pub fn project_writers(
    compose: &ComposeProject,
    read: &BTreeSet<PathBuf>,
    containers: &[Container],
) -> Vec<String> {
    let configured = compose.files.iter().chain(&compose.env_files);
    let named = configured.map(|file| compose.dir.join(file));
    let usual = default_compose_files().chain([DEFAULT_ENV_FILE]);
    let usual = usual.map(|name| compose.dir.join(name));
    let others = read.iter().filter(|file| is_compose_file(file)).cloned();
    let files: BTreeSet<PathBuf> = named.chain(usual).chain(others).collect();
    let files: Vec<PathBuf> = files.into_iter().collect();
    let writers = container_writers(
        containers,
        &files,
        WriterFilter::RunningExcept(&[]),
        &|_, _| false,
    );
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

/// Whether something is archived.
pub(super) enum MountDecision {
    /// The directory to archive.
    Archived(PathBuf),
    /// The reason why nothing is archived.
    Hole(String),
    /// The configuration says that nobody wants to be told.
    Ignored,
}

impl MountDecision {
    pub(super) fn hole(reason: &str) -> MountDecision {
        MountDecision::Hole(reason.to_owned())
    }
}

pub(super) fn entry(
    kind: MountKind,
    name: &str,
    users: &BTreeSet<String>,
    decision: MountDecision,
) -> MountCoverage {
    MountCoverage {
        kind,
        name: name.to_owned(),
        used_by: users.iter().cloned().collect(),
        archived: matches!(decision, MountDecision::Archived(_)),
        ignored: matches!(decision, MountDecision::Ignored),
        reason: match decision {
            MountDecision::Archived(_) => None,
            MountDecision::Hole(reason) => Some(reason),
            MountDecision::Ignored => Some("ignored (ignoreBinds)".to_owned()),
        },
        is_new: false,
    }
}

fn decide_volume(
    stack: &StackPlan,
    project: &str,
    mounts: &Mounts,
    name: &str,
    volume: Option<&Volume>,
    advisor: &Advisor<'_>,
) -> Result<MountDecision> {
    let key = mounts.keys.get(name);
    let is_listed = |list: &[String]| list.iter().any(|n| n == name || Some(n) == key);
    if is_listed(&stack.exclude_volumes) {
        return Ok(MountDecision::hole("excluded (excludeVolumes)"));
    }
    let Some(volume) = volume else {
        return Ok(MountDecision::hole("does not exist yet"));
    };
    let is_asked_for = is_listed(&stack.include_volumes);
    let owner = volume.project();
    let other = owner.filter(|owner| *owner != project);
    let is_external = mounts.external.contains(name) || (key.is_none() && owner.is_none());
    let refusal = if volume.is_anonymous() {
        let advice = "anonymous volume: name it in the compose file to have it archived";
        Some(MountDecision::hole(advice))
    } else if !volume.is_plain_local() {
        let kind = volume.options.get("type").unwrap_or(&volume.driver);
        let what = format!(
            "not a local directory (driver {}, type {kind})",
            volume.driver
        );
        Some(refused_volume(volume, &what, advisor))
    } else if let Some(other) = other {
        // The compose file may call it this stack's own; Compose itself labels each
        // volume that it makes.
        let what = format!("a volume of the project {other}");
        Some(refused_volume(volume, &what, advisor))
    } else if is_external {
        Some(refused_volume(volume, "external volume", advisor))
    } else {
        None
    };
    match refusal {
        Some(refusal) if !is_asked_for => Ok(refusal),
        _ => volume_path(volume).map(MountDecision::Archived),
    }
}

fn refused_volume(volume: &Volume, reason: &str, advisor: &Advisor<'_>) -> MountDecision {
    MountDecision::Hole(match volume_path(volume) {
        Ok(path) => advisor.complete(reason, &path, "it", "includeVolumes"),
        Err(error) => format!("{reason}, and cannot be archived: {error:#}"),
    })
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
/// part of the stack's directory or because everybody knows that it is not.
fn decide_bind(
    stack: &StackPlan,
    dir: &Path,
    source: &Path,
    users: &BTreeSet<String>,
    advisor: &Advisor<'_>,
) -> Option<MountDecision> {
    let real = without_symlinks(source);
    let included = stack.include_binds.iter();
    let included = included.filter_map(|path| fs::canonicalize(path).ok());
    let is_archived = |root: &Path| {
        let inside = real.strip_prefix(root).ok()?;
        Some(!stack.leaves_out(root, inside))
    };
    let in_included = included.filter_map(|root| is_archived(&root)).max();
    match (in_included, is_archived(dir)) {
        (Some(true), _) if real.exists() => {
            return Some(MountDecision::Archived(source.to_owned()));
        }
        (None, Some(true)) if real.exists() => return None,
        _ if is_known(stack, source) => return None,
        _ if is_ignored(stack, source, users.iter()) => return Some(MountDecision::Ignored),
        (Some(false), _) | (None, Some(false)) => {
            return Some(MountDecision::hole("excluded (exclude)"));
        }
        _ if !real.exists() => return Some(MountDecision::hole("does not exist")),
        _ => {}
    }
    let through_symlink = source.starts_with(stack.dir()) || source.starts_with(dir);
    Some(MountDecision::Hole(if through_symlink {
        let leads = real.display().to_string();
        let reason = format!("a symlink leads out of the stack's directory, to {leads}");
        advisor.complete(&reason, &real, &leads, "includeBinds")
    } else if real.is_dir() || real.is_file() {
        let reason = "outside the stack's directory";
        advisor.complete(reason, source, "it", "includeBinds")
    } else {
        "a socket or device outside the stack's directory".to_owned()
    }))
}

/// Returns the paths that lie in no other path of the list, each once.
pub(super) fn outermost(paths: &[PathBuf]) -> BTreeSet<&PathBuf> {
    let is_inner = |path: &PathBuf| paths.iter().any(|p| p != path && path.starts_with(p));
    paths.iter().filter(|path| !is_inner(path)).collect()
}
