//! The journal of what this program has stopped and not started again yet, and of the
//! hooks whose effect it has not taken back. It has one file for each stack, which is on
//! disk before the first container is stopped (I1) or such a hook runs, and is removed
//! only when the start is confirmed and all is taken back. `recover` needs nothing else.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{HookCommand, HookPlace, StopMethod};
use crate::engine::{ComposeProject, Exec, Network};
use crate::stack::running::{self, WasRunning};
use crate::stack::unit_containers::CheckedContainer;
use crate::stack::units::WasActive;
use crate::sys::durable::create_dir_durably;
use crate::sys::state_file::{self, State};
use crate::sys::time::OffsetTime;

/// Version of the journal's files.
pub const FORMAT_VERSION: u32 = 4;

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
    pub since: OffsetTime,
    /// Name of the time zone of the machine, if it is known.
    #[serde(default)]
    pub time_zone: Option<String>,
    pub step: StopProgress,
    /// Whether a restore has stopped the stack. Its data may be half exchanged
    /// then, as long as the restore has an entry in its own journal.
    #[serde(default)]
    pub for_restore: bool,
    pub containers: Vec<WasRunning>,
    /// The units of a stack that is none of Docker Compose; it has no containers then.
    #[serde(default)]
    pub units: Vec<WasActive>,
    /// The containers of these units whose health is waited for.
    #[serde(default)]
    pub unit_containers: Vec<CheckedContainer>,
    /// The networks of the containers, as they were. Older versions did not record
    /// them.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// What takes back the effect of hooks, in the order in which these ran.
    #[serde(default)]
    pub undos: Vec<PendingUndo>,
}

/// A command that takes back the effect of a hook, which may have run or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PendingUndo {
    /// When the hook runs.
    pub when: HookPlace,
    pub command: HookCommand,
    /// The hook itself, if it runs in a container. It must have ended before its effect
    /// is taken back.
    pub hook: Option<Exec>,
}

/// How far the stop has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StopProgress {
    /// A stop may be under way in the Engine, even if this program was killed.
    Stopping,
    /// No stop is under way any more.
    Stopped,
    /// Nothing is stopped, or all is up again. Only `undos` are left to be done.
    Up,
}

impl State for JournalEntry {
    const NAME: &'static str = "the journal";
    const FORMAT_VERSION: u32 = FORMAT_VERSION;

    /// The first version has no undos. The second one has no Engines, as all stacks had the
    /// default one, and no units. The third one has no containers of units.
    fn upgrade(version: u32, mut json: Value) -> Option<Value> {
        if !(1..=FORMAT_VERSION).contains(&version) {
            return None;
        }
        if let Some(fields) = json.as_object_mut() {
            fields.insert("formatVersion".to_owned(), FORMAT_VERSION.into());
        }
        Some(json)
    }
}

impl JournalEntry {
    /// Whether the stack may be stopped.
    pub fn is_down(&self) -> bool {
        self.step != StopProgress::Up
    }

    /// Whether nothing is left to do.
    pub fn is_settled(&self) -> bool {
        !self.is_down() && self.undos.is_empty()
    }

    /// Names the hooks whose effect is not taken back.
    pub fn pending_undos(&self) -> Vec<String> {
        let undos = self.undos.iter();
        undos.map(|undo| undo.command.to_string()).collect()
    }

    /// Returns the names of the services, each once, sorted; or those of the units.
    pub fn services(&self) -> Vec<String> {
        match self.units.is_empty() {
            true => running::services(&self.containers),
            false => self.units.iter().map(|was| was.name.clone()).collect(),
        }
    }
}

/// The journal entry of a stack, as it was found on disk.
#[derive(Debug)]
pub struct FoundEntry {
    pub stack: String,
    /// An error if the file cannot be parsed.
    pub entry: Result<JournalEntry>,
}

impl FoundEntry {
    /// Whether the stack has another Engine than the default one.
    pub fn has_own_engine(&self) -> bool {
        let entry = self.entry.as_ref();
        entry.is_ok_and(|entry| !entry.compose.engine.is_default())
    }

    /// Whether the stack may be stopped.
    pub fn is_down(&self) -> bool {
        self.entry.as_ref().map_or(true, JournalEntry::is_down)
    }
}

