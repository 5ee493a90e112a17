//! What restic is asked to do. It gets the files of an archive, not the archive, because it
//! stores again what stands near a change within a file. Each archive is a snapshot with the
//! tags `stack=<stack>` and the archive's name.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::program::{RepositoryProgram, in_archive, stem};
use crate::mount::{Mounted, View, ViewedArchive, check_mount_point};
use crate::store::StoredArchive;
use crate::sys::durable::create_dir_durably;
use crate::sys::time::OffsetTime;

#[derive(Deserialize)]
struct Snapshot {
    id: String,
}

/// Removes the locks of processes of this machine that have ended, and those that were not
/// refreshed for half an hour.
pub fn unlock(program: &RepositoryProgram<'_>) -> Result<()> {
    program.run(["unlock", "--quiet"]).map(drop)
}

pub fn probe(program: &RepositoryProgram<'_>) -> Result<()> {
    program.run(["cat", "config"]).map(drop)
}

pub fn store(
    program: &RepositoryProgram<'_>,
    archive: &StoredArchive,
    is_retry: bool,
) -> Result<()> {
    if is_retry {
        forget(program, archive)?;
    }
    let stack = &archive.name.stack;
    // The same every night: restic looks for the snapshot before by host and path.
    let dir = program.dir.join("archives");
    create_dir_durably(&dir)?;
    check_mount_point(&dir)?;
    let viewed = ViewedArchive::open(&archive.path)?;
    viewed.read(program.signals.flag())?;
    let mut view = View::of_stacks();
    view.add_latest(stack, viewed);
    let mounted = Mounted::new(view, &dir)?;
    let time = OffsetTime::local(archive.time.timestamp());
    let time = time.strftime("%Y-%m-%d %H:%M:%S");
    let args = [
        "backup".to_owned(),
        "--quiet".to_owned(),
        format!("--host={}", program.host),
        format!("--tag=stack={stack}"),
        format!("--tag={}", stem(archive)),
        format!("--time={time}"),
    ];
    let args = args.into_iter().map(OsString::from);
    let args = args.chain([dir.join(stack).into_os_string()]);
    let stored = program.run(args);
    let unmounted = mounted.unmount();
    stored.with_context(|| in_archive(archive))?;
    unmounted
}

/// Removes the snapshots of an archive: restic also makes one of what it could read, if it
/// could not read all.
fn forget(program: &RepositoryProgram<'_>, archive: &StoredArchive) -> Result<()> {
    let host = format!("--host={}", program.host);
    let tag = format!("--tag={}", stem(archive));
    let listed = program.run(["snapshots", "--json", &host, &tag])?;
    let snapshots: Vec<Snapshot> =
        serde_json::from_slice(&listed).context("cannot understand `restic snapshots`")?;
    if snapshots.is_empty() {
        return Ok(());
    }
    let ids = snapshots.into_iter().map(|snapshot| snapshot.id);
    let args = ["forget".to_owned(), "--quiet".to_owned()];
    program.run(args.into_iter().chain(ids)).map(drop)
}

pub fn prune(program: &RepositoryProgram<'_>, stack: &str, rules: Vec<String>) -> Result<()> {
    let args = [
        "forget".to_owned(),
        "--quiet".to_owned(),
        "--group-by=host".to_owned(),
        format!("--host={}", program.host),
        format!("--tag=stack={stack}"),
    ];
    let args = args.into_iter().chain(rules);
    program.run(args).map(drop)
}

pub fn compact(program: &RepositoryProgram<'_>) -> Result<()> {
    program.run(["prune", "--quiet"]).map(drop)
}

pub fn check(program: &RepositoryProgram<'_>) -> Result<()> {
    program.run(["check", "--quiet"]).map(drop)
}
