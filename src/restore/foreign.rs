//! Archives of other programs: `tar -cf` of a stack's directory, as the script
//! made them. Such an archive has no manifest, so one is made up, of what its
//! headers tell and of what is there now.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jiff::ZonedDateTime;
use serde_json::Value;

use super::{Archive, normalise, within};
use crate::archive::{FORMAT_VERSION, Kind, Manifest};
use crate::config::plan::StackPlan;
use crate::config::{Capture, StopMethod};
use crate::engine;
use crate::outcome::{MountCoverage, MountKind};
use crate::stack::survey::{self, Survey};
use crate::sys::format::display_path;

/// Where Compose looks (compose-spec, "Compose file").
const COMPOSE_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// A manifest for an archive that has none, as one of `stack`. Changes nothing.
///
/// # Errors
/// When it cannot be told what of the archive is the stack's directory, or
/// which project the stack is now.
pub fn stand_in(archive: &Archive, stack: &StackPlan) -> Result<Manifest> {
    let Archive::File { file, .. } = archive else {
        bail!(
            "an archive without a manifest is read twice, before and while it replaces a stack: \
             save it to a file first"
        )
    };
    let seen = look(archive, &compose_files(stack)).with_context(|| archive.name())?;
    let root = seen
        .root()
        .with_context(|| format!("restore a stack from {}", archive.name()))?;
    // What the compose file calls it is for the restored one to say.
    let project = survey::find_project(&stack.compose, None, &engine::compose_containers(None)?)?;
    let metadata = file.metadata()?;
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        program_version: String::new(),
        stack: stack.name.clone(),
        project: project.unwrap_or_default(),
        host: String::new(),
        trees: BTreeMap::from([(root, stack.dir().display().to_string())]),
        real_trees: BTreeMap::new(),
        capture: Capture::Offline,
        stop_method: StopMethod::Down,
        files: Vec::new(),
        env_files: Vec::new(),
        captured: ZonedDateTime::try_from(metadata.modified()?)?,
        downtime_ms: None,
        running: Vec::new(),
        replicas: BTreeMap::new(),
        images: Vec::new(),
        volumes: Vec::new(),
        coverage: not_held(stack),
        archive_bytes: metadata.len(),
        content_bytes: seen.content_bytes,
        member_count: seen.member_count,
        socket_count: 0,
        excluded_count: 0,
        changed_count: 0,
        changed: Vec::new(),
        compose: Value::Null,
        is_stand_in: true,
    })
}

/// Volumes and binds outside the directory, as far as what is there tells them:
/// a stack that is gone tells nothing.
fn not_held(stack: &StackPlan) -> Vec<MountCoverage> {
    let survey = match Survey::of(stack) {
        Ok(survey) => survey,
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "nothing is there to look at");
            return Vec::new();
        }
    };
    let outside = survey
        .coverage
        .into_iter()
        .filter(|coverage| coverage.kind != MountKind::Directory);
    let outside = outside.map(|coverage| MountCoverage {
        archived: false,
        ..coverage
    });
    outside.collect()
}

/// Relative to the stack's directory; one of them must be in the archive.
fn compose_files(stack: &StackPlan) -> Vec<Vec<u8>> {
    let configured = stack.compose.files.first().map(|file| {
        let file = stack.dir().join(file);
        let within = file.strip_prefix(stack.dir()).map(Path::to_owned);
        within.unwrap_or(file).as_os_str().as_bytes().to_vec()
    });
    match configured {
        Some(file) => vec![file],
        None => COMPOSE_FILES.map(|name| name.as_bytes().to_vec()).to_vec(),
    }
}

/// What an archive's headers tell. Paths are normalised.
#[derive(Debug, Default)]
struct Seen {
    directories: BTreeSet<Vec<u8>>,
    /// Those that hold what is no directory.
    filled: BTreeSet<Vec<u8>>,
    /// Those that hold a compose file.
    composed: BTreeSet<Vec<u8>>,
    member_count: u64,
    content_bytes: u64,
}

fn look(archive: &Archive, compose_files: &[Vec<u8>]) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut reader = archive.reader()?;
    while let Some(member) = reader.next_member()? {
        let path = normalise(&member.path).with_context(|| member.name())?;
        seen.add(path, member.kind == Kind::Directory, compose_files);
        seen.member_count += 1;
        seen.content_bytes += member.file_bytes;
    }
    Ok(seen)
}

