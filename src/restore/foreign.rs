//! Archives without a manifest: `tar -cf` of a stack's directory, as the old
//! script made them. What a restore needs to know is guessed from their headers,
//! the configuration and the present stack.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::archive::Archive;
use super::facts::GuessedFacts;
use crate::archive::Kind;
use crate::archive::member_path::{normalise, split, within};
use crate::config::plan::StackPlan;
use crate::engine::{ComposeProject, MAIN_COMPOSE_FILES};
use crate::outcome::{MountCoverage, MountKind};
use crate::stack::project::find_project;
use crate::stack::survey::Survey;
use crate::sys::format::display_path;
use crate::sys::time::OffsetTime;

/// Guesses what a manifest would say about an archive of `stack`. Changes
/// nothing.
///
/// # Errors
/// When the archive is not in a file, when it is not clear which directory in it
/// is the stack's, or which project the stack is now.
pub fn guess(archive: &Archive, stack: &StackPlan) -> Result<GuessedFacts> {
    let Archive::File { file, .. } = archive else {
        bail!(
            "an archive without a manifest is read twice, before and while it replaces a stack: \
             save it to a file first, decrypted if it is encrypted"
        )
    };
    ensure!(
        !stack.is_of_units(),
        "the stack {} has `units`, and the archive has no manifest: unpack it with --to",
        stack.name
    );
    let headers = Headers::read(archive, &compose_files(stack)).with_context(|| archive.name())?;
    let root = headers
        .stack_directory()
        .with_context(|| format!("cannot restore a stack from {}", archive.name()))?;
    // The name in the present compose file does not count: the one in the
    // archive may have another.
    let containers = stack.compose.engine.compose_containers(None)?;
    let project = find_project(&stack.compose, None, &containers)?;
    Ok(GuessedFacts {
        stack: stack.name.clone(),
        compose: ComposeProject {
            name: project,
            ..stack.compose.clone()
        },
        root,
        modified: OffsetTime::local(file.metadata()?.modified()?.try_into()?),
        not_archived: mounts_outside(stack),
    })
}

/// Returns the stack's mounts outside of its directory. Without containers and a
/// compose file, none are known.
fn mounts_outside(stack: &StackPlan) -> Vec<MountCoverage> {
    let survey = match Survey::of(stack) {
        Ok(survey) => survey,
        Err(error) => {
            tracing::debug!(
                error = format!("{error:#}"),
                "cannot list the stack's mounts"
            );
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

/// Paths of possible compose files, relative to the stack's directory. One of
/// them must be in the archive.
fn compose_files(stack: &StackPlan) -> Vec<Vec<u8>> {
    let configured = stack.compose.files.first().map(|file| {
        let file = stack.dir().join(file);
        let within = file.strip_prefix(stack.dir()).map(Path::to_owned);
        within.unwrap_or(file).as_os_str().as_bytes().to_vec()
    });
    match configured {
        Some(file) => vec![file],
        None => MAIN_COMPOSE_FILES
            .map(|name| name.as_bytes().to_vec())
            .to_vec(),
    }
}

/// What the headers of an archive say. All paths are normalised.
#[derive(Debug, Default)]
struct Headers {
    directories: BTreeSet<Vec<u8>>,
    /// Directories that contain something other than directories.
    filled: BTreeSet<Vec<u8>>,
    /// Directories that contain a compose file.
    with_compose_file: BTreeSet<Vec<u8>>,
}

impl Headers {
    fn read(archive: &Archive, compose_files: &[Vec<u8>]) -> Result<Headers> {
        let mut headers = Headers::default();
        let mut reader = archive.reader()?;
        while let Some(member) = reader.next_member()? {
            let path = normalise(&member.path).with_context(|| member.name())?;
            headers.add(path, member.kind == Kind::Directory, compose_files);
        }
        Ok(headers)
    }

    fn add(&mut self, path: Vec<u8>, is_directory: bool, compose_files: &[Vec<u8>]) {
        if is_directory {
            self.directories.insert(path);
            return;
        }
        let parent_of = |file: &Vec<u8>| match path.strip_suffix(&file[..])? {
            b"" => Some(Vec::new()),
            dir => dir.strip_suffix(b"/").map(<[u8]>::to_vec),
        };
        self.with_compose_file
            .extend(compose_files.iter().filter_map(parent_of));
        let (parent, _) = split(&path);
        if !self.filled.contains(parent) {
            self.filled.insert(parent.to_vec());
        }
    }

    /// Returns the member path of the stack's directory: it has a compose file,
    /// and everything else is beneath it. The path is empty if that is the whole
    /// archive (`tar -C DIR .`).
    ///
    /// # Errors
    /// When there is no such directory, or more than one.
    fn stack_directory(&self) -> Result<String> {
        let depth = |dir: &Vec<u8>| match dir.is_empty() {
            true => 0,
            false => 1 + dir.iter().filter(|byte| **byte == b'/').count(),
        };
        let Some(least) = self.with_compose_file.iter().map(depth).min() else {
            bail!(
                "it has no compose file, so it is not an archive of a stack's directory: unpack it \
                 with --to DIR"
            );
        };
        let outermost: Vec<&Vec<u8>> = self
            .with_compose_file
            .iter()
            .filter(|dir| depth(dir) == least)
            .collect();
        let names: Vec<String> = outermost.iter().map(|dir| display_path(dir)).collect();
        let [root] = outermost[..] else {
            bail!(
                "it has several directories with a compose file ({}), and it is not clear which one \
                 is the stack's: unpack it with --to DIR",
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
                "it also holds something in {outside}, which is outside of the stack's directory \
                 {}: unpack it with --to DIR",
                names.join("")
            );
        }
        let root = String::from_utf8(root.clone()).ok();
        ensure!(root.is_some(), "{} is not UTF-8", names.join(""));
        Ok(root.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack_directory(members: &[&str]) -> Result<String> {
        let files = MAIN_COMPOSE_FILES.map(|name| name.as_bytes().to_vec());
        let mut headers = Headers::default();
        for member in members {
            let path = normalise(member.as_bytes())?;
            headers.add(path, member.ends_with('/'), &files);
        }
        headers.stack_directory()
    }

    #[test]
    fn the_stacks_directory_has_a_compose_file_and_everything_else_beneath_it() {
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
            assert_eq!(stack_directory(members).unwrap(), expected, "{members:?}");
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
            let error = format!("{:#}", stack_directory(members).unwrap_err());
            assert!(error.contains(expected), "{members:?}: {error}");
        }
    }
}