/// The directory that has the journal's files. It need not exist.
pub struct Journal {
    dir: PathBuf,
}

impl Journal {
    pub fn of(state_dir: &Path) -> Journal {
        Journal {
            dir: state_dir.join("journal"),
        }
    }

    /// Writes the entry of a stack that is about to be stopped, or about to run a hook.
    /// When this returns `Ok`, the entry survives a power cut.
    ///
    /// # Errors
    /// When that is not certain. The entry `before` is put back then, or removed if there
    /// was none: nothing must be done, and `recover` must leave the stack alone.
    pub fn begin(&self, entry: &JournalEntry, before: Option<&JournalEntry>) -> Result<()> {
        let put_back = || match before {
            Some(before) => self.write(before),
            None => self.remove(&entry.stack),
        };
        create_dir_durably(&self.dir)
            .and_then(|()| self.write(entry))
            .map_err(|error| match put_back() {
                Ok(()) => error,
                Err(second) => error.context(format!(
                    "the next `recover` will restart the stack or undo its hooks, although \
                     nothing was done ({second:#})"
                )),
            })
    }

    /// Writes an entry of which something is done. If nothing is left to do, it is removed.
    pub fn settle(&self, entry: &JournalEntry) -> Result<()> {
        match entry.is_settled() {
            true => self.remove(&entry.stack),
            false => self.write(entry),
        }
    }

    /// Writes an entry to disk, in place of the older one of the same stack. When
    /// this returns `Ok`, the entry survives a power cut.
    pub fn write(&self, entry: &JournalEntry) -> Result<()> {
        state_file::write(&self.path(&entry.stack), entry)
    }

    /// Removes the entry of a stack. It is no error if there is none.
    pub fn remove(&self, stack: &str) -> Result<()> {
        state_file::remove(&self.path(stack))
    }