impl Seen {
    fn add(&mut self, path: Vec<u8>, is_directory: bool, compose_files: &[Vec<u8>]) {
        if is_directory {
            self.directories.insert(path);
            return;
        }
        let holds = |file: &Vec<u8>| match path.strip_suffix(&file[..])? {
            b"" => Some(Vec::new()),
            dir => dir.strip_suffix(b"/").map(<[u8]>::to_vec),
        };
        self.composed.extend(compose_files.iter().filter_map(holds));
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let parent = &path[..slash.unwrap_or(0)];
        if !self.filled.contains(parent) {
            self.filled.insert(parent.to_vec());
        }
    }

    /// Member path of the stack's directory: the one with a compose file that
    /// all else is in. Empty if that is the whole archive (`tar -C DIR .`).
    ///
    /// # Errors
    /// When there is none, or more than one that could be meant.
    fn root(&self) -> Result<String> {
        let depth = |dir: &Vec<u8>| match dir.is_empty() {
            true => 0,
            false => 1 + dir.iter().filter(|byte| **byte == b'/').count(),
        };
        let Some(least) = self.composed.iter().map(depth).min() else {
            bail!(
                "it has no compose file, and so is none of a stack's directory: unpack it with \
                 --to DIR"
            );
        };
        let outermost: Vec<&Vec<u8>> = self
            .composed
            .iter()
            .filter(|dir| depth(dir) == least)
            .collect();
        let names: Vec<String> = outermost.iter().map(|dir| display_path(dir)).collect();
        let [root] = outermost[..] else {
            bail!(
                "it has several directories with a compose file ({}), and it cannot be told which \
                 is meant: unpack it with --to DIR",
                names.join(", ")
            );
        };
        let above = self
            .directories
            .iter()
            .filter(|dir| within(root, dir).is_none());
        let outside = above
            .chain(&self.filled)
            .find(|dir| within(dir, root).is_none());
        if let Some(outside) = outside {
            let outside = match display_path(outside) {
                name if name.is_empty() => "its top".to_owned(),
                name => name,
            };
            bail!(
                "beside the stack's directory {} it holds something in {outside}, which has no \
                 place there: unpack it with --to DIR",
                names.join("")
            );
        }
        let root = String::from_utf8(root.clone()).ok();
        ensure!(root.is_some(), "{} is no UTF-8", names.join(""));
        Ok(root.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(members: &[&str]) -> Result<String> {
        let files = COMPOSE_FILES.map(|name| name.as_bytes().to_vec());
        let mut seen = Seen::default();
        for member in members {
            let path = normalise(member.as_bytes())?;
            seen.add(path, member.ends_with('/'), &files);
        }
        seen.root()
    }

    #[test]
    fn the_stacks_directory_is_the_one_that_holds_a_compose_file_and_all_else() {
        let good: [(&[&str], &str); 6] = [
            (
                &["web/", "web/compose.yaml", "web/data/", "web/data/x"],
                "web",
            ),
            (&["./", "./docker-compose.yml", "./data/x"], ""),
            (&["compose.yml", "data/compose.yml"], ""),
            (&["web/.env", "web/data/", "web/docker-compose.yaml"], "web"),
            (
                &["opt/", "opt/stacks/web/", "opt/stacks/web/compose.yaml"],
                "opt/stacks/web",
            ),
            (
                &[
                    "web/compose.yaml",
                    "web/a/compose.yaml",
                    "web/b/compose.yaml",
                ],
                "web",
            ),
        ];
        for (members, expected) in good {
            assert_eq!(root(members).unwrap(), expected, "{members:?}");
        }
        let bad: [(&[&str], &str); 8] = [
            (&[], "no compose file"),
            (&["web/", "web/data"], "no compose file"),
            (
                &["web/compose.yaml/", "web/xcompose.yaml"],
                "no compose file",
            ),
            (&["a/compose.yaml", "b/compose.yaml"], "(a, b)"),
            (&["a/compose.yaml", "b/data"], "something in b"),
            (&["a/compose.yaml", "b/"], "something in b"),
            (&["a/compose.yaml", "ab/data"], "something in ab"),
            (&["a/compose.yaml", "notes"], "something in its top"),
        ];
        for (members, expected) in bad {
            let error = format!("{:#}", root(members).unwrap_err());
            assert!(error.contains(expected), "{members:?}: {error}");
        }
    }
}
