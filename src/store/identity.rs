//! Makes sure that the store is the one that was used before.
//!
//! A store is often on a disk of its own. If that is not mounted, its mount point
//! is an empty directory on another disk, and a run would fill that. So each store
//! has a marker with a random id, and the state directory remembers the id by the
//! path of the store. A device number would not do: it may change at each boot.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};

use super::directory::Store;
use crate::config::plan::Plan;
use crate::sys::random::random_id;
use crate::sys::state_file::{self, State};

/// Name of the marker in the store, before `.json`. It is no directory, and so no
/// stack's.
const MARKER: &str = ".docker-stack-backup-store";
const FORMAT_VERSION: u32 = 1;

/// The marker of a store.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    format_version: u32,
    id: String,
}

impl State for Marker {
    const NAME: &'static str = "the store's marker";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;
}

/// The ids of the stores that this state directory knows, by their paths.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownStores {
    format_version: u32,
    stores: BTreeMap<PathBuf, String>,
}

impl State for KnownStores {
    const NAME: &'static str = "the known stores";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;
}

/// Checks, without changing anything, that the configured store may be used.
///
/// # Errors
/// When it is not the store that was used before at this path, or `requireMount`
/// is not mounted. The error says what to do.
pub fn check(plan: &Plan) -> Result<()> {
    check_mount(plan)?;
    let Some(known) = known_id(plan)? else {
        return Ok(());
    };
    if !plan.backup_dir.exists() {
        bail!(refusal(plan, "the directory is gone"));
    }
    check_marker(plan, &Store::open(&plan.backup_dir)?, &known)
}

/// Opens the configured store if it may be used.
///
/// # Errors
/// As of [`check`], and when the store cannot be opened.
pub fn open(plan: &Plan) -> Result<Store> {
    check(plan)?;
    let store = Store::open(&plan.backup_dir)?;
    // The file system may have been unmounted since, and nobody notices any more
    // what is mounted once the store is open.
    if let Some(known) = known_id(plan)? {
        check_marker(plan, &store, &known)?;
    }
    Ok(store)
}

/// Does the same as [`open`], but creates a store that is not known.
///
/// # Errors
/// As of [`open`], and when the directory cannot be created.
pub fn open_or_create(plan: &Plan) -> Result<Store> {
    check(plan)?;
    Store::create(&plan.backup_dir)?;
    open(plan)
}

/// Opens or creates the configured store, whatever was used before.
///
/// # Errors
/// When `requireMount` is not mounted, or the directory cannot be created.
pub fn adopt(plan: &Plan) -> Result<Store> {
    check_mount(plan)?;
    let store = Store::create(&plan.backup_dir)?;
    // A marker, or a list of stores, that cannot be read would be refused for ever.
    if read_marker(&store).is_err() {
        state_file::remove(&marker_path(&store))?;
    }
    let mut known = read_known(plan).unwrap_or_default();
    known.remove(&plan.backup_dir);
    write_known(plan, known)?;
    Ok(store)
}

/// Gives the store a marker if it has none, and remembers it.
///
/// # Errors
/// When either cannot be written. The store can be used all the same.
pub fn remember(plan: &Plan, store: &Store) -> Result<()> {
    let id = match read_marker(store)? {
        Some(marker) => marker.id,
        None => create_marker(store)?,
    };
    let mut known = read_known(plan)?;
    if known.get(&plan.backup_dir) == Some(&id) {
        return Ok(());
    }
    known.insert(plan.backup_dir.clone(), id);
    write_known(plan, known)
}

fn check_marker(plan: &Plan, store: &Store, known: &str) -> Result<()> {
    match read_marker(store)? {
        Some(marker) if marker.id == known => Ok(()),
        Some(_) => bail!(refusal(plan, "its marker is that of another store")),
        None => bail!(refusal(plan, "it has no marker")),
    }
}

fn refusal(plan: &Plan, why: &str) -> String {
    format!(
        "{} is not the store that was used there before: {why}. If its file system is not \
         mounted, mount it. If you moved or replaced the store on purpose, run \
         `docker-stack-backup run --adopt-store` once",
        plan.backup_dir.display()
    )
}

/// Checks that `requireMount` is a mount point, and that the store is on it.
fn check_mount(plan: &Plan) -> Result<()> {
    let Some(mount) = &plan.require_mount else {
        return Ok(());
    };
    let context = || format!("cannot look at `requireMount` {}", mount.display());
    // Opening it makes an automounter mount it. A look alone would not.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(mount, flags, Mode::empty()).with_context(context)?;
    let stat = rustix::fs::statx(&dir, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .with_context(context)?;
    ensure!(
        stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        "nothing is mounted at {} (`requireMount`): mount it, then try again",
        mount.display()
    );
    let existing = plan.backup_dir.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let real = |path: &Path| fs::canonicalize(path).with_context(context);
    ensure!(
        real(existing)?.starts_with(real(mount)?),
        "`backupDir` {} is not on what is mounted at {} (`requireMount`)",
        plan.backup_dir.display(),
        mount.display()
    );
    Ok(())
}

fn known_id(plan: &Plan) -> Result<Option<String>> {
    Ok(read_known(plan)?.remove(&plan.backup_dir))
}

fn read_known(plan: &Plan) -> Result<BTreeMap<PathBuf, String>> {
    let known: Option<KnownStores> = state_file::read(&known_path(plan))?;
    Ok(known.map(|known| known.stores).unwrap_or_default())
}

fn write_known(plan: &Plan, stores: BTreeMap<PathBuf, String>) -> Result<()> {
    let known = KnownStores {
        format_version: FORMAT_VERSION,
        stores,
    };
    state_file::write(&known_path(plan), &known)
}

fn known_path(plan: &Plan) -> PathBuf {
    state_file::path(&plan.state_dir, "stores")
}

fn read_marker(store: &Store) -> Result<Option<Marker>> {
    state_file::read(&marker_path(store))
        .with_context(|| format!("the store {}", store.path().display()))
}

fn create_marker(store: &Store) -> Result<String> {
    let id = random_id()?;
    let marker = Marker {
        format_version: FORMAT_VERSION,
        id: id.clone(),
    };
    state_file::write(&marker_path(store), &marker)
        .with_context(|| format!("the store {}", store.path().display()))?;
    Ok(id)
}

/// Returns the marker's path by way of the open directory. What is mounted at the
/// store's own path may be another file system by now.
fn marker_path(store: &Store) -> PathBuf {
    let dir = PathBuf::from(format!("/proc/self/fd/{}", store.dir().as_raw_fd()));
    state_file::path(&dir, MARKER)
}
