//! The journal of guarded updates: one file for each stack, on disk before the command
//! runs. It has all that is needed to put the stack back as it was.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::images::HeldImage;
use crate::config::plan::StackPlan;
use crate::stack::journal::JournalEntry;
use crate::stack::running::WasRunning;
use crate::sys::durable::create_dir_durably;
use crate::sys::state_file::{self, State};
use crate::sys::time::OffsetTime;

const FORMAT_VERSION: u32 = 1;
/// The variable that marks the processes of a command. Its value is the entry's token.
pub const MARK: &str = "DOCKER_STACK_BACKUP_GUARD";

/// The journal entry of one guarded update.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuardEntry {
    pub format_version: u32,
    pub stack: StackPlan,
    pub since: OffsetTime,
    pub step: GuardStep,
    pub archive: PathBuf,
    pub command: Vec<String>,
    /// Marks the processes of the command, and the names that hold images.
    pub token: String,
    pub images: Vec<HeldImage>,
    /// What ran before, as a stopped stack to be started.
    pub before: JournalEntry,
    /// Containers that existed and did not run.
    pub idle: Vec<WasRunning>,
}

/// How far an update has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GuardStep {
    /// Images are being held. The command has not begun.
    Holding,
    /// The command may have run, and is not confirmed.
    Guarding,
    /// Data and images are as before the command. The stack is to be started.
    Restored,
    /// The stack is as it is to be, updated or not. Only images are still held.
    Settled,
}

impl State for GuardEntry {
    const NAME: &'static str = "the journal of guarded updates";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;
}

impl GuardEntry {
    pub fn new(
        stack: &StackPlan,
        archive: &Path,
        command: &[String],
        token: &str,
        before: JournalEntry,
    ) -> GuardEntry {
        GuardEntry {
            format_version: FORMAT_VERSION,
            stack: stack.clone(),
            since: OffsetTime::now(),
            step: GuardStep::Holding,
            archive: archive.to_owned(),
            command: command.to_vec(),
            token: token.to_owned(),
            images: Vec::new(),
            before,
            idle: Vec::new(),
        }
    }

    /// Whether the stack is to be put back as it was before the command.
    pub fn is_pending(&self) -> bool {
        matches!(self.step, GuardStep::Guarding | GuardStep::Restored)
    }

    /// Whether a container existed before the command.
    pub fn knows(&self, id: &str) -> bool {
        let mut known = self.before.containers.iter().chain(&self.idle);
        known.any(|was| was.id == id)
    }

    /// Puts it on disk, in place of an older one of the same stack. When this returns `Ok`,
    /// it survives a power cut.
    ///
    /// # Errors
    /// When that is not certain.
    pub fn write(&self, state_dir: &Path) -> Result<()> {
        let dir = directory(state_dir);
        create_dir_durably(&dir)?;
        state_file::write(&state_file::path(&dir, &self.stack.name), self)
    }
}

/// The entry of a guarded update, as it was found on disk.
#[derive(Debug)]
pub struct FoundGuard {
    pub stack: String,
    /// An error if the file cannot be parsed.
    pub entry: Result<GuardEntry>,
}

impl FoundGuard {
    /// Whether the stack may be half updated.
    pub fn is_pending(&self) -> bool {
        self.entry.as_ref().map_or(true, GuardEntry::is_pending)
    }
}

/// Reads the entries of all stacks, sorted by stack.
///
/// # Errors
/// When the directory cannot be listed. A file that cannot be parsed is an error of its
/// entry, and says what to do.
pub fn found(state_dir: &Path) -> Result<Vec<FoundGuard>> {
    let mut found = Vec::new();
    for (stack, path) in state_file::list(&directory(state_dir))? {
        let Some(entry) = state_file::read(&path).transpose() else {
            continue;
        };
        let entry = entry.map_err(|error| {
            anyhow!(
                "{error:#}; an update under `guard` was killed, and the stack may be half \
                 updated: put right by hand what is wrong, or restore the stack's newest archive \
                 after `docker-stack-backup recover --forget {stack}`"
            )
        });
        found.push(FoundGuard { stack, entry });
    }
    Ok(found)
}

/// Whether there is an entry for the stack.
pub fn has(state_dir: &Path, stack: &str) -> bool {
    state_file::path(&directory(state_dir), stack).exists()
}

/// Removes the entry of a stack. It is no error if there is none.
///
/// # Errors
/// When it is not certain that it is gone.
pub fn remove(state_dir: &Path, stack: &str) -> Result<()> {
    state_file::remove(&state_file::path(&directory(state_dir), stack))
}

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("guard")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;
    use crate::config::plan::Plan;

    fn entry(step: GuardStep) -> GuardEntry {
        let config = Config::parse(br#"{"stacks": ["web"]}"#).unwrap();
        let stack = &Plan::new(config).unwrap().stacks[0];
        let before = serde_json::json!({
            "formatVersion": 3, "stack": "web", "project": "web", "compose": stack.compose,
            "stopMethod": "stop", "stopTimeoutSecs": null, "startTimeoutSecs": 1,
            "since": "2026-11-23T03:00:00+01:00", "step": "stopped",
            "containers": [WasRunning::example("app", &[], &[])],
        });
        let before = serde_json::from_value(before).unwrap();
        let command = ["docker".to_owned()];
        GuardEntry {
            step,
            ..GuardEntry::new(stack, Path::new("/b/web.tar"), &command, "token", before)
        }
    }

    #[test]
    fn an_entry_is_read_back_and_says_which_way_the_update_ends() {
        let dir = tempfile::tempdir().unwrap();
        for (step, is_pending) in [
            (GuardStep::Holding, false),
            (GuardStep::Guarding, true),
            (GuardStep::Restored, true),
            (GuardStep::Settled, false),
        ] {
            entry(step).write(dir.path()).unwrap();
            let found = found(dir.path()).unwrap().remove(0);
            assert_eq!((&*found.stack, found.is_pending()), ("web", is_pending));
            let read = found.entry.unwrap();
            assert_eq!((read.step, &*read.token), (step, "token"));
            assert!(read.knows("id-app") && !read.knows("id-other"));
            assert!(has(dir.path(), "web"));
        }
        remove(dir.path(), "web").unwrap();
        assert!(!has(dir.path(), "web") && found(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn an_entry_that_cannot_be_parsed_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        entry(GuardStep::Guarding).write(dir.path()).unwrap();
        fs::write(dir.path().join("guard/web.json"), "{}").unwrap();
        let found = found(dir.path()).unwrap().remove(0);
        assert!(found.is_pending());
        let error = format!("{:#}", found.entry.unwrap_err());
        assert!(error.contains("recover --forget web"), "{error}");
    }
}