    /// Whether there is an entry for the stack.
    pub fn has(&self, stack: &str) -> bool {
        self.path(stack).exists()
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
                     compose start, or systemctl start), then run `docker-stack-backup \
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
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::config::HookTarget;
    use crate::engine::Engine;

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
                engine: Engine::default(),
            },
            stop_method: StopMethod::Stop,
            stop_timeout_secs: None,
            start_timeout_secs: 180,
            since: OffsetTime::now(),
            time_zone: None,
            step: StopProgress::Stopping,
            for_restore: false,
            containers: vec![],
            units: vec![],
            unit_containers: vec![],
            networks: vec![],
            undos: vec![],
        }
    }

    fn undo(argv: &str) -> PendingUndo {
        PendingUndo {
            when: HookPlace::BeforeStop,
            command: HookCommand {
                target: HookTarget::Service("app".to_owned()),
                user: None,
                argv: vec![argv.to_owned()],
                timeout_secs: 5,
                environment: BTreeMap::new(),
                secrets: BTreeMap::new(),
            },
            hook: None,
        }
    }

    #[test]
    fn an_entry_stays_until_the_stack_is_up_and_all_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path());
        let with = |step, undos: &[&str]| JournalEntry {
            step,
            undos: undos.iter().map(|argv| undo(argv)).collect(),
            ..entry("web")
        };
        let (up, stopped) = (StopProgress::Up, StopProgress::Stopped);
        journal.begin(&with(up, &["off"]), None).unwrap();
        for (entry, is_kept) in [
            (with(up, &["off"]), true),
            (with(stopped, &["off"]), true),
            (with(stopped, &[]), true),
            (with(up, &[]), false),
        ] {
            journal.settle(&entry).unwrap();
            let found = journal.found().unwrap();
            assert_eq!(found.len(), usize::from(is_kept));
            if let Some(found) = found.first() {
                assert_eq!(*found.entry.as_ref().unwrap(), entry);
            }
        }
    }

    #[test]
    fn an_entry_that_cannot_be_replaced_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path());
        let before = JournalEntry {
            step: StopProgress::Up,
            undos: vec![undo("off")],
            ..entry("web")
        };
        journal.begin(&before, None).unwrap();
        // The temporary file cannot be written.
        let temporary = dir.path().join("journal/web.json.new");
        fs::create_dir(&temporary).unwrap();
        journal.begin(&entry("web"), Some(&before)).unwrap_err();
        let found = journal.found().unwrap().remove(0).entry.unwrap();
        assert_eq!(found, before);
        // The control: otherwise it is replaced.
        fs::remove_dir(&temporary).unwrap();
        let stopping = entry("web");
        journal.begin(&stopping, Some(&before)).unwrap();
        let found = journal.found().unwrap().remove(0).entry.unwrap();
        assert_eq!(found, stopping);
    }

    #[test]
    fn each_stack_has_one_entry_that_is_removed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path());
        assert!(journal.found().unwrap().is_empty());
        journal.begin(&entry("web"), None).unwrap();
        journal.begin(&entry("db"), None).unwrap();
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
        let journal = Journal::of(dir.path());
        journal.begin(&entry("db"), None).unwrap();
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

    #[test]
    fn an_entry_is_read_without_a_time_zone_database() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path());
        journal.begin(&entry("web"), None).unwrap();
        let json = fs::read_to_string(journal.path("web")).unwrap();
        let mut json: Value = serde_json::from_str(&json).unwrap();
        // As older versions wrote it, here in a zone that no database has.
        json["since"] = "2026-11-24T03:00:00.5+01:00[Nowhere/Atlantis]".into();
        let fields = json.as_object_mut().unwrap();
        fields.insert("formatVersion".to_owned(), 1.into());
        fields.remove("forRestore");
        fields.remove("networks");
        fields.remove("undos");
        fields.remove("units");
        fields.remove("unitContainers");
        // What they recorded of a container.
        fields["containers"] = serde_json::json!([{
            "id": "1", "name": "web-app-1", "service": "app", "number": 1, "dependsOn": [],
            "joins": [], "before": "running", "stopTimeoutSecs": 10,
        }]);
        fs::write(journal.path("web"), json.to_string()).unwrap();
        let found = journal.found().unwrap().remove(0).entry.unwrap();
        assert_eq!(found.since.to_string(), "2026-11-24T03:00:00.5+01:00");
        assert!(!found.for_restore);
        assert!(found.containers[0].is_own());
        // The control: a zoned time cannot be read.
        let zoned = json["since"]
            .as_str()
            .unwrap()
            .parse::<jiff::ZonedDateTime>();
        assert!(zoned.is_err());
    }

    #[test]
    fn an_entry_of_units_is_read_back_and_older_ones_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path());
        let was = WasActive {
            name: "postgresql.service".to_owned(),
            kept_restarting: false,
        };
        let checked = CheckedContainer {
            name: "postgres".to_owned(),
            engine: Engine::system_podman(),
        };
        let of_units = JournalEntry {
            units: vec![was],
            unit_containers: vec![checked],
            ..entry("db")
        };
        journal.begin(&of_units, None).unwrap();
        let read = || journal.found().unwrap().remove(0).entry;
        assert_eq!(read().unwrap(), of_units);
        assert_eq!(of_units.services(), ["postgresql.service"]);
        let json = fs::read_to_string(journal.path("db")).unwrap();
        let mut json: Value = serde_json::from_str(&json).unwrap();
        json["formatVersion"] = 3.into();
        json.as_object_mut().unwrap().remove("unitContainers");
        fs::write(journal.path("db"), json.to_string()).unwrap();
        assert_eq!(read().unwrap().units, of_units.units);
        json["formatVersion"] = 2.into();
        json.as_object_mut().unwrap().remove("units");
        fs::write(journal.path("db"), json.to_string()).unwrap();
        assert!(read().unwrap().units.is_empty());
        // The control: an older program refuses a version that it does not know, and so does
        // this one.
        json["formatVersion"] = (FORMAT_VERSION + 1).into();
        fs::write(journal.path("db"), json.to_string()).unwrap();
        assert!(read().is_err());
    }

    #[test]
    fn an_entry_that_is_not_certain_to_be_on_disk_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(dir.path());
        journal.begin(&entry("db"), None).unwrap();
        // The rename fails, after the content was written.
        fs::create_dir(journal.path("web")).unwrap();
        journal.begin(&entry("web"), None).unwrap_err();
        assert_eq!(journal.found().unwrap().len(), 2, "the directory stays");
        fs::remove_dir(journal.path("web")).unwrap();
        // The control: without it, the entry is written.
        journal.begin(&entry("web"), None).unwrap();
        assert_eq!(journal.found().unwrap().len(), 2);
    }
}
