//! What Borg 1.2 and 1.4 are asked to do. Each archive of the store is one of the repository,
//! `<stack>_<date>_<time>@<host>`, which has the `.tar` file and its sums.

use std::ffi::OsString;
use std::fs::File;

use anyhow::{Context as _, Result};

use super::program::{RepositoryProgram, directory, in_archive, stem};
use crate::archive::{Manifest, read_manifest};
use crate::store::StoredArchive;

/// How long to wait for another Borg that uses the repository.
/// Borg looks ten times within this time, in seconds; so a lock of a process that is dead
/// costs some seconds.
const LOCK_WAIT: &str = "--lock-wait=60";
/// What was stored by then is not stored again if this ends early.
const CHECKPOINT_INTERVAL: &str = "--checkpoint-interval=600";

/// For large files that change within: archives align the data of files of 64 KiB and more.
const CHUNKER_FIXED: &str = "fixed,4096";
/// For small files.
const CHUNKER_FINE: &str = "buzhash,9,16,12,255";
/// Borg's own. The others would need too much memory: some 100 bytes for each 4 KiB.
const CHUNKER_COARSE: &str = "buzhash,19,23,21,4095";
const COARSE_MIN_BYTES: u64 = 64 << 30;
/// Files that are as large on average are large.
const LARGE_FILE_BYTES: u64 = 64 << 10;

/// Chooses the parameters of the chunker by what an archive holds.
pub fn choose_chunker(archive: &StoredArchive) -> &'static str {
    let manifest = File::open(&archive.path)
        .map_err(Into::into)
        .and_then(|file| read_manifest(&file));
    let manifest = manifest.ok().flatten();
    let manifest: Option<Manifest> = manifest.and_then(|json| serde_json::from_slice(&json).ok());
    let mean = manifest.map(|manifest| manifest.content_bytes / manifest.member_count.max(1));
    chunker_for(archive.archive_bytes, mean)
}

/// `mean_bytes` is the mean size of the members, if it is known.
fn chunker_for(archive_bytes: u64, mean_bytes: Option<u64>) -> &'static str {
    match mean_bytes {
        _ if archive_bytes >= COARSE_MIN_BYTES => CHUNKER_COARSE,
        Some(mean) if mean >= LARGE_FILE_BYTES => CHUNKER_FIXED,
        _ => CHUNKER_FINE,
    }
}

/// Returns an archive's name in the repository. The host in it keeps machines apart that
/// share a repository.
fn name(program: &RepositoryProgram<'_>, archive: &StoredArchive) -> String {
    format!("{}@{}", stem(archive), program.host)
}

/// Returns the glob for a stack's archives. It has no `*`, lest it also match those of a
/// stack whose name is longer. So the second of two archives of the same second, whose name
/// has a `-2`, is never pruned.
fn glob(program: &RepositoryProgram<'_>, stack: &str) -> String {
    let digits = |count: usize| "[0-9]".repeat(count);
    format!("{stack}_{}_{}@{}", digits(8), digits(6), program.host)
}

fn delete(program: &RepositoryProgram<'_>, glob: &str) -> Result<()> {
    let args = ["delete", LOCK_WAIT, "--glob-archives", glob];
    program.run(args).map(drop)
}

pub fn probe(program: &RepositoryProgram<'_>) -> Result<()> {
    let args = ["list", LOCK_WAIT, "--short", "--last=1"];
    program.run(args).map(drop)
}

pub fn store(
    program: &RepositoryProgram<'_>,
    archive: &StoredArchive,
    chunker: Option<&str>,
    is_retry: bool,
) -> Result<()> {
    let name = name(program, archive);
    if is_retry {
        // Exactly this one: the name has nothing of a glob.
        delete(program, &name)?;
    }
    let dir = directory(archive)?;
    let file = archive.name.to_string();
    let sums = format!("{}.sums", stem(archive));
    let time = archive.time.timestamp().strftime("%Y-%m-%dT%H:%M:%S+00:00");
    let mut args: Vec<OsString> = [
        "create",
        LOCK_WAIT,
        CHECKPOINT_INTERVAL,
        // Each archive is a new file.
        "--files-cache=disabled",
        "--chunker-params",
        chunker.unwrap_or(CHUNKER_FINE),
        &format!("--timestamp={time}"),
        &format!("::{name}"),
        &file,
    ]
    .map(OsString::from)
    .to_vec();
    if dir.join(&sums).is_file() {
        args.push(sums.into());
    }
    program
        .run_in(dir, args)
        .with_context(|| in_archive(archive))?;
    if is_retry {
        let left = delete(program, &format!("{name}.checkpoint*"));
        if let Err(error) = left {
            // The archive is there.
            tracing::warn!("{error:#}");
        }
    }
    Ok(())
}

pub fn prune(program: &RepositoryProgram<'_>, stack: &str, rules: Vec<String>) -> Result<()> {
    let glob = glob(program, stack);
    let args = ["prune", LOCK_WAIT, "--glob-archives", &glob].map(str::to_owned);
    let args = args.into_iter().chain(rules);
    program.run(args).map(drop)
}

pub fn compact(program: &RepositoryProgram<'_>) -> Result<()> {
    program.run(["compact", LOCK_WAIT]).map(drop)
}

pub fn check(program: &RepositoryProgram<'_>) -> Result<()> {
    program.run(["check", LOCK_WAIT]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunker_is_that_of_the_kind_of_stack() {
        for (archive_bytes, mean_bytes, expected) in [
            (1 << 30, Some(1 << 20), CHUNKER_FIXED),
            (1 << 30, Some(64 << 10), CHUNKER_FIXED),
            (1 << 30, Some(8 << 10), CHUNKER_FINE),
            // An archive of another program says nothing.
            (1 << 30, None, CHUNKER_FINE),
            (64 << 30, Some(4 << 20), CHUNKER_COARSE),
            (64 << 30, None, CHUNKER_COARSE),
        ] {
            assert_eq!(chunker_for(archive_bytes, mean_bytes), expected);
        }
    }
}
