//! The journal of what this program has stopped and not started again yet. It has
//! one file for each stack, which is on disk before the first container is
//! stopped (I1), and is removed only when the start is confirmed. `recover` needs
//! nothing else.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use jiff::ZonedDateTime;
use serde::{Deserialize, Serialize};

use crate::config::StopMethod;
use crate::engine::ComposeProject;
use crate::stack::running::WasRunning;
use crate::sys::state_file::{self, State};

/// Version of the journal's files.
pub const FORMAT_VERSION: u32 = 1;

/// How a stack was stopped, and what must be started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalEntry {
    pub format_version: u32,
    pub stack: String,
    /// The project's name, as it is in the labels of its containers.
    pub project: String,
    pub compose: ComposeProject,
    pub stop_method: StopMethod,
    pub stop_timeout_secs: Option<u64>,
    pub start_timeout_secs: u64,
    pub since: ZonedDateTime,
    pub step: StopProgress,
    pub containers: Vec<WasRunning>,
}

/// Whether the stop is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopProgress {
    /// A stop may be under way in the Engine, even if this program was killed.
    Stopping,
    /// No stop is under way any more.
    Stopped,
}

impl State for JournalEntry {
    const NAME: &'static str = "the journal";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;
}

impl JournalEntry {
    /// Returns the names of the services, each once, sorted.
    pub fn services(&self) -> Vec<String> {
        let mut services: Vec<String> = self
            .containers
            .iter()
            .map(|container| container.service.clone())
            .collect();
        services.sort();
        services.dedup();
        services
    }
}

/// The journal entry of a stack, as it was found on disk.
#[derive(Debug)]
pub struct FoundEntry {
    pub stack: String,
    /// An error if the file cannot be parsed.
    pub entry: Result<JournalEntry>,
}

/// The directory that has the journal's files.
pub struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// Opens the journal, and creates its directory if it does not exist.
    pub fn open(state_dir: &Path) -> Result<Journal> {
        let dir = state_dir.join("journal");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Journal { dir })
    }

    /// Writes an entry to disk, in place of an older one of the same stack. When
    /// this returns, the entry survives a power cut.
    pub fn write(&self, entry: &JournalEntry) -> Result<()> {
        state_file::write(&self.path(&entry.stack), entry)
    }

    /// Removes the entry of a stack. It is no error if there is none.
    pub fn remove(&self, stack: &str) -> Result<()> {
        state_file::remove(&self.path(stack))
    }

    /// Reads the entries of all stacks, sorted by stack.
    ///
    /// # Errors
    /// When the directory cannot be read. A file that cannot be parsed is an error
    /// of its entry, and says what to do, because the stack may be down and nothing
    /// else knows of it.
    pub fn found(&self) -> Result<Vec<FoundEntry>> {
        let mut found = Vec::new();
        for (stack, path) in state_file::list(&self.dir)? {
            let Some(entry) = state_file::read(&path).transpose() else {
                continue;
            };
            let entry = entry.map_err(|error| {
                anyhow!(
                    "{error:#}; the stack may be down: start by hand what should run (docker \
                     compose ps --all, docker compose start), then run `docker-stack-backup \
                     recover --forget {stack}`"
                )
            });
            found.push(FoundEntry { stack, entry });
        }
        Ok(found)
    }

    fn path(&self, stack: &str) -> PathBuf {
        state_file::path(&self.dir, stack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stack: &str) -> JournalEntry {
        JournalEntry {
            format_version: FORMAT_VERSION,
            stack: stack.to_owned(),
            project: stack.to_owned(),
            compose: ComposeProject {
                dir: PathBuf::from("/opt/stacks").join(stack),
                name: None,
                files: vec![],
                env_files: vec![],
            },
            stop_method: StopMethod::Stop,
            stop_timeout_secs: None,
            start_timeout_secs: 180,
            since: ZonedDateTime::now(),
            step: StopProgress::Stopping,
            containers: vec![],
        }
    }

    #[test]
    fn each_stack_has_one_entry_that_is_removed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert!(journal.found().unwrap().is_empty());
        journal.write(&entry("web")).unwrap();
        journal.write(&entry("db")).unwrap();
        journal
            .write(&JournalEntry {
                step: StopProgress::Stopped,
                ..entry("db")
            })
            .unwrap();
        let seen: Vec<_> = journal.found().unwrap();
        let seen: Vec<_> = seen
            .iter()
            .map(|f| (&*f.stack, f.entry.as_ref().unwrap().step))
            .collect();
        assert_eq!(
            seen,
            [
                ("db", StopProgress::Stopped),
                ("web", StopProgress::Stopping)
            ]
        );
        journal.remove("db").unwrap();
        journal.remove("db").unwrap();
        assert_eq!(journal.found().unwrap().len(), 1);
    }

    #[test]
    fn a_journal_that_does_not_parse_is_an_error_of_its_stack_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.write(&entry("db")).unwrap();
        let damages: [&[u8]; 4] = [
            b"",
            b"{}",
            b"\0\0\0\0",
            br#"{"formatVersion":99,"stack":"web"}"#,
        ];
        for damage in damages {
            fs::write(journal.path("web"), damage).unwrap();
            let found = journal.found().unwrap();
            assert!(found[0].entry.is_ok());
            let message = format!("{:#}", found[1].entry.as_ref().unwrap_err());
            assert!(
                message.contains("the stack may be down: start by hand"),
                "{message}"
            );
            assert!(message.contains("recover --forget web"), "{message}");
        }
    }
}
